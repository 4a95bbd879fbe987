"""Where a measurement takes place: two nodes, joined by one or four cables, and the daemon to be measured."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.capture import Advert, Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, stand_still, wait_until

Program = type[Daemon]
PROGRAMS: tuple[Program, Program] = (Kad, Keepalived)
CABLES = 4
HOGS = 4
"""Processes that burn where a measurement has them."""


class NotMeasuredError(Exception):
    """The daemon did not come to the point that is measured."""


@dataclass(frozen=True)
class Row:
    """One line of the table. A value is in ``unit``; less is better."""

    what: str
    unit: str
    kad: float | None
    keepalived: float | None
    target: str
    met: bool | None = None


def within(factor: float) -> Callable[[float, float], bool]:
    return lambda kad, keepalived: kad <= factor * keepalived


def at_most(limit: float) -> Callable[[float, float], bool]:
    return lambda kad, _: kad <= limit


@contextmanager
def cables(count: int = CABLES) -> Iterator[tuple[Node, Node]]:
    """Two nodes joined by ``count`` cables, the ends named eth0 … at both."""
    with Network("bench") as network:
        one, two = network.node("one"), network.node("two")
        for index in range(count):
            name = f"eth{index}"
            network.pair(one, two, name)
            one.ip("addr", "add", f"10.{index}.0.1/16", "dev", name)
            two.ip("addr", "add", f"10.{index}.0.2/16", "dev", name)
        yield one, two


def many(count: int, *, priority: int, advert_int: float = 1, changed: bool = False) -> str:
    """``count`` version 3 instances over the cables, one address each; ``changed`` alters the last one's."""
    blocks = []
    for index in range(count):
        cable, vrid = index % CABLES, index // CABLES + 1
        host = 200 if changed and index == count - 1 else 100
        blocks.append(
            vrrp_instance(
                f"VI_{index}",
                interface=f"eth{cable}",
                vrid=vrid,
                version=3,
                state="MASTER" if priority == 255 else "BACKUP",
                priority=priority,
                advert_int=advert_int,
                addresses=[f"10.{cable}.{host}.{vrid}/32"],
            )
        )
    return configuration(*blocks)


class Watch:
    """Captures on every cable at one node."""

    def __init__(self, node: Node, count: int = CABLES) -> None:
        self._stack = ExitStack()
        self.captures = [self._stack.enter_context(Capture(node, f"eth{i}")) for i in range(count)]

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def adverts(self, since_us: int = 0, *, outgoing: bool = False) -> dict[tuple[int, int], list[Advert]]:
        """Adverts by (cable, virtual router), in order."""
        found: dict[tuple[int, int], list[Advert]] = {}
        for cable, capture in enumerate(self.captures):
            for advert in capture.adverts():
                if advert.outgoing == outgoing and advert.time_us >= since_us:
                    found.setdefault((cable, advert.vrid), []).append(advert)
        return found

    def clear(self) -> None:
        for capture in self.captures:
            capture.clear()

    def wait_for_all(self, count: int, seconds: float, since_us: int = 0) -> None:
        if wait_until(lambda: len(self.adverts(since_us)) >= count, seconds, every=0.05) is None:
            raise NotMeasuredError(f"{len(self.adverts(since_us))} of {count} advertise after {seconds} s")


def now_us() -> int:
    """CLOCK_REALTIME, as the captures."""
    return time.time_ns() // 1000


def processor_time(pid: int) -> float:
    """Seconds of processor time of all threads, to the nanosecond."""
    return (
        sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        / 1e9
    )


def processor_per_minute(pid: int, seconds: float) -> float:
    """Processor seconds a minute, looked at for this long."""
    before, start = processor_time(pid), time.monotonic()
    stand_still(seconds)
    return (processor_time(pid) - before) / (time.monotonic() - start) * 60


def median(values: Sequence[float]) -> float:
    if not values:
        raise NotMeasuredError("no values")
    return statistics.median(values)


def largest_gap(adverts: dict[tuple[int, int], list[Advert]]) -> float:
    """The longest silence of any virtual router, in milliseconds."""
    gaps = [
        (b.time_us - a.time_us) / 1000 for series in adverts.values() for a, b in itertools.pairwise(series)
    ]
    return max(gaps, default=float("inf"))


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Processes that use all the processor time they get."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
