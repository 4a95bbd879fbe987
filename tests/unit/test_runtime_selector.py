import asyncio
import selectors
import socket
import statistics
from collections.abc import Iterator

import pytest

from kad.runtime import selector as module
from kad.runtime.clock import monotonic_us
from kad.runtime.selector import Events, TimerSelector


@pytest.fixture
def selector() -> Iterator[TimerSelector]:
    made = TimerSelector()
    yield made
    made.close()


def test_waits_are_not_rounded_to_milliseconds(selector: TimerSelector) -> None:
    waited = []
    for _ in range(50):
        start = monotonic_us()
        selector.select(0.0003)
        waited.append(monotonic_us() - start)
    assert min(waited) >= 300
    assert statistics.median(waited) < 1000  # rounded up it could not be under 1000


def test_wakes_at_the_deadline_and_never_before(selector: TimerSelector) -> None:
    late = []
    for _ in range(30):
        selector.deadline_us = monotonic_us() + 700
        selector.select(None)
        late.append(monotonic_us() - selector.deadline_us)
    assert min(late) >= 0
    assert statistics.median(late) < 1000


def test_the_earlier_of_timeout_and_deadline_counts(selector: TimerSelector) -> None:
    start = monotonic_us()
    selector.deadline_us = start + 60_000_000
    selector.select(0.001)
    assert 1000 <= monotonic_us() - start < 30_000_000


def test_a_deadline_gone_by_returns_at_once_and_again(selector: TimerSelector) -> None:
    selector.deadline_us = monotonic_us() - 5_000_000
    start = monotonic_us()
    for _ in range(3):
        selector.select(None)
    assert monotonic_us() - start < 30_000_000


def test_an_expiry_is_not_seen_again_once_the_deadline_moved(selector: TimerSelector) -> None:
    selector.deadline_us = monotonic_us() - 1
    selector.select(None)
    start = monotonic_us()
    selector.deadline_us = start + 5_000
    selector.select(None)
    assert monotonic_us() - start >= 5_000


def test_zero_timeout_polls(selector: TimerSelector) -> None:
    one, two = socket.socketpair()
    selector.register(one, selectors.EVENT_READ, "one")
    assert [key.data for key, _ in selector.select(0)] == [(None, None)]
    two.send(b"x")
    assert [key.data for key, _ in selector.select(0)] == ["one", (None, None)]
    one.close()
    two.close()


def test_the_timers_reader_runs_last_after_every_wake() -> None:
    selector = TimerSelector()
    loop = asyncio.SelectorEventLoop(selector)
    calls: list[str] = []
    pairs = [socket.socketpair() for _ in range(3)]
    loop.add_reader(selector.timer_fd, lambda: calls.append("last"))
    for index, (one, two) in enumerate(pairs):
        loop.add_reader(one.fileno(), lambda index=index, one=one: calls.append(f"{index}{len(one.recv(9))}"))
        two.send(b"x")
    selector.deadline_us = monotonic_us()  # the timer is due together with the sockets
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert sorted(calls[:3]) == ["01", "11", "21"]
    assert calls[3] == "last"
    loop.close()
    for pair in pairs:
        for end in pair:
            end.close()


def test_asyncio_timers_still_work() -> None:
    loop = asyncio.SelectorEventLoop(TimerSelector())
    start = monotonic_us()
    loop.run_until_complete(asyncio.sleep(0.0025))
    assert monotonic_us() - start >= 2500
    loop.close()


def test_an_urgent_deadline_is_looked_out_for_without_sleeping(selector: TimerSelector) -> None:
    late = {True: list[int](), False: list[int]()}
    turns = 0
    for urgent in [True, False] * 30:
        selector.deadline_us = monotonic_us() + 700
        while (now_us := monotonic_us()) < selector.deadline_us:
            selector.is_urgent = urgent
            selector.select(None)
            assert not selector.is_urgent, "once"
            turns += urgent
        late[urgent].append(now_us - selector.deadline_us)
    assert turns > 2 * 30, "whoever looks has turns meanwhile"
    # The best of thirty: others use the processor too.
    assert min(late[True]) < min(late[False])


def test_looking_out_ends_with_the_time_or_with_what_arrives(selector: TimerSelector) -> None:
    begun_us = monotonic_us()
    selector.deadline_us = begun_us + 20_000
    selector.look_out_until_us = begun_us + 2_000
    while monotonic_us() < begun_us + 20_000:
        assert selector.look_out_until_us or monotonic_us() >= begun_us + 2_000
        selector.select(None)
    # Where this process stood still all the time, it has not looked again.
    selector.deadline_us = monotonic_us() + 1_000
    selector.select(None)
    assert selector.look_out_until_us == 0
    one, other = socket.socketpair()
    with one, other:
        selector.register(one, selectors.EVENT_READ, (None, None))
        other.send(b"x")
        selector.look_out_until_us = monotonic_us() + 10_000_000
        assert any(key.fileobj is one for key, _ in selector.select(None))
        selector.unregister(one)


def test_looking_out_ends_when_it_is_not_worth_it(selector: TimerSelector) -> None:
    begun_us = monotonic_us()
    answers = [True, True, False]
    selector.deadline_us = begun_us + 20_000
    selector.look_out_until_us = begun_us + 10_000_000
    selector.is_worth_it = lambda: answers.pop(0)
    while monotonic_us() < begun_us + 20_000:
        selector.select(None)
    while answers and monotonic_us() < begun_us + 2_000_000:
        selector.deadline_us = monotonic_us() + 1_000
        selector.select(None)
    assert not answers
    assert selector.look_out_until_us == 0


def test_an_urgent_wait_ends_with_what_arrives(selector: TimerSelector) -> None:
    one, other = socket.socketpair()
    with one, other:
        selector.register(one, selectors.EVENT_READ, (None, None))
        selector.deadline_us = monotonic_us() + 60_000_000
        selector.is_urgent = True
        other.send(b"x")
        assert next(key.fileobj for key, _ in selector.select(None)) is one


def test_a_rest_is_for_what_is_patient_alone(selector: TimerSelector) -> None:
    """``patient``: packets that may lie. Any other news ends the rest, and is found with the packets."""
    packets, sender = socket.socketpair()
    news, teller = socket.socketpair()
    with packets, sender, news, teller:
        selector.serve = lambda _: False
        selector.patient.add(packets.fileno())
        selector.register(packets, selectors.EVENT_READ, (None, None))
        selector.register(news, selectors.EVENT_READ, (None, None))
        sender.send(b"x")
        start_us = monotonic_us()
        selector.rest_until_us = start_us + 20_000
        selector.select(None)
        # The kernel counts it in milliseconds.
        assert monotonic_us() >= start_us + 19_000
        selector.rest_until_us = monotonic_us() + 60_000_000
        teller.send(b"x")
        assert {key.fileobj for key, _ in selector.select(None)} >= {packets, news}
        assert monotonic_us() - start_us < 30_000_000
        # Interest in writing is news as well.
        news.recv(1)
        selector.modify(news, selectors.EVENT_READ | selectors.EVENT_WRITE, (None, None))
        selector.rest_until_us = monotonic_us() + 60_000_000
        assert any(key.fileobj is news for key, _ in selector.select(None))
        selector.unregister(news)
        selector.unregister(packets)
        assert monotonic_us() - start_us < 30_000_000


@pytest.mark.parametrize("gather_us", [5_000_000, 60_000_000])
def test_other_news_does_not_wait_for_packets_to_gather(selector: TimerSelector, gather_us: int) -> None:
    packets, sender = socket.socketpair()
    news, teller = socket.socketpair()
    with packets, sender, news, teller:
        selector.serve = lambda _: False
        selector.patient.add(packets.fileno())
        selector.register(packets, selectors.EVENT_READ, (None, None))
        selector.register(news, selectors.EVENT_READ, (None, None))
        selector.gather_us = gather_us
        start_us = monotonic_us()
        teller.send(b"x")
        assert {key.fileobj for key, _ in selector.select(None)} >= {news}
        sender.send(b"x")
        assert {key.fileobj for key, _ in selector.select(None)} >= {news, packets}
        news.recv(1)
        selector.deadline_us = monotonic_us() + 1_000
        assert {key.fileobj for key, _ in selector.select(None)} >= {packets}
        assert monotonic_us() - start_us < gather_us
        selector.unregister(news)
        selector.unregister(packets)


@pytest.mark.parametrize("news", [True, False])
def test_a_short_rest_is_no_later_than_the_deadline(selector: TimerSelector, news: bool) -> None:
    """Neither one that packets gather in, nor one after packets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    selector.patient.add(ours.fileno())
    selector.register(ours, selectors.EVENT_READ, (None, None))
    selector.gather_us = 8_000
    late = []
    for _ in range(20):
        selector.deadline_us = monotonic_us() + 1_000
        if news:
            theirs.send(b"packet")
        else:
            selector.rest_until_us = monotonic_us() + 8_000
        selector.select(None)
        late.append(monotonic_us() - selector.deadline_us)
        if news:
            ours.recv(100)
    assert statistics.median(late) < 4_000
    selector.unregister(ours)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("gather_us", [500, 30_000])
def test_packets_gather_for_as_long_as_they_may_lie(selector: TimerSelector, gather_us: int) -> None:
    packets, sender = socket.socketpair()
    found: list[int] = []
    with packets, sender:
        selector.served.add(packets.fileno())
        selector.patient.add(packets.fileno())
        selector.register(packets, selectors.EVENT_READ, (None, None))
        selector.serve = lambda events: found.append(len(events)) is not None
        selector.gather_us = gather_us
        for _ in range(3):
            sender.send(b"x")
            start_us = monotonic_us()
            selector.select(None)
            # The kernel counts long waits in milliseconds.
            assert monotonic_us() - start_us >= gather_us - (1_000 if gather_us > 1_000 else 0)
        assert len(found) == 3
        selector.unregister(packets)


def test_a_deadline_that_moves_on_and_on_wakes_nobody(selector: TimerSelector) -> None:
    """Every packet moves it; the timer follows now and then, before its old time comes."""
    one, two = socket.socketpair()
    with one, two:
        ready: list[int] = []

        def serve(events: Events) -> bool:
            ready.extend(descriptor for descriptor, _ in events)
            return False

        selector.serve = serve
        selector.served.add(one.fileno())
        selector.register(one, selectors.EVENT_READ, (None, None))
        two.send(b"x")
        start_us = monotonic_us()
        for turn in range(20):
            selector.deadline_us = start_us + 60_000_000 + turn * 10_000_000
            selector.select(None)
        assert ready == [one.fileno()] * 20
        # Not for every step, and never left behind for longer than a part of the way.
        assert selector.deadline_us is not None
        assert start_us + 60_000_000 < selector._armed_us <= selector.deadline_us
        selector.unregister(one)


def test_a_far_deadline_is_kept_without_the_timer(
    selector: TimerSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where packets gather: once the timer is off it is left alone, until the last millisecond."""
    armed: list[int] = []
    arm = module._arm
    monkeypatch.setattr(module, "_arm", lambda fd, at_us: (armed.append(at_us), arm(fd, at_us)))
    packets, sender = socket.socketpair()
    with packets, sender:
        selector.served.add(packets.fileno())
        selector.patient.add(packets.fileno())
        selector.register(packets, selectors.EVENT_READ, (None, None))
        selector.serve = lambda events: False
        for turn in range(5):
            selector.gather_us = 15_000 if turn else 0
            sender.send(b"x")
            selector.deadline_us = monotonic_us() + 2_000_000
            selector.select(None)
            packets.recv(1)
        assert len(armed) == 2
        assert armed[1] == 0
        # One packet lies there, and is not waited with for longer than the deadline.
        selector.gather_us = 60_000_000
        sender.send(b"x")
        selector.deadline_us = monotonic_us() + 1_100_000
        selector.select(None)
        assert 0 <= monotonic_us() - selector.deadline_us < 500_000
        assert armed[-1] == selector.deadline_us
        packets.recv(1)
        for gather_us in (100_000, 60_000_000):
            selector.gather_us = gather_us
            selector.deadline_us = monotonic_us() + 1_050_000
            selector.select(None)
            assert 0 <= monotonic_us() - selector.deadline_us < 500_000
            assert armed[-1] == selector.deadline_us
        selector.unregister(packets)


def test_an_urgent_deadline_is_not_rested_away(selector: TimerSelector) -> None:
    packets, sender = socket.socketpair()
    with packets, sender:
        selector.serve = lambda _: False
        selector.patient.add(packets.fileno())
        selector.register(packets, selectors.EVENT_READ, (None, None))
        selector.deadline_us = monotonic_us() + 60_000_000
        selector.rest_until_us = selector.deadline_us
        selector.is_urgent = True
        sender.send(b"x")
        start_us = monotonic_us()
        selector.select(None)
        assert monotonic_us() - start_us < 30_000_000
        assert selector.rest_until_us == 0
        selector.unregister(packets)


def test_after_a_rest_all_that_is_ready_is_found_at_once(selector: TimerSelector) -> None:
    """A turn that left some for the next one would let them lie for another rest."""
    found: list[int] = []
    pairs = [socket.socketpair() for _ in range(150)]
    for one, other in pairs:
        selector.served.add(one.fileno())
        selector.patient.add(one.fileno())
        selector.register(one, selectors.EVENT_READ, (None, None))
        other.send(b"x")
    selector.serve = lambda events: found.append(len(events)) is not None
    selector.rest_until_us = monotonic_us() + 1_000
    selector.select(None)
    assert found == [151]
    for pair in pairs:
        for end in pair:
            end.close()
