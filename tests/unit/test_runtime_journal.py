"""The journal: what it gives back after any writer's death, and what it makes of any memory."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from kad.ipc.messages import Role
from kad.runtime.heartbeat import Phase
from kad.runtime.journal import AREAS, VALUE_LIMIT, Area, Journal, Records, Stamp

SMALL = Area(slots=12, slot_size=256)


class Killed(Exception):
    pass


class MortalRecords(Records):
    """Dies after so many bytes were stored."""

    bytes_left: int | None = None
    stored = 0

    def _store(self, at: int, data: bytes) -> None:
        if self.bytes_left is not None and len(data) > self.bytes_left:
            super()._store(at, data[: self.bytes_left])
            raise Killed
        super()._store(at, data)
        self.stored += len(data)
        if self.bytes_left is not None:
            self.bytes_left -= len(data)


def memory() -> bytearray:
    return bytearray(SMALL.size)


def records(image: bytearray) -> MortalRecords:
    return MortalRecords(memoryview(image), SMALL)


def bytes_stored(image: bytearray, act: Callable[[Records], None]) -> int:
    trial = records(bytearray(image))
    trial.load()
    act(trial)
    return trial.stored


def assert_survives_every_kill(
    image: bytearray, act: Callable[[Records], None], before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """Kill the writer after 0, 1, 2 … bytes: the next life sees all of before or all of after."""
    total = bytes_stored(image, act)
    for count in range(total + 1):
        copy = bytearray(image)
        writer = records(copy)
        writer.load()
        writer.bytes_left = count
        try:
            act(writer)
        except Killed:
            assert count < total
        heir = records(copy)
        found = heir.load()
        assert found in (before, after), count
        if count == total:
            assert found == after
        # The next life can go on writing, and loses nothing by it.
        assert heir.write("heir", b"z" * 300)
        assert records(copy).load() == found | {"heir": b"z" * 300}


def filled(values: dict[str, bytes]) -> bytearray:
    image = memory()
    writer = records(image)
    for key, value in values.items():
        assert writer.write(key, value)
    return image


SHORT, OTHER = b"short", b"other"
LONG, LONGER = bytes(range(256)), bytes(range(255, -1, -1)) * 3


def test_new_memory_is_empty() -> None:
    assert records(memory()).load() == {}


def test_values_come_back_in_the_next_life() -> None:
    values = {"VI_1": SHORT, "VI_2": LONG, "": b""}
    assert records(filled(values)).load() == values


def test_kill_during_first_write() -> None:
    image = filled({"VI_1": SHORT})
    assert_survives_every_kill(
        image, lambda r: r.write("VI_2", LONG), {"VI_1": SHORT}, {"VI_1": SHORT, "VI_2": LONG}
    )


def test_kill_during_rewrite_of_each_length() -> None:
    for old in (SHORT, LONG, LONGER):
        for new in (OTHER, LONG[::-1], LONGER[::-1]):
            image = filled({"VI_1": old, "VI_2": SHORT})
            assert_survives_every_kill(
                image,
                lambda r, new=new: r.write("VI_1", new),
                {"VI_1": old, "VI_2": SHORT},
                {"VI_1": new, "VI_2": SHORT},
            )


def test_kill_during_delete() -> None:
    image = filled({"VI_1": LONG, "VI_2": SHORT})
    assert_survives_every_kill(
        image, lambda r: r.delete("VI_1"), {"VI_1": LONG, "VI_2": SHORT}, {"VI_2": SHORT}
    )


def test_kill_during_reuse_of_a_deleted_slot() -> None:
    image = filled({"VI_1": SHORT, "VI_2": SHORT})
    writer = records(image)
    writer.load()
    writer.write("VI_1", OTHER)
    writer.delete("VI_1")
    assert_survives_every_kill(
        image, lambda r: r.write("VI_3", OTHER), {"VI_2": SHORT}, {"VI_2": SHORT, "VI_3": OTHER}
    )


def test_kill_during_stamp_leaves_old_or_new() -> None:
    image = filled({"VI_1": SHORT})
    first = records(image)
    first.load()
    first.stamp("VI_1", 1_000_255, 255)
    for count in range(25):
        copy = bytearray(image)
        writer = records(copy)
        writer.load()
        writer.bytes_left = count
        try:
            writer.stamp("VI_1", 2_000_256, 256)
        except Killed:
            assert count < 24
        heir = records(copy)
        assert heir.load() == {"VI_1": SHORT}
        assert heir.stamp_of("VI_1") == (Stamp(2_000_256, 256) if count == 24 else Stamp(1_000_255, 255))


def test_stamps_survive_writes_and_go_with_the_key() -> None:
    image = filled({"VI_1": SHORT})
    writer = records(image)
    writer.load()
    assert writer.stamp_of("VI_1") is None
    for tick in range(1, 6):
        writer.stamp("VI_1", tick, tick)
        assert writer.stamp_of("VI_1") == Stamp(tick, tick)
        writer.write("VI_1", bytes([tick]))
    heir = records(image)
    heir.load()
    assert heir.stamp_of("VI_1") == Stamp(5, 5)
    heir.delete("VI_1")
    heir.write("VI_9", SHORT)
    assert heir.stamp_of("VI_9") is None
    heir.stamp("unknown", 1, 1)
    assert heir.stamp_of("unknown") is None


def test_no_room_is_said_and_leaves_no_lie() -> None:
    writer = records(memory())
    written = [key for key in map(str, range(20)) if writer.write(key, SHORT)]
    assert written == [str(number) for number in range(SMALL.slots)]
    assert writer.refused == 20 - SMALL.slots
    assert not writer.write("3", LONGER)
    assert "3" not in writer.load()
    assert writer.write("20", SHORT)


def test_limits_of_key_and_value() -> None:
    writer = records(memory())
    assert not writer.write("k" * VALUE_LIMIT, SHORT)
    assert not writer.write("k", b"x" * (VALUE_LIMIT + 1))
    assert writer.load() == {}


def keys_of_every_length() -> dict[str, bytes]:
    """As long as a key has a place of its own, where its value has none beside it, and longer than that."""
    return {"é" * length: b"%d" % length for length in (1, 36, 38, 40, 100, 101, 250)}


def test_keys_of_every_length_come_back() -> None:
    for key, value in keys_of_every_length().items():
        image = filled({"VI_1": SHORT, key: value})
        heir = records(image)
        assert heir.load() == {"VI_1": SHORT, key: value}
        heir.stamp(key, 7, 8)
        assert heir.write(key, LONG)
        heir = records(image)
        assert heir.load() == {"VI_1": SHORT, key: LONG}
        assert heir.stamp_of(key) == Stamp(7, 8)
        heir.delete(key)
        assert records(image).load() == {"VI_1": SHORT}


def test_long_keys_that_begin_alike_are_told_apart() -> None:
    values = {"é" * 150 + last: last.encode() for last in "ab"}
    journal = Journal.create()
    for key, value in values.items():
        assert journal.records(Role.VRRP).write(key, value)
    assert Journal(journal.descriptor, AREAS).records(Role.VRRP).load() == values


def test_kill_during_rewrite_under_a_long_key() -> None:
    for key, value in keys_of_every_length().items():
        before = {key: value, "VI_2": SHORT}
        after = {key: OTHER, "VI_2": SHORT}
        assert_survives_every_kill(filled(before), lambda r, key=key: r.write(key, OTHER), before, after)


def test_a_long_value_does_not_depend_on_the_length_of_its_key() -> None:
    """An area has small slots: beside a key of the greatest length there may be no room for chunks."""
    journal = Journal.create({Role.CHECK: AREAS[Role.CHECK]})
    writer = journal.records(Role.CHECK)
    assert all(writer.write("k" * length, LONGER) for length in range(180, 220))


def test_slots_do_not_leak() -> None:
    writer = records(memory())
    for turn in range(500):
        assert writer.write("VI_1", LONGER[: turn % 700])
        if turn % 3 == 0:
            writer.delete("VI_1")
    writer.clear()
    for key in range(SMALL.slots):
        assert writer.write(str(key), SHORT)


operations = st.lists(
    st.tuples(st.sampled_from(["write", "delete", "stamp"]), st.sampled_from("abc"), st.integers(0, 700)),
    max_size=12,
)


def act_on(target: Records, operation: tuple[str, str, int], model: dict[str, bytes]) -> dict[str, bytes]:
    """Carry out one operation; what must be there after it."""
    name, key, number = operation
    model = dict(model)
    if name == "write":
        value = bytes([number & 255]) * number
        if target.write(key, value):
            model[key] = value
        else:
            model.pop(key, None)
    elif name == "delete":
        target.delete(key)
        model.pop(key, None)
    else:
        target.stamp(key, number + 1, number + 1)
    return model


@settings(max_examples=200, deadline=None)
@given(operations, st.integers(0, 6000))
def test_any_history_any_kill(history: list[tuple[str, str, int]], kill_after: int) -> None:
    image = memory()
    writer = records(image)
    writer.load()
    writer.bytes_left = kill_after
    allowed: list[dict[str, bytes]] = [{}]
    model: dict[str, bytes] = {}
    try:
        for operation in history:
            # What it would be if this one is done is known beforehand from a copy.
            trial = records(bytearray(image))
            trial.load()
            outcome = act_on(trial, operation, model)
            allowed = [model, outcome]
            assert act_on(writer, operation, model) == outcome
            model, allowed = outcome, [outcome]
    except Killed:
        pass
    assert records(image).load() in allowed


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(0, SMALL.size - 400), operations)
def test_any_memory_is_read_without_an_exception(
    noise: bytes, at: int, history: list[tuple[str, str, int]]
) -> None:
    image = filled({"VI_1": LONG, "VI_2": SHORT})
    image[at : at + len(noise)] = noise
    heir = records(image)
    found = heir.load()
    if found != {"VI_1": LONG, "VI_2": SHORT}:
        assert heir.corrupt > 0 or set(found) < {"VI_1", "VI_2"}
    assert all(value in (LONG, SHORT) for value in found.values()), "what does not check is not there"
    model = found
    for operation in history:
        model = act_on(heir, operation, model)
    assert records(image).load() == model


def test_noise_everywhere() -> None:
    source = random.Random(7)
    for _ in range(200):
        image = bytearray(source.randbytes(SMALL.size))
        heir = records(image)
        assert heir.load() == {}
        assert heir.corrupt > 0
        assert heir.write("VI_1", LONG)
        assert records(image).load() == {"VI_1": LONG}


def test_killed_process_leaves_whole_records() -> None:
    """A real writer, really killed, at whatever point it has reached."""
    journal = Journal.create({Role.VRRP: Area(slots=64, slot_size=512)})
    for turn in range(20):
        child = os.fork()
        if child == 0:
            mine = journal.records(Role.VRRP)
            mine.load()
            count = 0
            while True:
                count += 1
                mine.write("VI_1", b"%d " % turn * (count % 400 + 1))
                journal.heartbeat(Role.VRRP).tick()
        ticks = journal.heartbeat(Role.VRRP).ticks
        while journal.heartbeat(Role.VRRP).ticks < ticks + 20 + turn:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = Journal(journal.descriptor, {Role.VRRP: Area(slots=64, slot_size=512)}).records(Role.VRRP)
        values = found.load()
        assert set(values) == {"VI_1"}
        assert set(values["VI_1"].split()) == {b"%d" % turn}


def test_untouched_slots_cost_nothing() -> None:
    journal = Journal.create()
    for role in Role:
        assert journal.records(role).load() == {}
        journal.records(role).write("one", SHORT)
    assert os.fstat(journal.descriptor).st_blocks * 512 < 32 * 4096


def test_heartbeat_is_seen_by_another_process() -> None:
    journal = Journal.create()
    page = journal.heartbeat(Role.BFD)
    page.begin(3)
    child = os.fork()
    if child == 0:
        page.tick(123)
        page.tick(456)
        page.phase = Phase.READY
        page.generation = 9
        page.pid = os.getpid()
        os._exit(0)
    os.waitpid(child, 0)
    seen = (page.ticks, page.ticked_at_us, page.phase, page.incarnation, page.generation, page.pid)
    assert seen == (2, 456, Phase.READY, 3, 9, child)
    assert journal.heartbeat(Role.VRRP).ticks == 0
    page.begin(4)
    assert (page.ticks, page.phase, page.incarnation, page.generation, page.pid) == (
        2,
        Phase.STARTING,
        4,
        0,
        0,
    )


def test_a_rehearsal_changes_nothing_whatever_kills_it() -> None:
    for values in ({"short": SHORT, "long": LONGER}, {"long": LONGER}, {}):
        assert_survives_every_kill(filled(values), Records.rehearse, values, values)
    assert bytes_stored(filled({"short": SHORT}), Records.rehearse) > len(SHORT)


def test_a_rehearsal_needs_no_room() -> None:
    image = memory()
    writer = records(image)
    assert writer.write("long", LONG * 7), "more than half of the room"
    writer.rehearse()
    assert records(image).load() == {"long": LONG * 7}
