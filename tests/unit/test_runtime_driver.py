import gc
import socket
import statistics
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from kad.runtime.clock import monotonic_us
from kad.runtime.driver import (
    BATCH,
    EVE_US,
    IDLE_WAKE_US,
    LAST_CALL_US,
    LONG_SLEEP_US,
    ROUNDS,
    Driver,
    Lateness,
)
from kad.runtime.processors import Moment
from kad.units import NEVER


@dataclass
class Ticks:
    count: int = 0

    asleep: list[int] = field(default_factory=list)

    def tick(self, now_us: int = 0) -> None:
        self.count += 1

    def sleep(self, until_us: int) -> None:
        self.asleep.append(until_us)


@dataclass
class Recorder:
    """A core that writes down what it is told; ``answers`` says what it wants done for an event."""

    answers: dict[str, list[str]] = field(default_factory=dict)
    deadline_us: int | None = None
    heard: list[str] = field(default_factory=list)
    on_time: Callable[[int], int | None] = lambda now_us: None

    def handle(self, event: str, now_us: int) -> list[str]:
        self.heard.append(event)
        if event == "time":
            self.deadline_us = self.on_time(now_us)
        return self.answers.get(event, [])


def make(core: Recorder) -> tuple[Driver[str, str], list[str], Ticks]:
    done: list[str] = []
    ticks = Ticks()
    return Driver(core, done.append, ticks, "time"), done, ticks


def test_events_from_an_action_wait_for_the_actions_at_hand() -> None:
    core = Recorder({"start": ["open", "send"], "opened": ["greet"]})
    done: list[str] = []

    def perform(action: str) -> None:
        done.append(action)
        if action == "open":
            driver.feed("opened")

    driver = Driver(core, perform, Ticks(), "time")
    driver.feed("start")
    assert done == ["open", "send", "greet"]
    assert core.heard == ["start", "opened"]
    driver.close()


def test_the_core_may_come_later_but_before_anything_is_fed() -> None:
    done: list[str] = []
    driver: Driver[str, str] = Driver(None, done.append, Ticks(), "time")
    with pytest.raises(AssertionError, match="no core"):
        driver.feed("too early")
    driver.close()
    driver = Driver(None, done.append, Ticks(), "time")
    driver.take(Recorder({"start": ["open"]}))
    driver.feed("start")
    assert done == ["open"]
    with pytest.raises(AssertionError, match="there is one"):
        driver.take(Recorder())
    driver.close()


def test_an_event_may_have_happened_a_little_ago() -> None:
    told: list[int] = []

    class Clock(Recorder):
        def handle(self, event: str, now_us: int) -> list[str]:
            told.append(now_us)
            return super().handle(event, now_us)

    driver, _, _ = make(Clock())
    before = monotonic_us()
    driver.feed("late news", before - 300)
    driver.feed("news")
    driver.feed("older news", before - 400)
    assert told[0] == before - 300
    assert told[1] >= before
    assert told[2] == told[1], "a core's time never runs backwards"
    driver.close()


def test_what_a_timer_of_the_loop_feeds_is_acted_on_at_once() -> None:
    """It runs after the end of its turn, when the wait for the old deadline has been armed."""
    core = Recorder({"news": ["tell"]})
    chores: list[int] = []
    driver, _, _ = make(core)

    def on_time(now_us: int) -> None:
        driver.stop()

    def feed() -> None:
        chores.clear()
        core.deadline_us = monotonic_us()
        driver.feed("news")

    core.on_time = on_time
    driver.each_turn(lambda: bool(chores.append(monotonic_us())))
    driver.loop.call_later(0.01, feed)
    driver.run()
    assert core.heard == ["news", "time"]
    assert chores, "the end of a turn came after it"
    assert driver.lateness.worst_us < IDLE_WAKE_US // 2, "acted on at once, and told right"
    driver.close()


def test_news_is_no_lateness() -> None:
    core = Recorder()
    driver, _, _ = make(core)
    driver.loop.call_later(0.01, lambda: (driver.feed("news"), driver.loop.call_later(0.01, driver.stop)))
    driver.run()
    assert (driver.lateness.deadlines, driver.lateness.worst_us) == (0, 0)
    driver.close()


def test_sockets_are_drained_before_time_is_believed() -> None:
    core = Recorder()
    driver, _, _ = make(core)
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    count = 2 * BATCH + 3

    def drain() -> bool:
        for _ in range(BATCH):
            try:
                driver.feed(one.recv(16).decode())
            except BlockingIOError:
                return False
        return True

    two.setblocking(False)
    sent = 0
    try:
        while sent < count:
            two.send(b"packet")
            sent += 1
    except BlockingIOError:
        pass  # net.unix.max_dgram_qlen is small on some machines
    assert sent > 2
    driver.add_reader(one.fileno(), drain)
    core.deadline_us = monotonic_us() - 1
    core.on_time = lambda now_us: driver.stop()
    driver.run()
    assert core.heard == ["packet"] * sent + ["time"]
    driver.close()
    one.close()
    two.close()


def test_a_flood_does_not_keep_the_timers_waiting() -> None:
    core = Recorder()
    driver, _, _ = make(core)
    one, two = socket.socketpair()
    batches = 0

    def drain() -> bool:
        nonlocal batches
        batches += 1
        return True  # always more

    two.send(b"x")
    driver.add_reader(one.fileno(), drain)
    core.deadline_us = monotonic_us() - 1
    core.on_time = lambda now_us: driver.stop()
    driver.run()
    assert core.heard == ["time"]
    assert batches == ROUNDS
    driver.close()
    one.close()
    two.close()


def test_the_deadline_is_met_and_its_lateness_counted() -> None:
    core = Recorder()
    driver, _, _ = make(core)
    due = core.deadline_us = monotonic_us() + 3_000
    core.on_time = lambda now_us: driver.stop()
    driver.run()
    assert core.heard == ["time"]
    assert monotonic_us() >= due
    assert driver.lateness.deadlines == 1
    driver.close()


def test_idle_processes_tick_several_times_a_second() -> None:
    core = Recorder()
    driver, _, ticks = make(core)
    driver.loop.call_later(0.7, driver.stop)
    driver.run()
    assert 2 <= ticks.count <= 9
    driver.close()


def test_who_may_sleep_longer_says_until_when_and_that_it_is_awake() -> None:
    ticks = Ticks()
    driver: Driver[str, str] = Driver(Recorder(), [].append, ticks, "time", idle_us=LONG_SLEEP_US)
    driver.loop.call_later(0.7, driver.stop)
    start_us = monotonic_us()
    driver.run()
    assert ticks.count <= 3
    # The loop's own timer came first.
    assert max(ticks.asleep) <= start_us + 900_000
    assert ticks.asleep[1::2] == [0] * (len(ticks.asleep) // 2)
    assert 0 not in ticks.asleep[::2]
    driver.close()


def test_a_core_that_stays_behind_does_not_tick() -> None:
    core = Recorder()
    driver, _, ticks = make(core)
    core.on_time = lambda now_us: now_us - 1
    core.deadline_us = monotonic_us() - 1
    driver.loop.call_later(0.05, driver.stop)
    driver.run()
    assert len(core.heard) > 10
    assert ticks.count == 0
    driver.close()


def test_chores_run_each_turn_and_may_feed() -> None:
    core = Recorder()
    driver, _, _ = make(core)

    def chore() -> bool:
        driver.feed("chore")
        if len(core.heard) == 3:
            driver.stop()
        return len(core.heard) < 3

    start = monotonic_us()
    driver.each_turn(chore)
    driver.loop.call_soon(lambda: None)
    driver.run()
    assert core.heard == ["chore"] * 3
    assert monotonic_us() - start < IDLE_WAKE_US * 2
    driver.close()


class Packets:
    """A socket of packets and the reader of a driver for it."""

    def __init__(self, driver: Driver[str, str]) -> None:
        self.driver = driver
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setblocking(False)
        self.turns = 0
        self.limit = 0
        """Stop after so many; 0: never."""
        driver.add_reader(self.ours.fileno(), self.drain, patient=True)

    def drain(self) -> bool:
        self.turns += 1
        for _ in range(BATCH):
            try:
                self.driver.feed(self.ours.recv(16).decode(), monotonic_us())
                self.limit -= 1
                if self.limit == 0:
                    self.driver.stop()
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def test_turns_of_packets_alone_go_past_the_event_loop() -> None:
    core = Recorder({"packet": ["quiet"], "news": ["loud"]})
    ran: list[str] = []
    driver: Driver[str, str] = Driver(core, ran.append, Ticks(), "time", quiet=str)
    packets = Packets(driver)
    chores: list[int] = []
    driver.each_turn(lambda: bool(chores.append(len(core.heard))))

    def on_time(now_us: int) -> int | None:
        packets.theirs.send(b"packet")
        if len(core.heard) > 20:
            driver.stop()
        return now_us + 1_000

    core.on_time = on_time
    core.deadline_us = monotonic_us()
    driver.run()
    assert core.heard.count("packet") >= 9
    assert core.heard[:4] == ["time", "packet", "time", "packet"]
    # Nothing but quiet actions: asyncio and the chores had nothing to do until the end.
    assert len(chores) <= 2
    driver.close()
    packets.close()


def test_what_an_action_asks_of_the_event_loop_is_done() -> None:
    """An action that is not quiet may have called call_soon: the loop must get its turn."""
    core = Recorder({"packet": ["start a script"]})
    driver: Driver[str, str] = Driver(core, lambda _: driver.loop.call_soon(driver.stop), Ticks(), "time")
    packets = Packets(driver)
    packets.theirs.send(b"packet")
    start = monotonic_us()
    driver.run()
    assert core.heard == ["packet"]
    assert monotonic_us() - start < IDLE_WAKE_US
    driver.close()
    packets.close()


def test_timers_of_the_event_loop_are_kept_while_packets_come() -> None:
    core = Recorder()
    driver, _, _ = make(core)
    packets = Packets(driver)
    core.deadline_us = monotonic_us()
    core.on_time = lambda now_us: (packets.theirs.send(b"packet"), now_us + 500)[1]
    start = monotonic_us()
    driver.loop.call_later(0.1, driver.stop)
    driver.run()
    assert 100_000 <= monotonic_us() - start < 1_000_000
    assert core.heard.count("packet") > 1, "a busy machine has the time for few"
    driver.close()
    packets.close()


def test_packets_one_by_one_are_taken_together_by_the_patient() -> None:
    turns = {}
    for patience_us in (0, 20_000):
        core = Recorder()
        driver, _, _ = make(core)
        driver.patience_us = patience_us
        packets = Packets(driver)
        # Another process sends: a packet each millisecond.
        program = (
            "import select, socket\n"
            f"s = socket.socket(fileno={packets.theirs.fileno()})\n"
            "for _ in range(100): s.send(b'packet'); select.select([], [], [], 0.001)\n"
        )
        sender = subprocess.Popen([sys.executable, "-c", program], pass_fds=[packets.theirs.fileno()])
        packets.limit = 100
        driver.run()
        sender.wait(10)
        assert core.heard == ["packet"] * 100
        turns[patience_us] = packets.turns
        driver.close()
        packets.close()
    assert turns[20_000] < turns[0] / 3


def test_the_first_packet_after_a_while_waits_for_those_that_follow() -> None:
    """Unless there is a rare deadline to be met with all speed."""
    turns = {}
    for on_the_eve in (False, True):
        core = Recorder()
        driver, _, _ = make(core)
        driver.patience_us = 100_000
        packets = Packets(driver)
        packets.limit = 5
        if on_the_eve:
            due_us = monotonic_us() + EVE_US // 2
            driver.prepare(lambda due_us=due_us: due_us, lambda: None)
        threading.Timer(0.05, lambda packets=packets: packets.theirs.send(b"packet")).start()
        for delay in (0.06, 0.07, 0.08, 0.09):
            threading.Timer(delay, lambda packets=packets: packets.theirs.send(b"packet")).start()
        driver.run()
        assert core.heard == ["packet"] * 5
        turns[on_the_eve] = packets.turns
        driver.close()
        packets.close()
    assert turns[False] < turns[True]


@pytest.mark.parametrize("batches", [3, 12])
def test_in_a_flood_no_packet_lies(batches: int) -> None:
    """Full sockets lose packets, and the master's own may be among them."""
    driver: Driver[str, str] = Driver(Recorder(), [].append, Ticks(), "time", idle_us=LONG_SLEEP_US)
    packets = Packets(driver)
    left = [True] * batches
    read_us: list[int] = []

    def drain() -> bool:
        if left:
            return left.pop()
        packets.ours.recv(16)
        read_us.append(monotonic_us())
        if len(read_us) == 2:
            driver.stop()
            return False
        driver.patience_us = LONG_SLEEP_US
        packets.theirs.send(b"packet")
        return False

    driver.remove_reader(packets.ours.fileno())
    driver.add_reader(packets.ours.fileno(), drain, patient=True)
    packets.theirs.send(b"packet")
    driver.run()
    assert (read_us[1] - read_us[0] < LONG_SLEEP_US // 2) == (batches > 8)
    driver.close()
    packets.close()


def test_a_deadline_is_met_while_resting() -> None:
    core = Recorder()
    driver, _, _ = make(core)
    driver.patience_us = 10_000_000
    packets = Packets(driver)
    late: list[int] = []

    def on_time(now_us: int) -> int | None:
        late.append(now_us - due[-1])
        if len(due) == 10:
            driver.stop()
            return None
        packets.theirs.send(b"packet")
        due.append(now_us + 2_000)
        return due[-1]

    core.on_time = on_time
    due = [monotonic_us()]
    core.deadline_us = due[0]
    driver.run()
    assert len(late) == 10
    # Rested away, each would be as late as an idle process wakes up.
    assert statistics.median(late) < IDLE_WAKE_US // 10
    driver.close()
    packets.close()


def test_lateness_buckets() -> None:
    lateness = Lateness()
    for late in (0, 500, 501, 1_001, 10_001, 100_001):
        lateness.count(late)
    assert (lateness.deadlines, lateness.over, lateness.worst_us) == (6, [4, 3, 2, 1], 100_001)


DYING = """
    import asyncio, sys
    from kad.runtime.driver import Driver

    class Core:
        deadline_us = None
        def handle(self, event, now_us):
            if event == {event!r}:
                raise ZeroDivisionError("planted")
            return []

    class Ticks:
        def tick(self, now_us=0): ...
        def sleep(self, until_us): ...

    core = Core()
    driver = Driver(core, print, Ticks(), "time")
    async def task():
        raise ZeroDivisionError("planted")
    {how}
    driver.loop.call_later(30, sys.exit)
    driver.run()
"""


@pytest.mark.parametrize(
    "how",
    [
        "driver.loop.call_soon(lambda: driver.feed('boom'))",
        "core.deadline_us = 1",
        "import gc; driver.loop.call_soon(lambda: (driver.loop.create_task(task()), None)[1]);"
        " driver.loop.call_later(0.05, gc.collect)",
        "driver.each_turn(lambda: 1 / 0); driver.loop.call_soon(print)",
    ],
)
def test_an_exception_anywhere_ends_the_process(how: str) -> None:
    event = "time" if "deadline" in how else "boom"
    program = textwrap.dedent(DYING).format(event=event, how=how)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 70
    assert "ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize("before_us", [0, 1_000, 3_000])
@pytest.mark.parametrize("rare", [True, False])
def test_what_is_rare_is_warmed_up_for_once_and_before_it_is_due(rare: bool, before_us: int) -> None:
    """A machine that stands still over the eve proves nothing: then it is tried again.

    ``before_us``: so long before there is something else to do.
    """
    for _ in range(20):
        at_us, due_us, warmed_up = warmed_up_for(rare=rare, before_us=before_us)
        if warmed_up or not rare:
            break
    assert due_us >= at_us
    assert len(warmed_up) == rare
    assert all(at_us - EVE_US <= moment <= due_us for moment in warmed_up)


def test_what_is_due_after_the_longest_sleep_is_not_asked_whether_it_is_rare() -> None:
    asked: list[int] = []
    core = Recorder()
    driver, _, _ = make(core)
    driver.prepare(lambda: asked.append(monotonic_us()) or core.deadline_us or NEVER, lambda: None)
    begun_us = monotonic_us()
    core.deadline_us = begun_us + 3 * IDLE_WAKE_US
    core.on_time = lambda now_us: driver.stop()
    driver.run()
    # Once at the beginning.
    assert all(at_us > begun_us + 2 * IDLE_WAKE_US - 2 * EVE_US for at_us in asked[1:])
    assert len(asked) > 1, "and when it is near it is"
    driver.close()


def warmed_up_for(*, rare: bool, before_us: int) -> tuple[int, int, list[int]]:
    """When something was due, when it was done, and when it was warmed up for."""
    core = Recorder()
    warmed_up: list[int] = []
    due: list[int] = []

    def on_time(now_us: int) -> int | None:
        if now_us < at_us:
            return at_us
        due.append(now_us)
        driver.stop()
        return None

    core.on_time = on_time
    at_us = monotonic_us() + 50_000
    core.deadline_us = at_us - before_us
    driver, _, _ = make(core)
    driver.prepare(lambda: at_us if rare else NEVER, lambda: warmed_up.append(monotonic_us()))
    driver.run()
    driver.close()
    (due_us,) = due
    return at_us, due_us, warmed_up


def test_the_eve_of_a_rare_deadline_goes_first_until_the_next_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Moment, "begin", lambda _self: not told.append("first"))
    monkeypatch.setattr(Moment, "end", lambda _self: told.append("as usual"))
    tell_of_an_eve(told)
    assert told == ["first", "warm", "due", "as usual", "due"]


def test_who_could_not_be_put_first_is_not_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have a real-time priority of its own."""
    told: list[str] = []
    monkeypatch.setattr(Moment, "begin", lambda _self: bool(told.append("refused")))
    monkeypatch.setattr(Moment, "end", lambda _self: told.append("as usual"))
    tell_of_an_eve(told)
    assert told == ["refused", "warm", "due", "due"]


def test_a_loop_that_ends_on_the_eve_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Moment, "begin", lambda _self: not told.append("first"))
    monkeypatch.setattr(Moment, "end", lambda _self: told.append("as usual"))
    for _ in range(50):
        told.clear()
        core = Recorder(deadline_us=monotonic_us() + 20_000)
        driver, _, _ = make(core)
        at_us = core.deadline_us
        driver.prepare(lambda at_us=at_us: at_us, driver.stop)
        driver.loop.call_later(0.03, driver.stop)
        driver.run()
        driver.close()
        if told:
            break
    assert told == ["first", "as usual"]
    assert gc.isenabled()


def tell_of_an_eve(told: list[str]) -> None:
    """A machine that wakes us after the eve gets another try."""
    for _ in range(50):
        told.clear()
        twice_due(told)
        if told[0] != "due":
            return


def twice_due(told: list[str]) -> None:
    """The first time is rare, the second is not."""
    core = Recorder()
    at_us = core.deadline_us = monotonic_us() + 20_000

    def on_time(now_us: int) -> int | None:
        told.append("due")
        if core.deadline_us != at_us:
            driver.stop()
        return None if core.deadline_us != at_us else now_us + 20_000

    core.on_time = on_time
    driver, _, _ = make(core)
    driver.prepare(lambda: at_us if "due" not in told else NEVER, lambda: told.append("warm"))
    driver.run()
    driver.close()


def test_the_last_call_follows_the_warming_up_shortly_before_the_deadline() -> None:
    """A machine that stands still over the eve gets another try."""
    for _ in range(50):
        told = called_for()
        if len(told) == 4 and are_in_time([left_us for _, left_us, _ in told]):
            break
    assert [what for what, _, _ in told] == ["warm", "last call", "due", "later"], "and each of them once"
    assert are_in_time([left_us for _, left_us, _ in told])
    assert [collecting for _, _, collecting in told] == [False, False, False, True], "until the next sleep"


def are_in_time(left: list[int]) -> bool:
    """What was left until the deadline at the warming up, the last call, and the deadline."""
    eve_us, call_us, left_us, _ = left
    return LAST_CALL_US < eve_us <= EVE_US and 0 < call_us <= LAST_CALL_US and left_us <= 0


def called_for() -> list[tuple[str, int, bool]]:
    """What was called on the eve of a rare deadline and after it, how long before it, and whether garbage is
    looked for then."""
    core = Recorder({"time": ["something for the event loop to see"]})
    told: list[tuple[str, int, bool]] = []
    at_us = core.deadline_us = monotonic_us() + 20_000

    def tell(what: str) -> None:
        told.append((what, at_us - monotonic_us(), gc.isenabled()))

    def on_time(now_us: int) -> int | None:
        tell("due")
        driver.loop.call_later(0.02, tell, "later")
        driver.loop.call_later(0.02, driver.stop)
        return None

    core.on_time = on_time
    driver, _, _ = make(core)
    driver.prepare(lambda: at_us, lambda: tell("warm"), lambda: tell("last call"))
    driver.run()
    driver.close()
    return told


def test_a_deadline_put_off_is_not_warmed_up_for() -> None:
    core = Recorder()
    warmed_up: list[int] = []
    turns: list[int] = []

    def on_time(now_us: int) -> int | None:
        turns.append(now_us)
        if len(turns) > 1:
            driver.stop()
        return now_us + 30_000

    core.on_time = on_time
    core.deadline_us = monotonic_us() + 1
    driver, _, _ = make(core)
    driver.prepare(
        lambda: NEVER if turns else core.deadline_us or NEVER,
        lambda: warmed_up.append(monotonic_us()),
    )
    driver.run()
    driver.close()
    assert len(turns) == 2 and len(warmed_up) <= 1


@pytest.mark.parametrize("looking_out", [False, True])
@pytest.mark.parametrize("direct", [False, True])
def test_direct_news_goes_past_the_event_loop_and_may_call_for_it(direct: bool, looking_out: bool) -> None:
    core = Recorder({"news": ["act"]})
    driver, done, _ = make(core)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    by_the_event_loop: list[bool] = []

    def drain() -> bool:
        by_the_event_loop.append("_run" in [frame.name for frame in traceback.extract_stack()])
        driver.feed(ours.recv(16).decode())
        driver.loop.call_later(0.001, driver.stop)
        return False

    driver.add_reader(ours.fileno(), drain, direct=direct)
    theirs.send(b"news")
    if looking_out:
        driver.look_out(monotonic_us() + 1_000, lambda: True)
    start = monotonic_us()
    driver.run()
    assert done == ["act"]
    assert by_the_event_loop == [not direct]
    assert monotonic_us() - start < IDLE_WAKE_US
    driver.remove_reader(ours.fileno())
    driver.close()
    ours.close()
    theirs.close()
