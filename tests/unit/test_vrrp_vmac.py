"""Instances on an interface of their own: what they wait for, where adverts and announcements go."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kad.config.model.vrrp import GarpGroup, GarpSettings, VirtualAddress, VirtualLink, Vmac, VrrpInstance
from kad.config.virtual_links import place
from kad_vrrp.core.actions import Action, Announce, OpenTransport
from kad_vrrp.core.engine import Engine, EngineSettings
from kad_vrrp.core.events import (
    ConfigurationChanged,
    Event,
    LinkChanged,
    LinkRemoved,
    PlanDone,
    TimeReached,
    TransportOpened,
)

MAC4, MAC6 = "00:00:5e:00:01:33", "00:00:5e:00:02:33"
ETH0 = LinkChanged("eth0", 2, True, bytes(5) + b"\x01", 1500, True, True, ("10.0.0.1", "fe80::1"))
ETH1 = LinkChanged("eth1", 3, True, bytes(5) + b"\x02", 1500, True, True, ("10.1.0.1",))


def vmac(name: str = "vrrp.51", mac: str = MAC4, index: int = 9, *addresses: str) -> LinkChanged:
    return LinkChanged(name, index, True, bytes.fromhex(mac.replace(":", "")), 1500, True, True, addresses)


def instance(*addresses: VirtualAddress, **fields: object) -> VrrpInstance:
    settings: dict[str, object] = {"interface": "eth0", "version": 3, "vmac": Vmac()}
    return VrrpInstance(
        "A",
        51,
        virtual_addresses=addresses or (VirtualAddress("10.0.0.9", 24),),
        **(settings | fields),  # type: ignore[arg-type]
    )


class Machine:
    """An engine whose actions all succeed."""

    def __init__(self, config: VrrpInstance, *links: LinkChanged, groups: tuple[GarpGroup, ...] = ()) -> None:
        self.now_us = 1_000_000
        self.engine = Engine(EngineSettings(), {})
        self.done: list[Action] = []
        placement = place([config])
        self.links: tuple[VirtualLink, ...] = placement.links
        for link in links:
            self.tell(link)
        self.tell(
            ConfigurationChanged(1, placement.instances, garp_groups=groups, virtual_links=placement.links)
        )

    def tell(self, event: Event) -> None:
        waiting: list[Event] = [event]
        while waiting:
            for action in self.engine.handle(waiting.pop(0), self.now_us):
                self.done.append(action)
                if isinstance(action, OpenTransport):
                    waiting.append(TransportOpened(action.number))
                if type(action).__name__ == "ChangeAddresses":
                    waiting.append(PlanDone(action.instance, action.serial))  # type: ignore[union-attr]

    def wait(self, seconds: float) -> None:
        limit_us = self.now_us + int(seconds * 1e6)
        while (next_us := self.engine.deadline_us) is not None and next_us <= limit_us:
            self.now_us = max(next_us, self.now_us)
            self.tell(TimeReached())
        self.now_us = limit_us

    @property
    def state(self) -> tuple[str, str]:
        report = self.engine.report().instances[0]
        return report.state, report.fault

    def announced(self) -> dict[str, set[bytes]]:
        """Interface -> the MACs announcements claim there."""
        found: dict[str, set[bytes]] = {}
        for action in self.done:
            if isinstance(action, Announce):
                for interface, frame in action.frames:
                    found.setdefault(interface, set()).add(frame[6:12])
        return found


def test_it_waits_for_its_interface() -> None:
    machine = Machine(instance(), ETH0)
    assert machine.state == ("FAULT", "interface vrrp.51 does not exist")
    machine.tell(vmac())
    assert machine.state[0] == "BACKUP"
    machine.wait(5)
    assert machine.state[0] == "MASTER"
    assert machine.announced() == {"vrrp.51": {bytes.fromhex("00005e000133")}}
    opened = [action.transport for action in machine.done if isinstance(action, OpenTransport)]
    assert [transport.interface for transport in opened] == ["vrrp.51"]
    machine.tell(LinkRemoved("vrrp.51"))
    assert machine.state == ("FAULT", "interface vrrp.51 does not exist")


def test_it_is_down_when_either_is() -> None:
    for name, down in (("eth0", replace(ETH0, up=False)), ("vrrp.51", replace(vmac(), up=False))):
        machine = Machine(instance(), ETH0, vmac())
        assert machine.state[0] == "BACKUP"
        machine.tell(down)
        assert machine.state == ("FAULT", f"interface {name} is down")


def test_a_vmac_that_is_not_followed_may_be_down() -> None:
    machine = Machine(instance(dont_track_primary=True), ETH0, vmac())
    machine.tell(replace(vmac(), up=False))
    assert machine.state[0] == "BACKUP"


def test_ipv6_adverts_need_their_source_on_the_vmac() -> None:
    six = instance(VirtualAddress("fe80::99", 128), family=6, multicast_group="ff02::12")
    machine = Machine(six, ETH0, vmac("vrrp.51", MAC6))
    assert machine.state == ("FAULT", "no source address")
    machine.tell(vmac("vrrp.51", MAC6, 9, "fe80::1"))
    assert machine.state[0] == "BACKUP"
    configured = replace(six, source_address="fe80::5")
    machine = Machine(configured, ETH0, vmac("vrrp.51", MAC6, 9, "fe80::1"))
    assert machine.state == ("FAULT", "source address fe80::5 is not on vrrp.51")


def test_adverts_from_the_base_use_its_sockets_and_source() -> None:
    machine = Machine(instance(vmac=Vmac(xmit_base=True)), ETH0, vmac())
    machine.wait(5)
    opened = [action.transport for action in machine.done if isinstance(action, OpenTransport)]
    assert [transport.interface for transport in opened] == ["eth0"]
    assert set(machine.announced()) == {"vrrp.51"}


def times_announced(machine: Machine, interface: str, seconds: float) -> list[int]:
    """Milliseconds from becoming MASTER to each announcement there."""
    begun_us, found = 0, list[int]()
    limit_us = machine.now_us + int(seconds * 1e6)
    while (machine.engine.deadline_us or limit_us) < limit_us:
        seen = len(machine.done)
        machine.wait((machine.engine.deadline_us - machine.now_us) / 1e6)
        for action in machine.done[seen:]:
            if isinstance(action, Announce):
                begun_us = begun_us or machine.now_us
                found += [
                    (machine.now_us - begun_us) // 1000 for name, _ in action.frames if name == interface
                ]
    return found


def test_bridges_hear_once_more_where_a_vmac_is() -> None:
    # A former master may have answered the first requests, from the same MAC.
    addresses = VirtualAddress("10.0.0.9", 24), VirtualAddress("10.0.0.10", 24)
    garp = GarpSettings(master_repeat=1, master_delay_us=0)
    for mode in (Vmac(), Vmac(xmit_base=True)):
        machine = Machine(instance(*addresses, vmac=mode, garp=garp), ETH0, vmac())
        assert times_announced(machine, "vrrp.51", 10) == [0, 0, 100]
    without = Machine(instance(*addresses, vmac=None, garp=garp), ETH0)
    assert times_announced(without, "eth0", 10) == [0, 0]
    six = VirtualAddress("fe80::99", 128), VirtualAddress("2001:db8::1", 64)
    fields: dict[str, Any] = {"family": 6, "multicast_group": "ff02::12", "garp": garp}
    unasked = Machine(instance(*six, **fields), ETH0, vmac("vrrp.51", MAC6, 9, "fe80::1"))
    assert times_announced(unasked, "vrrp.51", 10) == [0, 0], "IPv6 has no requests that are answered"


def test_what_cannot_run_says_why() -> None:
    machine = Machine(instance(fault="an IPv4 ipvlan needs an address"), ETH0, vmac())
    assert machine.state == ("FAULT", "an IPv4 ipvlan needs an address")


def test_other_vmacs_are_announced_again_and_other_interfaces_only_if_asked() -> None:
    garp = GarpSettings(extra_if_us=10_000_000, master_delay_us=0)
    addresses = (
        VirtualAddress("10.0.0.9", 24),
        VirtualAddress("10.1.0.9", 24, interface="eth1", use_vmac=True),
        VirtualAddress("10.1.0.10", 24, interface="eth1"),
    )
    links = (ETH0, ETH1, vmac(), vmac("vrrp1.51", MAC4, 10))
    for everywhere, expected in ((False, {"vrrp1.51"}), (True, {"vrrp1.51", "eth1"})):
        machine = Machine(instance(*addresses, garp=replace(garp, extra_if_all=everywhere)), *links)
        machine.wait(5)
        assert set(machine.announced()) == {"vrrp.51", "vrrp1.51", "eth1"}
        machine.done.clear()
        machine.wait(10)
        assert set(machine.announced()) == expected


def test_a_vmac_is_paced_as_its_base() -> None:
    group = GarpGroup(("eth0",), garp_interval_us=500_000)
    machine = Machine(instance(garp=GarpSettings(master_delay_us=0)), ETH0, vmac(), groups=(group,))
    machine.wait(3.7)
    assert machine.state[0] == "MASTER"
    machine.done.clear()
    machine.wait(1.0)
    assert len([action for action in machine.done if isinstance(action, Announce)]) == 2
