"""Many packets in one call: lengths, order, limits, and how errors come."""

import socket
from collections.abc import Iterator

import pytest

from kad.kernel.datagrams import BATCH, BatchReader

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.connect(one.getsockname())
            yield one, other


def contents(reader: BatchReader, lengths: list[int]) -> list[bytes]:
    size = reader.data_size
    return [bytes(reader.data[at * size : at * size + length]) for at, length in enumerate(lengths)]


def test_packets_of_any_length_in_their_order(pair: Pair) -> None:
    one, other = pair
    reader = BatchReader(64, name_size=16)
    sent = [b"x" * (n % 65) for n in range(BATCH + 10)]
    for data in sent:
        other.send(data)
    assert contents(reader, reader.read(one.fileno())) == sent[:BATCH]
    assert contents(reader, reader.read(one.fileno(), 4)) == sent[BATCH : BATCH + 4]
    assert contents(reader, reader.read(one.fileno())) == sent[BATCH + 4 :]
    with pytest.raises(BlockingIOError):
        reader.read(one.fileno())


def test_the_sender_of_each(pair: Pair) -> None:
    one, other = pair
    reader = BatchReader(64, name_size=16)
    other.send(b"a")
    other.send(b"b")
    reader.read(one.fileno())
    port = other.getsockname()[1].to_bytes(2, "big")
    for at in range(2):
        way = bytes(reader.ways[at * reader.way_size : (at + 1) * reader.way_size])
        assert way[2:8] == port + socket.inet_aton("127.0.0.1")


def test_what_is_too_long_is_cut_and_harms_no_other(pair: Pair) -> None:
    one, other = pair
    reader = BatchReader(8)
    for data in (b"first", b"far too long for that", b"last"):
        other.send(data)
    assert contents(reader, reader.read(one.fileno())) == [b"first", b"far too ", b"last"]


def test_one_reader_serves_several_sockets(pair: Pair) -> None:
    one, other = pair
    reader = BatchReader(64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        third.setblocking(False)
        third.bind(("127.0.0.1", 0))
        other.send(b"to one")
        other.sendto(b"to the third", third.getsockname())
        assert contents(reader, reader.read(third.fileno())) == [b"to the third"]
        assert contents(reader, reader.read(one.fileno())) == [b"to one"]


def test_errors_are_raised_by_number() -> None:
    with pytest.raises(OSError, match="descriptor"):
        BatchReader(8).read(1 << 20)
