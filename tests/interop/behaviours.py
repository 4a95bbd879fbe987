"""What virtual routers are configured to do and what then happens: played to kad and keepalived alike.

A scenario is one instance (or two, in a sync group) of one daemon, and what a peer says to it meanwhile. All
of them live side by side, each under a number of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from kad.config.model.vrrp import AuthType, UnicastPeer, VirtualAddress, VrrpInstance
from kad_vrrp.core.advertiser import Adverts
from tests.support.keepalived import configuration, is_newer, vrrp_instance

OURS, PEER, LOWER_PEER, STRANGER = "192.0.2.10", "192.0.2.66", "192.0.2.5", "192.0.2.77"
INTERVAL = 0.2
INTERVAL_US = 200_000


@dataclass(frozen=True)
class Heard:
    """Adverts of a peer, one an interval, in this part of the story (seconds)."""

    since: float
    until: float
    priority: int
    source: str = PEER
    ttl: int = 255
    spoiled: int = 0
    """XORed into the checksum."""
    cut: int = 0
    vip: str = ""
    interval: float = INTERVAL
    version: int = 0
    password: str = ""


@dataclass(frozen=True)
class Scenario:
    name: str
    lines: Sequence[str] = ()
    heard: Sequence[Heard] = ()
    version: int = 3
    priority: int = 100
    state: str = "BACKUP"
    addresses: Sequence[str] = ()
    unicast: bool = False
    password: str = ""
    partner: bool = False
    """In a sync group with a second instance, to which nobody speaks."""
    partner_lines: Sequence[str] = ()
    reloaded: dict[str, object] = field(default_factory=dict)
    """Other values after the reload."""
    differs: frozenset[str] = frozenset()
    """What is different, for reasons written down in docs/differences.md."""


def two(priority: int, *, until: float = 1.5, then: int | None = None) -> list[Heard]:
    """A better master for a while, and another after it."""
    said = [Heard(0, until, priority)]
    return said if then is None else [*said, Heard(until, until + 2.5, then)]


OF_2_2_7 = frozenset() if is_newer() else frozenset({"states", "told"})

SCENARIOS = [
    Scenario("alone"),
    Scenario("master_at_start", state="MASTER"),
    Scenario("higher", heard=two(150)),
    Scenario("higher_then_silence_then_higher", heard=[Heard(0, 0.8, 150), Heard(2.4, 3.4, 150)]),
    Scenario("equal_of_higher_address", heard=[Heard(0, 1.5, 100)]),
    Scenario("equal_of_lower_address", heard=[Heard(0, 1.5, 100, source=LOWER_PEER)]),
    Scenario("lower", heard=[Heard(0, 1.5, 50)]),
    Scenario("lower_unanswered", ["lower_prio_no_advert"], heard=[Heard(0, 1.5, 50)]),
    Scenario("farewell_to_a_master", heard=[Heard(0, 0.3, 0)]),
    Scenario("higher_then_farewell", heard=[Heard(0, 1.0, 150), Heard(1.0, 1.1, 0)]),
    Scenario("higher_then_lower", heard=two(150, then=50)),
    Scenario("nopreempt", ["nopreempt"], heard=two(150, then=50)),
    Scenario("preempt_delay", ["preempt_delay 1"], heard=two(150, then=50)),
    Scenario("higher_answered", ["higher_prio_send_advert"], heard=two(150)),
    Scenario("wrong_ttl", heard=[Heard(0, 1.5, 150, ttl=254)]),
    Scenario("wrong_checksum", heard=[Heard(0, 1.5, 150, spoiled=0x5555)]),
    Scenario("truncated", heard=[Heard(0, 1.5, 150, cut=6)]),
    # keepalived 2.2.7 drops them; 2.3.3, 2.4.3 and kad only say that they are not ours.
    Scenario("other_addresses", heard=[Heard(0, 1.5, 150, vip="192.0.2.250")], differs=OF_2_2_7),
    Scenario(
        "other_addresses_unchecked",
        ["skip_check_adv_addr"],
        [Heard(0, 1.5, 150, vip="192.0.2.250")],
        differs=OF_2_2_7,
    ),
    Scenario("other_interval", heard=[Heard(0, 2.0, 150, interval=0.5)]),
    Scenario("other_version", heard=[Heard(0, 1.5, 150, version=2)]),
    Scenario("owner", heard=[Heard(0, 1.5, 150)], priority=255, state="MASTER"),
    Scenario("version_2", version=2, heard=[Heard(0, 2.5, 150, interval=1)]),
    Scenario("version_2_other_interval", version=2, heard=[Heard(0, 2.5, 150, interval=3)]),
    Scenario(
        "password", version=2, password="s3cret", heard=[Heard(0, 2.5, 150, interval=1, password="s3cret")]
    ),
    Scenario(
        "wrong_password", version=2, password="s3cret", heard=[Heard(0, 2.5, 150, interval=1, password="x")]
    ),
    Scenario("no_password", version=2, password="s3cret", heard=[Heard(0, 2.5, 150, interval=1)]),
    Scenario("ipv6", addresses=["fe80::26/64", "2001:db8::126/64"]),
    Scenario("unicast", unicast=True, heard=two(150)),
    Scenario("unicast_stranger", unicast=True, heard=[Heard(0, 1.5, 150, source=STRANGER)]),
    Scenario(
        "unicast_stranger_checked",
        ["check_unicast_src"],
        unicast=True,
        heard=[Heard(0, 1.5, 150, source=STRANGER)],
    ),
    Scenario("excluded", ["virtual_ipaddress_excluded {", "192.0.2.231/32", "}"]),
    Scenario(
        "kinds_of_addresses",
        addresses=[
            "192.0.2.131/24",
            "192.0.2.141/32",
            "192.0.2.151/28 brd + scope link",
            "198.51.100.131/24 dev eth1",
            "192.0.2.161/24 label eth0:kinds",
        ],
    ),
    Scenario(
        "routes_and_rules",
        [
            *("virtual_routes {", "203.0.113.0/25 via 192.0.2.66 dev eth0", "}"),
            *("virtual_rules {", "from 203.0.113.7/32 lookup 233 priority 2330", "}"),
        ],
    ),
    Scenario("announcements", ["garp_master_repeat 2", "garp_master_delay 1"]),
    Scenario("file_weighs", ["track_file {", "value weight 1", "}"]),
    Scenario("file_forbids", ["track_file {", "value weight -20", "}"]),
    Scenario("link_weighs", ["track_interface {", "eth2 weight -30", "}"]),
    Scenario("link_forbids", ["track_interface {", "eth2", "}"]),
    Scenario("group", partner=True, heard=two(150)),
    Scenario("group_forbidden", partner=True, partner_lines=["track_interface {", "eth2", "}"]),
    Scenario("reloaded_priority", reloaded={"priority": 120}),
    Scenario("reloaded_addresses", reloaded={"addresses": ["192.0.2.243/24", "192.0.2.244/32"]}),
    Scenario("address_deleted"),
    # Of the two followed by weight one cannot be done without: it weighs nothing.
    Scenario(
        "link_weighs_and_carries",
        [
            *("track_interface {", "eth1 weight 3", "eth2 weight 3", "}"),
            *("virtual_ipaddress_excluded {", "198.51.100.233/32 dev eth1", "}"),
        ],
    ),
]


def numbers(scenario: Scenario) -> list[int]:
    """The VRIDs of a scenario's instances."""
    first = 1 + SCENARIOS.index(scenario)
    return [first, 100 + first] if scenario.partner else [first]


def names(scenario: Scenario) -> list[str]:
    return [scenario.name, f"{scenario.name}_partner"] if scenario.partner else [scenario.name]


def addresses(scenario: Scenario) -> list[str]:
    return list(scenario.addresses) or [f"192.0.2.{100 + SCENARIOS.index(scenario)}/24"]


def _block(scenario: Scenario, name: str, vrid: int, notify: str) -> str:
    is_partner = name != scenario.name
    lines = [*(scenario.partner_lines if is_partner else scenario.lines), f'notify "{notify}"']
    return vrrp_instance(
        name,
        vrid=vrid,
        version=scenario.version,
        state=scenario.state,
        priority=scenario.priority,
        advert_int=INTERVAL if scenario.version == 3 else 1,
        addresses=[f"198.51.100.{vrid - 60}/24 dev eth1"] if is_partner else addresses(scenario),
        source=OURS,
        peers=[PEER] if scenario.unicast else [],
        password=scenario.password,
        extra=lines,
    )


def text(place: str, *, reloaded: bool = False) -> str:
    """The configuration of all scenarios, before or after the reload."""
    blocks = [f"track_file value {{\nfile {place}/value\n}}\n"]
    for scenario in SCENARIOS:
        changes = scenario.reloaded if reloaded else {}
        block = Scenario(**{**vars(scenario), **changes})  # type: ignore[arg-type]
        for name, vrid in zip(names(scenario), numbers(scenario), strict=True):
            if not block.addresses:
                block = Scenario(**{**vars(block), "addresses": addresses(scenario)})  # type: ignore[arg-type]
            blocks.append(_block(block, name, vrid, f"{place}/notify"))
        if scenario.partner:
            members = "\n".join(names(scenario))
            blocks.append(f"vrrp_sync_group {scenario.name}_G {{\ngroup {{\n{members}\n}}\n}}\n")
    return configuration(*blocks, settings=["enable_script_security", "script_user root"])


def packets(scenario: Scenario, said: Heard) -> tuple[str, bytes]:
    """(destination, packet) of an advert as a peer would send it."""
    version = said.version or scenario.version
    vip = said.vip or addresses(scenario)[0].partition("/")[0]
    sender = VrrpInstance(
        name="peer",
        virtual_router_id=numbers(scenario)[0],
        version=version,
        advert_int_us=round((1 if said.version == 2 else said.interval) * 1_000_000),
        virtual_addresses=(VirtualAddress(vip, 24),),
        auth_type=AuthType.PASS if said.password else AuthType.NONE,
        auth_pass=said.password.encode(),
    )
    if scenario.unicast:
        sender = replace(sender, unicast=True, unicast_peers=(UnicastPeer(OURS),), multicast_group="")
    (advert,) = Adverts(sender, said.source, 1, old_checksum=False).of(said.priority)
    data = bytearray(advert.data)
    data[8] = said.ttl
    data[26] ^= said.spoiled >> 8
    data[27] ^= said.spoiled & 0xFF
    if said.cut:
        data = data[: -said.cut]
        data[2:4] = len(data).to_bytes(2, "big")
    return advert.destination, bytes(data)


def timeline() -> list[tuple[float, str, bytes]]:
    """(seconds, destination, packet) of everything that is said, in order."""
    said = []
    for scenario in SCENARIOS:
        for heard in scenario.heard:
            destination, data = packets(scenario, heard)
            count = max(1, round((heard.until - heard.since) / heard.interval))
            said += [(heard.since + number * heard.interval, destination, data) for number in range(count)]
    return sorted(said)
