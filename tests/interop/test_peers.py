"""kad and keepalived as the two routers of several virtual routers at once, both ways round.

One pair of daemons runs every variant of version, family, transport and authentication side by side and lives
through one story: the lower priority starts alone, the higher one joins, is killed with -9 whole, comes back,
and is stopped in order. The story is told once for each pairing; each test then looks at one variant in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.capture import Advert, Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, needs_namespaces, wait_until
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

HIGH, LOW = 150, 100
SLACK_US = 250_000
"""What a busy machine may add to a wait. Whoever takes a farewell for nothing waits 300 ms more."""
HIGH_SOURCES = ("192.0.2.1", "2001:db8::1")
LOW_SOURCES = ("192.0.2.2", "2001:db8::2")


@dataclass(frozen=True)
class Variant:
    name: str
    vrid: int
    version: int
    vip: str
    unicast: bool = False
    password: str = ""
    auth_type: str = "PASS"

    @property
    def advert_int(self) -> float:
        return 1 if self.version == 2 else 0.1

    @property
    def advert_int_us(self) -> int:
        return round(self.advert_int * 1_000_000)

    @property
    def family(self) -> int:
        return 6 if ":" in self.vip else 4

    def skew_us(self, priority: int) -> int:
        """RFC 3768 §6.1 and RFC 9568 §6.1."""
        return (256 - priority) * (1_000_000 if self.version == 2 else self.advert_int_us) // 256

    def block(self, priority: int) -> str:
        own, other = (HIGH_SOURCES, LOW_SOURCES) if priority == HIGH else (LOW_SOURCES, HIGH_SOURCES)
        which = self.family == 6
        link_local = [f"fe80::{self.vrid}/64"] if which else []
        return vrrp_instance(
            self.name,
            vrid=self.vrid,
            version=self.version,
            priority=priority,
            advert_int=self.advert_int,
            addresses=[*link_local, f"{self.vip}/{64 if which else 24}"],
            source=own[which],
            peers=[other[which]] if self.unicast else [],
            password=self.password,
            auth_type=self.auth_type,
        )


VARIANTS = [
    Variant("v2-multicast", 11, 2, "192.0.2.111"),
    Variant("v2-unicast", 12, 2, "192.0.2.112", unicast=True),
    Variant("v2-multicast-password", 13, 2, "192.0.2.113", password="s3cret"),
    Variant("v2-unicast-password", 14, 2, "192.0.2.114", unicast=True, password="12345678"),
    Variant("v2-multicast-ah", 16, 2, "192.0.2.116", password="s3cret", auth_type="AH"),
    Variant("v2-unicast-ah", 17, 2, "192.0.2.117", unicast=True, password="12345678", auth_type="AH"),
    Variant("v2-ipv6-multicast", 15, 2, "2001:db8::115"),
    Variant("v3-multicast", 21, 3, "192.0.2.121"),
    Variant("v3-unicast", 22, 3, "192.0.2.122", unicast=True),
    Variant("v3-ipv6-multicast", 23, 3, "2001:db8::123"),
    Variant("v3-ipv6-unicast", 24, 3, "2001:db8::124", unicast=True),
]


@dataclass
class Story:
    """What happened, for each variant by name."""

    adverts: list[Advert] = field(default_factory=list)
    announcements: list[tuple[int, str, str]] = field(default_factory=list)
    """(time, MAC, address)"""
    moments: dict[str, int] = field(default_factory=dict)
    answers: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """chapter -> variant -> roles that answered for its address"""
    left_over: dict[str, list[str]] = field(default_factory=dict)
    """chapter -> VIPs the kernel of the higher node held at its end"""
    stop_status: int = -1
    logs: str = ""

    def seen(
        self, variant: Variant, since: str, until: str = "", priority: int | None = None
    ) -> list[Advert]:
        end = self.moments[until] if until else 1 << 62
        return [
            advert
            for advert in self.adverts
            if advert.vrid == variant.vrid
            and self.moments[since] <= advert.time_us < end
            and priority in (None, advert.priority)
        ]


class Stage:
    """Two routers, a client, and a pen."""

    def __init__(self, network: Network, high: type[Daemon], low: type[Daemon]) -> None:
        lan = network.bridge()
        self.nodes: dict[str, Node] = {}
        for label, sources in (("high", HIGH_SOURCES), ("low", LOW_SOURCES)):
            self.nodes[label] = network.node(label)
            self.nodes[label].attach(lan, *(f"{s}/{64 if ':' in s else 24}" for s in sources), name="eth0")
        self.client = network.node("client")
        self.client.attach(lan, "192.0.2.9/24", "2001:db8::9/64", name="eth0")
        self.macs = {node.mac("eth0"): label for label, node in self.nodes.items()}
        self.high = high(self.nodes["high"], configuration(*(v.block(HIGH) for v in VARIANTS)))
        self.low = low(self.nodes["low"], configuration(*(v.block(LOW) for v in VARIANTS)))
        self.story = Story()

    def mark(self, moment: str) -> None:
        self.story.moments[moment] = time.time_ns() // 1000

    def holds_everything(self, label: str) -> bool:
        held = {a.partition("/")[0] for a in self.nodes[label].addresses("eth0")}
        return held >= {v.vip for v in VARIANTS}

    def end_chapter(self, chapter: str, serving: str) -> None:
        # What a daemon says of its state comes before its addresses.
        wait_until(lambda: self.holds_everything(serving), 3, every=0.02)
        held = {a.partition("/")[0] for a in self.nodes["high"].addresses("eth0")}
        self.story.left_over[chapter] = [v.vip for v in VARIANTS if v.vip in held]
        self.story.answers[chapter] = {
            v.name: {self.macs[mac] for mac in who_answers(self.client, "eth0", v.vip, seconds=0.1)}
            for v in VARIANTS
        }


def tell(stage: Stage, capture: Capture) -> None:
    """The story. Nothing fails here: what does not happen in time is missing from the record."""

    def everyone(daemon: Daemon, state: str, times: int = 1) -> Callable[[], bool]:
        return lambda: all(daemon.count(f"({v.name}) Entering {state} STATE") >= times for v in VARIANTS)

    stage.mark("low starts")
    stage.low.start()
    wait_until(everyone(stage.low, "MASTER"), 10)
    stage.end_chapter("low alone", "low")
    stage.mark("high starts")
    stage.high.start()
    wait_until(everyone(stage.high, "MASTER"), 10)
    wait_until(lambda: everyone(stage.low, "BACKUP", 2)(), 3)
    stage.end_chapter("both", "high")
    stage.mark("high killed")
    stage.high.kill_all()
    wait_until(everyone(stage.low, "MASTER", 2), 10)
    stage.end_chapter("high dead", "low")
    stage.mark("high returns")
    stage.high.start()
    wait_until(everyone(stage.high, "MASTER"), 10)
    wait_until(everyone(stage.low, "BACKUP", 3), 3)
    stage.end_chapter("high back", "high")
    stage.mark("high stops")
    stage.story.stop_status = stage.high.stop()
    stage.mark("high stopped")
    wait_until(everyone(stage.low, "MASTER", 3), 5)
    stage.end_chapter("high gone", "low")
    stage.story.adverts = capture.adverts()
    stage.story.announcements = [(a.time_us, a.mac, a.address) for a in capture.announcements()]
    stage.story.logs = f"--- high\n{stage.high.log.read_text()}\n--- low\n{stage.low.log.read_text()}"


PAIRS: dict[str, tuple[type[Daemon], type[Daemon]]] = {
    "kad-over-keepalived": (Kad, Keepalived),
    "keepalived-over-kad": (Keepalived, Kad),
    "kad-over-kad": (Kad, Kad),
    "keepalived-over-keepalived": (Keepalived, Keepalived),  # the control: tells a fault of the stage
}


@pytest.fixture(scope="module", params=PAIRS)
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    needs_namespaces()
    needs_keepalived()
    with Network("peers") as network:
        stage = Stage(network, *PAIRS[request.param])
        try:
            with Capture(stage.nodes["low"], "eth0") as capture:
                tell(stage, capture)
            print(stage.story.logs)
            yield stage.story
        finally:
            stage.high.close()
            stage.low.close()


@pytest.fixture(params=VARIANTS, ids=lambda v: v.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    assert isinstance(request.param, Variant)
    return request.param


def test_alone_the_lower_one_serves(story: Story, variant: Variant) -> None:
    assert story.answers["low alone"][variant.name] == {"low"}


def test_the_higher_one_preempts_and_alone_answers(story: Story, variant: Variant) -> None:
    assert story.answers["both"][variant.name] == {"high"}
    assert story.seen(variant, "high starts", "high killed", HIGH)


def test_take_over_after_kill_is_neither_early_nor_late(story: Story, variant: Variant) -> None:
    last = story.seen(variant, "high starts", "high returns", HIGH)[-1]
    first = story.seen(variant, "high killed", "high returns", LOW)[0]
    expected = 3 * variant.advert_int_us + variant.skew_us(LOW)
    assert -1000 <= first.time_us - last.time_us - expected < SLACK_US


def test_take_over_is_announced_and_answered(story: Story, variant: Variant) -> None:
    assert "low" in story.answers["high dead"][variant.name]
    since, until = story.moments["high killed"], story.moments["high returns"]
    assert [a for t, _, a in story.announcements if since <= t < until and a == variant.vip]


def test_return_clears_what_the_kill_left_and_preempts(story: Story, variant: Variant) -> None:
    assert variant.vip in story.left_over["high dead"], "kill -9 leaves the address behind"
    assert story.answers["high back"][variant.name] == {"high"}
    returned = story.seen(variant, "high returns", "high stops", HIGH)[0]
    started = story.moments["high returns"]
    assert returned.time_us - started >= variant.advert_int_us, "it listened before it spoke"


def test_stop_says_priority_zero_and_the_other_follows_after_its_skew(story: Story, variant: Variant) -> None:
    goodbye = story.seen(variant, "high stops", "", 0)
    assert goodbye, "priority 0"
    first = next(a for a in story.seen(variant, "high stops", "", LOW) if a.time_us > goodbye[0].time_us)
    late = first.time_us - goodbye[-1].time_us - variant.skew_us(LOW)
    assert -1000 <= late < SLACK_US
    assert story.answers["high gone"][variant.name] == {"low"}
    assert variant.vip not in story.left_over["high gone"]


def test_stop_is_a_success(story: Story) -> None:
    assert story.stop_status == 0


def test_nobody_else_spoke(story: Story, variant: Variant) -> None:
    priorities = {a.priority for a in story.seen(variant, "low starts")}
    assert priorities == {HIGH, LOW, 0}
