"""When a packet came: the kernel stamps it by the clock of the day, which anybody may set at any time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from kad.ipc.messages import Role
from kad.runtime.clock import monotonic_us, realtime_us
from kad.runtime.journal import AREAS
from kad_bfd.core.actions import Listener
from kad_bfd.io.sockets import (
    ORIGIN_LIMIT,
    READ_LIMIT,
    STRANGERS_ORIGIN_LIMIT,
    STRANGERS_READ_LIMIT,
    Arrived,
    ListeningSocket,
)

HOUR_US = 3_600_000_000
WAY = struct.pack("=HH4s8x", 2, 49152, bytes((192, 0, 2, 2)))


@pytest.fixture
def arrived() -> Arrived:
    return []


@pytest.fixture
def reader(arrived: Arrived) -> Iterator[ListeningSocket]:
    made = ListeningSocket(Listener(4), READ_LIMIT, arrived.extend, {})
    yield made
    made.socket.close()


def test_a_packet_counts_from_its_stamp(reader: ListeningSocket, arrived: Arrived) -> None:
    now_us, stamp_us = monotonic_us(), realtime_us() - 20_000
    reader._hand_on([(b"", WAY, stamp_us)])
    ((_, origin, at_us),) = arrived
    assert origin.source == "192.0.2.2"
    assert now_us - 21_000 < at_us < monotonic_us() - 19_000


@pytest.mark.parametrize("set_by_us", [-HOUR_US, HOUR_US])
def test_a_clock_that_was_set_moves_no_packet_beyond_what_is_certain(
    reader: ListeningSocket, arrived: Arrived, set_by_us: int
) -> None:
    """It came after the socket was last empty, and it is here."""
    reader._earliest_us = empty_us = monotonic_us() - 50_000
    reader._hand_on([(b"", WAY, realtime_us() - set_by_us)])
    ((_, _, at_us),) = arrived
    if set_by_us > 0:
        assert at_us == empty_us
    else:
        assert empty_us < at_us <= monotonic_us()


@pytest.mark.parametrize("set_by_us", [-HOUR_US, HOUR_US])
def test_a_clock_set_between_two_packets_does_not_change_their_order(
    reader: ListeningSocket, arrived: Arrived, set_by_us: int
) -> None:
    """In one batch or two: what came later may undo what came before, and not the other way round."""
    reader._earliest_us = monotonic_us() - 50_000
    before, after = realtime_us() - 20_000 - set_by_us, realtime_us() - 10_000
    reader._hand_on([(b"1", WAY, before), (b"2", WAY, after)])
    reader._hand_on([(b"3", WAY, after + 1)])
    times = [at_us for _, _, at_us in arrived]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("reads", "kept"), [(READ_LIMIT, ORIGIN_LIMIT), (STRANGERS_READ_LIMIT, STRANGERS_ORIGIN_LIMIT)]
)
def test_forged_sources_do_not_fill_the_memory(arrived: Arrived, reads: int, kept: int) -> None:
    reader = ListeningSocket(Listener(4), reads, arrived.extend, {})
    for number in range(kept + kept // 2):
        way = struct.pack("=HHI8x", 2, 49152, number)
        reader._hand_on([(b"", way, realtime_us())])
    reader.socket.close()
    assert len(arrived) == kept + kept // 2
    assert len(reader._origins) <= kept


def test_every_neighbour_there_can_be_has_an_origin_that_is_kept(
    reader: ListeningSocket, arrived: Arrived
) -> None:
    """What is not kept is made anew for each of its packets, and no session takes it for familiar."""
    ways = [struct.pack("=HHI8x", 2, 49152, number) for number in range(AREAS[Role.BFD].slots)]
    for _ in range(2):
        reader._hand_on([(b"", way, realtime_us()) for way in ways])
    first, second = arrived[: len(ways)], arrived[len(ways) :]
    assert all(one[1] is two[1] for one, two in zip(first, second, strict=True))
