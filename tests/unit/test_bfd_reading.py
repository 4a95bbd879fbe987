"""When a packet came: the kernel stamps it by the clock of the day, which anybody may set at any time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from kad.runtime.clock import monotonic_us, realtime_us
from kad_bfd.core.actions import Listener
from kad_bfd.io.sockets import READ_LIMIT, Arrived, ListeningSocket

HOUR_US = 3_600_000_000
WAY = struct.pack("=HH4s8x", 2, 49152, bytes((192, 0, 2, 2)))


@pytest.fixture
def arrived() -> Arrived:
    return []


@pytest.fixture
def reader(arrived: Arrived) -> Iterator[ListeningSocket]:
    made = ListeningSocket(Listener(4), READ_LIMIT, arrived.extend)
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
    reader._empty_at_us = empty_us = monotonic_us() - 50_000
    reader._hand_on([(b"", WAY, realtime_us() - set_by_us)])
    ((_, _, at_us),) = arrived
    if set_by_us > 0:
        assert at_us == empty_us
    else:
        assert empty_us < at_us <= monotonic_us()
