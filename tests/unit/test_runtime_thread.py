"""Work beside the loop: its result, and what it raises, come back into it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from kad.runtime.thread import in_thread
from tests.support.reactor import LoopReactor


@pytest.fixture
def reactor() -> Iterator[LoopReactor]:
    made = LoopReactor()
    yield made
    made.close()


def test_the_result_comes_back_into_the_loop(reactor: LoopReactor) -> None:
    told: list[tuple[str, int]] = []
    in_thread(
        reactor.loop,
        "work",
        lambda: threading.current_thread().name,
        lambda name: told.append((name, threading.get_ident())),
    )
    reactor.until(lambda: told)
    assert told == [("work", threading.get_ident())]


def test_what_it_raises_is_raised_in_the_loop(reactor: LoopReactor) -> None:
    def fail() -> int:
        raise ValueError("a defect")

    told: list[int] = []
    in_thread(reactor.loop, "work", fail, told.append)
    with pytest.raises(AssertionError):
        reactor.until(lambda: told)
    (error,) = reactor.failures
    assert isinstance(error, ValueError)


def test_a_loop_that_was_closed_is_not_missed() -> None:
    loop = asyncio.new_event_loop()
    gate = threading.Event()
    in_thread(loop, "late work", gate.wait, lambda _: None)
    (thread,) = [each for each in threading.enumerate() if each.name == "late work"]
    loop.close()
    gate.set()
    thread.join(10)
    assert not thread.is_alive()
