"""What hostile bytes cost in memory is bounded by how many there are, and nothing of it stays."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kad.config import text as front
from kad.config.diagnostics import nearest_known
from kad.config.load import load
from kad.config.preprocess import Budget
from kad.config.source import TextReader
from kad_vrrp.core.packet import PacketError, judge, virtual_router_id
from tests.property.test_config_front import FRAGMENTS
from tests.property.test_vrrp_packets import FRAMES, RULES
from tests.support.adverts import advert
from tests.support.configuration import NAME
from tests.support.vrrp_host import instance
from tests.support.vrrp_playbook import Playbook

STATEMENTS = 1_000
"""As many as one text may expand to here. The full limit is the same code with a larger number."""
READING, PER_BYTE, PER_STATEMENT = 32_000, 16, 2_000
"""Bytes: what a reading takes in any case, and what a byte of text, a statement and a finding may add."""
STAYS = 64_000
"""Bytes that may be in use more after dozens of texts or thousands of packets: counters, and words known."""
LONGEST_PACKET = 65_535


class CountedBudget(Budget):
    """What one reading may spend; :attr:`last` knows what it has."""

    last: CountedBudget

    def __init__(self) -> None:
        super().__init__(3 * STATEMENTS, STATEMENTS)
        CountedBudget.last = self

    @property
    def spent(self) -> int:
        return min(STATEMENTS, STATEMENTS - self.statements)


@pytest.fixture(autouse=True)
def _small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "Budget", CountedBudget)


@contextmanager
def traced() -> Iterator[None]:
    """Every allocation is counted."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def peak_of(work: Callable[[], object]) -> int:
    """Bytes in use at most while this runs, beside those before."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    work()
    return tracemalloc.get_traced_memory()[1] - before


def in_use() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


# Configuration ---------------------------------------------------------------------------------------------


def random_text(chance: random.Random) -> bytes:
    count = chance.choice((5, 50, 500, 1_000))
    data = "".join(chance.choices(FRAGMENTS, k=count)).encode("utf-8", "surrogatepass")
    return data + chance.randbytes(count) if chance.random() < 0.2 else data


def bombs() -> list[bytes]:
    """Texts that stand for a great deal more than they are."""
    doubled = "".join(f"$L{i}= \\\n $L{i - 1}\\\n $L{i - 1}\n" for i in range(1, 40))
    long = "".join(f"$B{i}=$B{i - 1}$B{i - 1}\n" for i in range(1, 40))
    return [
        text.encode()
        for text in (
            f"$L0= \\\n a b c\\\n a b c\n{doubled}$L39\n",
            f"$B0=xxxxxxxxxxxxxxxx\n{long}a $B39\n$B39 $B38 $B37\n",
            "~SEQ(i, 1, 99999999) ~SEQ(j, 1, 99999999) a $i $j\n",
            "$B=" + "x" * 900 + "\n~SEQ(i, 1, 99999999) $B$i b\n",
            "a {\n" * 5_000,
            "include k\n" * 1_000,
            "~LST({i,j}, " + "{1,2}, " * 400 + "{3}) v $i\n",
            '"' * 10_000,
        )
    ]


def assert_bounded(data: bytes) -> None:
    loaded = []
    peak = peak_of(lambda: loaded.append(load(NAME, reader=TextReader({NAME: data}), seed=1)))
    many = CountedBudget.last.spent + len(loaded[0].diagnostics)
    assert peak <= READING + PER_BYTE * len(data) + PER_STATEMENT * many, data[:500]


def test_memory_to_read_a_text_is_bounded_by_its_size() -> None:
    chance = random.Random(7)
    texts = [random_text(chance) for _ in range(40)] + bombs()
    load(NAME, reader=TextReader({NAME: b"".join(texts)}), seed=1)  # what is made once
    with traced():
        for text in texts:
            assert_bounded(text)


def test_nothing_stays_of_texts_that_were_read() -> None:
    chance = random.Random(8)
    nearest_known.cache_clear()  # how full other tests left it decides when its table grows
    with traced():
        used = []
        for _ in range(3):
            for _ in range(15):
                load(NAME, reader=TextReader({NAME: random_text(chance)}), seed=1)
            used.append(in_use())
    assert used[-1] - used[0] <= STAYS, used


# Packets ---------------------------------------------------------------------------------------------------


def random_packet(chance: random.Random, packets: list[bytes]) -> bytes:
    """One of these, changed, cut or grown, up to the longest there can be."""
    packet = bytearray(chance.choice(packets))
    for _ in range(chance.randrange(5)):
        packet[chance.randrange(len(packet))] = chance.randrange(256)
    if chance.random() < 0.3:
        del packet[chance.randrange(len(packet)) + 1 :]
    grown = chance.choice((0, 0, 8, 1_500, LONGEST_PACKET - len(packet)))
    return bytes(packet) + chance.randbytes(grown)


def parse(data: bytes, rules: object) -> None:
    for read in (
        lambda: judge(data, rules, source="192.0.2.1"),  # type: ignore[arg-type]
        lambda: virtual_router_id(data, 4),
    ):
        try:
            read()
        except PacketError:
            continue


def test_memory_to_parse_a_packet_is_bounded_by_its_size() -> None:
    chance = random.Random(9)
    packets = [random_packet(chance, FRAMES) for _ in range(400)]
    for packet in packets:
        parse(packet, RULES[0])
    with traced():
        for packet in packets:
            rules = chance.choice(RULES)
            peak = peak_of(lambda packet=packet, rules=rules: parse(packet, rules))
            # 255 addresses at most, and a copy of it or two for the checksum.
            assert peak <= 64_000 + 4 * len(packet), packet[:100]


def test_nothing_stays_of_packets_that_were_heard() -> None:
    chance = random.Random(10)
    book = Playbook(instance(priority=100)).start()
    ours = [advert(priority=50, spoil=spoil, ttl=ttl) for spoil in (0, 1) for ttl in (64, 255)]
    with traced():
        used = []
        for _ in range(3):
            for _ in range(1_000):
                book.hear_bytes(random_packet(chance, ours), source=f"10.{chance.randrange(256)}.0.2")
            book.lines()
            used.append(in_use())
    assert used[-1] - used[0] <= STAYS, used
    assert sum(book.engine.report().instances[0].drops.values()) > 1_000, "most came as far as the instance"
