"""AH beside Debian's keepalived, auth_hmac beside one that has it: groups, restarts, keys that change.

Debian's keepalived (2.2.7) knows no auth_hmac. KEEPALIVED_WITH_HMAC names a program of 2.4.2 or later, to
take the place of one of the two; without it kad speaks with itself here, and with bytes recorded from 2.4.3
in ``tests/unit/test_vrrp_authentication.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.support.capture import Capture, Frame
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, needs_namespaces, poll
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

SOURCES = {"one": ("192.0.2.1", "2001:db8::1"), "two": ("192.0.2.2", "2001:db8::2")}
VIPS = ("192.0.2.101", "192.0.2.102")
TEXT_KEY, HEX_KEY = "abcdefghijklmnopqrstuvwxyz012345", "hex:" + bytes(range(32)).hex()


class KeepalivedWithHmac(Keepalived):
    program = os.environ.get("KEEPALIVED_WITH_HMAC", "")

    def argv(self) -> list[str]:
        argv = super().argv()
        at = argv.index("-b")  # built without BFD it does not know the option
        return argv[:at] + argv[at + 2 :]


class Stage:
    """Two routers, one above the other, and a client that asks who holds an address."""

    def __init__(self, network: Network, high: type[Daemon], low: type[Daemon]) -> None:
        lan = network.bridge()
        self.nodes: dict[str, Node] = {}
        for label, addresses in SOURCES.items():
            self.nodes[label] = network.node(label)
            texts = (f"{each}/{64 if ':' in each else 24}" for each in addresses)
            self.nodes[label].attach(lan, *texts, name="eth0")
        self.client = network.node("client")
        self.client.attach(lan, "192.0.2.9/24", name="eth0")
        self.macs = {node.mac("eth0"): label for label, node in self.nodes.items()}
        self.high, self.low = high(self.nodes["one"], ""), low(self.nodes["two"], "")

    def close(self) -> None:
        self.high.close()
        self.low.close()

    def holders(self, vip: str = VIPS[0]) -> set[str]:
        return {self.macs[mac] for mac in who_answers(self.client, "eth0", vip, seconds=0.15)}


def entered(daemon: Daemon, state: str, names: Sequence[str], times: int = 1) -> Callable[[], bool]:
    return lambda: all(daemon.count(f"({name}) Entering {state} STATE") >= times for name in names)


def counters(kad: Daemon, name: str) -> dict[str, int]:
    """keepalived's counters of an instance, as kadctl tells them."""
    assert isinstance(kad, Kad)
    instances = json.loads(kad.kadctl("status", "--json").stdout)["reports"]["vrrp"]["instances"]
    found: dict[str, int] = next(each for each in instances if each["name"] == name)["counters"]
    return found


def sequences(frames: Sequence[Frame], source: str, vrid: int, protocol: int) -> list[int]:
    """The sequence numbers one router has sent for a virtual router, in the order of the wire."""
    found = []
    for frame in frames:
        data = frame.data[14:]
        if frame.ethertype != 0x0800 or data[9] != protocol or data[12:16] != socket.inet_aton(source):
            continue
        if protocol == 51 and data[45] == vrid:
            found.append(int.from_bytes(data[28:32], "big"))
        elif protocol == 112 and data[21] == vrid and int.from_bytes(data[2:4], "big") >= 60:  # signed
            found.append(int.from_bytes(data[-24:-16], "big"))
    return found


def grow(numbers: list[int]) -> bool:
    return all(one < other for one, other in itertools.pairwise(numbers))


# AH in a sync group -------------------------------------------------------------------------------------

GROUP = ("multicast", "unicast")


def ah_text(label: str, priority: int) -> str:
    own, other = ("one", "two") if label == "one" else ("two", "one")
    blocks = [
        vrrp_instance(
            name,
            vrid=number + 1,
            priority=priority,
            addresses=[f"{VIPS[number]}/24"],
            source=SOURCES[own][0],
            peers=[SOURCES[other][0]] if name == "unicast" else [],
            password="s3cret",
            auth_type="AH",
        )
        for number, name in enumerate(GROUP)
    ]
    return configuration("vrrp_sync_group both {\ngroup {\nmulticast\nunicast\n}\n}\n", *blocks)


@pytest.fixture(params=["kad-over-keepalived", "keepalived-over-kad"])
def group(request: pytest.FixtureRequest) -> Iterator[Stage]:
    needs_namespaces()
    needs_keepalived()
    kinds: tuple[type[Daemon], type[Daemon]] = (Kad, Keepalived)
    high, low = kinds if request.param.startswith("kad") else kinds[::-1]
    with Network("ah") as network:
        stage = Stage(network, high, low)
        stage.high.configure(ah_text("one", 150))
        stage.low.configure(ah_text("two", 100))
        try:
            yield stage
        finally:
            print(stage.high.log.read_text(), "\n--- low\n", stage.low.log.read_text())
            stage.close()


def test_a_group_under_ah(group: Stage) -> None:
    """Take-over, preemption, a killed process, a reload, priority 0, and the same again."""
    high, low = group.high, group.low
    with Capture(group.nodes["two"], "eth0") as wire:
        low.start()
        poll(entered(low, "MASTER", GROUP), "the lower one alone", seconds=10)
        high.start()
        poll(entered(high, "MASTER", GROUP), "preemption", seconds=10)
        poll(entered(low, "BACKUP", GROUP, 2), "that the lower one gives way", seconds=5)
        assert [group.holders(vip) for vip in VIPS] == [{"one"}, {"one"}]
        survive(group, wire)
        assert not entered(low, "MASTER", GROUP, 2)(), "no take-over by a kill or a reload"
        assert high.stop() == 0
        poll(entered(low, "MASTER", GROUP, 2), "that priority 0 is believed", seconds=2.5)
        assert [group.holders(vip) for vip in VIPS] == [{"two"}, {"two"}]
        high.start()
        poll(entered(high, "MASTER", GROUP), "the return", seconds=10)
        assert [group.holders(vip) for vip in VIPS] == [{"one"}, {"one"}]
        frames = wire.drain()
    for number in range(len(GROUP)):
        for source in (SOURCES["one"][0], SOURCES["two"][0]):
            sent = sequences(frames, source, number + 1, 51)
            assert len(sent) > 3 and grow(sent), f"{source}: {sent}"


def survive(group: Stage, wire: Capture) -> None:
    """kad's VRRP process is killed; then its configuration is read again."""
    kad = group.high if isinstance(group.high, Kad) else group.low
    assert isinstance(kad, Kad)
    killed = kad.vrrp_pid()
    os.kill(killed, signal.SIGKILL)
    kad.new_vrrp_pid(killed)
    master = SOURCES["one"][0]
    for text in (ah_text("one", 151), ah_text("two", 101)):
        sent = len(sequences(wire.drain(), master, 1, 51))
        poll(lambda sent=sent: len(sequences(wire.drain(), master, 1, 51)) > sent + 1, "adverts", seconds=5)
        kad.configure(
            text if (kad is group.high) == (text == ah_text("one", 151)) else kad.config.read_text()
        )
        assert kad.kadctl("reload").returncode == 0
    refused = [counters(kad, name)["auth_failure"] for name in GROUP]
    assert refused == [0, 0]


# auth_hmac ----------------------------------------------------------------------------------------------

SIGNED = {"v2": (2, 11, "192.0.2.101", False), "v3": (3, 12, "192.0.2.102", True), "six": (3, 13, "", False)}
"""name: (version, VRID, address, unicast)"""


def hmac_text(label: str, priority: int, *settings: str) -> str:
    own, other = ("one", "two") if label == "one" else ("two", "one")
    extra = ["auth_hmac {", *settings, "}"] if settings else []
    blocks = []
    for name, (version, vrid, vip, unicast) in SIGNED.items():
        six = name == "six"
        blocks.append(
            vrrp_instance(
                name,
                vrid=vrid,
                version=version,
                priority=priority,
                advert_int=1,
                addresses=["fe80::13/64"] if six else [f"{vip}/24"],
                source=SOURCES[own][six],
                peers=[SOURCES[other][six]] if unicast else [],
                extra=extra,
            )
        )
    return configuration(*blocks)


HMAC_PAIRS: dict[str, tuple[type[Daemon], type[Daemon]]] = {
    "kad-over-kad": (Kad, Kad),
    "kad-over-keepalived": (Kad, KeepalivedWithHmac),
    "keepalived-over-kad": (KeepalivedWithHmac, Kad),
}


@pytest.fixture(params=HMAC_PAIRS)
def signed(request: pytest.FixtureRequest) -> Iterator[Stage]:
    needs_namespaces()
    kinds = HMAC_PAIRS[request.param]
    if KeepalivedWithHmac in kinds and not KeepalivedWithHmac.program:
        pytest.skip("KEEPALIVED_WITH_HMAC names no keepalived of 2.4.2 or later; Debian's has no auth_hmac")
    with Network("hmac") as network:
        stage = Stage(network, *kinds)
        try:
            yield stage
        finally:
            print(stage.high.log.read_text(), "\n--- low\n", stage.low.log.read_text())
            stage.close()


def settle(stage: Stage, high: Sequence[str], low: Sequence[str]) -> None:
    """Both read their configuration again, the lower one first, and go on for some adverts."""
    for daemon, text in (
        (stage.low, hmac_text("two", 100, *low)),
        (stage.high, hmac_text("one", 150, *high)),
    ):
        daemon.configure(text)
        if isinstance(daemon, Kad):
            assert daemon.kadctl("reload").returncode == 0
        else:
            done = daemon.count("Reload complete")
            daemon.reload()
            daemon.wait_for("Reload complete", times=done + 1)


def test_from_nothing_to_enforced_and_another_key(signed: Stage) -> None:
    """keepalived's own way to it: no step loses an advert, and at its end unsigned ones count for nothing."""
    high, low = signed.high, signed.low
    high.configure(hmac_text("one", 150))
    low.configure(hmac_text("two", 100))
    one, both = f"key 1 {TEXT_KEY}", f"key 2 {HEX_KEY}"
    steps: list[tuple[list[str], list[str]]] = [
        ([one, "active_key 1", "mode receive-only"],) * 2,
        ([one, "active_key 1", "mode permissive"],) * 2,
        ([one, "active_key 1"],) * 2,
        ([one, both, "active_key 1"],) * 2,
        ([one, both, "active_key 2"], [one, both, "active_key 1"]),
        ([both, "active_key 2"],) * 2,
    ]
    names = list(SIGNED)
    with Capture(signed.nodes["two"], "eth0") as wire:
        high.start()
        poll(entered(high, "MASTER", names), "mastery", seconds=10)
        low.start()
        poll(entered(low, "BACKUP", names), "the other", seconds=5)
        for step in steps:
            settle(signed, *step)
            seen = len(wire.adverts(vrid=11))
            poll(lambda seen=seen: len(wire.adverts(vrid=11)) > seen + 1, "two more adverts", seconds=5)
        assert not any(low.count(f"({name}) Entering MASTER") for name in names), "a step lost adverts"
        last = {advert.vrid: advert.payload for advert in wire.adverts(source=SOURCES["one"][0])}
        assert sorted(last) == [11, 12]
        assert all(payload[-28:-24] == b"\x01\x02\0\0" for payload in last.values())
        if isinstance(low, Kad):
            repeated(signed, wire, low)
        for kad in (high, low):
            if isinstance(kad, Kad):
                killed = kad.vrrp_pid()
                os.kill(killed, signal.SIGKILL)
                kad.new_vrrp_pid(killed)
        seen = len(wire.adverts(vrid=11))
        poll(lambda: len(wire.adverts(vrid=11)) > seen + 3, "adverts after it", seconds=8)
        assert not any(low.count(f"({name}) Entering MASTER") for name in names)
        # What the stranger sent again is the same frame, identification and all.
        frames = list({frame.data: frame for frame in reversed(wire.drain())}.values())[::-1]
    for vrid in (11, 12):
        sent = sequences(frames, SOURCES["one"][0], vrid, 112)
        assert len(sent) > 5 and grow(sent)
    strangers(signed, [both, "active_key 2"])


def repeated(stage: Stage, wire: Capture, low: Kad) -> None:
    """Somebody sends again what the master sent: it is counted, and nothing else."""
    frames = [frame.data for frame in wire.drain() if not frame.outgoing and frame.data[14 + 9] == 112]
    with stage.client.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender:
        sender.bind(("eth0", 0))
        for frame in frames[-6:]:
            sender.send(frame)
    poll(lambda: counters(low, "v2")["auth_ext_replay"], "the count of a repeated advert")
    assert counters(low, "v2")["auth_ext_invalid_hmac"] == 0


def strangers(stage: Stage, settings: list[str]) -> None:
    """With another key nobody is understood: each is alone, and says why."""
    kad = stage.low if isinstance(stage.low, Kad) else stage.high
    other = [settings[0].replace("00", "ff", 1), settings[1]]
    settle(stage, *((settings, other) if kad is stage.low else (other, settings)))
    poll(entered(stage.low, "MASTER", list(SIGNED)), "a second master", seconds=10)
    for name in SIGNED:
        poll(lambda name=name: counters(kad, name)["auth_ext_invalid_hmac"], "a forged advert, counted")


WINDOWS = {
    "old": (["time_window 1"], "auth_ext_stale"),
    "young": (["time_window 300"], ""),
    "counted": (["anti_replay monotonic"], ""),
}
"""Settings, and what an advert of some seconds ago counts as; "": it is believed."""


@pytest.mark.parametrize("case", WINDOWS)
def test_how_old_an_advert_may_be(case: str) -> None:
    """One that nobody has heard yet is sent again, after its sender is gone; then once more."""
    needs_namespaces()
    settings, counted = WINDOWS[case]
    words = [f"key 1 {TEXT_KEY}", "active_key 1", *settings]
    with Network("window") as network:
        stage = Stage(network, Kad, Kad)
        try:
            stage.high.configure(hmac_text("one", 150, *words))
            stage.low.configure(hmac_text("two", 100, *words))
            with Capture(stage.client, "eth0") as wire:
                stage.high.start()
                first = poll(lambda: wire.adverts(vrid=11), "a signed advert", seconds=10)[0]
            stage.high.kill_all()
            frame = next(each.data for each in wire.frames if each.time_us == first.time_us)
            poll(lambda: time.time() > first.time_us / 1e6 + 2, "a while to pass")
            stage.low.start()
            poll(entered(stage.low, "BACKUP", ["v2"]), "somebody who listens", seconds=10)
            sent_again(stage, frame)
            poll(lambda: counters(stage.low, "v2")[counted or "advert_rcvd"], "its count")
            sent_again(stage, frame)
            poll(
                lambda: counters(stage.low, "v2")[counted or "auth_ext_replay"] > bool(counted),
                "a repetition",
            )
            assert counters(stage.low, "v2")["advert_rcvd"] == (not counted)
        finally:
            print(stage.low.log.read_text())
            stage.close()


def sent_again(stage: Stage, frame: bytes) -> None:
    with stage.client.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        sender.send(frame)
