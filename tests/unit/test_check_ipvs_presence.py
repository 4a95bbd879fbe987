"""Whether a family of generic netlink is there: asked of the real kernel, about one that every kernel has."""

from collections.abc import Callable, Iterator

import pytest

from kad.kernel import batch
from kad.kernel.batch import RequestQueue
from kad.kernel.genetlink import CONTROLLER, PROTOCOL
from kad_check.io import ipvs_presence
from kad_check.io.ipvs_presence import ASK_LIMIT, Presence
from tests.support.reactor import LoopReactor


class Bench:
    """A presence of ``nlctrl`` in a loop. ``told``: the numbers it told."""

    def __init__(self) -> None:
        self.reactor = LoopReactor()
        self.told: list[int] = []
        self.requests = RequestQueue(PROTOCOL)
        self.presence = Presence(self.reactor.loop, self.requests, self.told.append)
        self.reactor.add_reader(self.requests.fileno(), self.requests.drain)

    def ask_as_if_news_were_lost(self) -> None:
        self.presence._ask()

    def until(self, condition: Callable[[], object]) -> None:
        self.reactor.until(condition)

    def close(self) -> None:
        self.presence.close()
        self.requests.close()
        self.reactor.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(ipvs_presence, "FAMILY_NAME", "nlctrl")
    monkeypatch.setattr(ipvs_presence, "PAUSE_S", 0.001)
    made = Bench()
    yield made
    made.close()


def test_no_answer_at_the_start_is_asked_for_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(batch, "QUEUE_LIMIT", 0)
        bench.presence.begin()
        assert not bench.presence.settled
    bench.until(lambda: bench.told)
    assert bench.told == [CONTROLLER]


def test_no_answer_is_no_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.presence.begin()
    bench.until(lambda: bench.told)
    asked = 0

    def ask(*words: object) -> None:
        nonlocal asked
        asked += 1
        submit(*words)  # type: ignore[arg-type]

    submit = bench.requests.submit
    monkeypatch.setattr(bench.requests, "submit", ask)
    with monkeypatch.context() as full:
        full.setattr(batch, "QUEUE_LIMIT", 0)
        bench.ask_as_if_news_were_lost()
        bench.until(lambda: asked >= ASK_LIMIT)
        bench.reactor.spin()
    assert asked == ASK_LIMIT
    assert bench.told == [CONTROLLER]
    monkeypatch.setattr(ipvs_presence, "FAMILY_NAME", "absent")
    bench.ask_as_if_news_were_lost()
    bench.until(lambda: len(bench.told) == 2)
    assert bench.told == [CONTROLLER, 0]
