"""What the routers of a simulated network are configured to do: drawn once for all machines of a world."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from kad.config.model.routing import Route, Rule
from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import (
    AuthHmac,
    AuthType,
    GarpSettings,
    HmacKey,
    SyncGroup,
    TrackedItem,
    Tracking,
    UnicastPeer,
    VirtualAddress,
    VrrpInstance,
    WantedState,
)
from tests.support.vrrp_host import NOTIFY

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

SECOND = 1_000_000
MOST = 5
VALUE = "/run/value"
COMMAND = ScriptCommand(argv=("/etc/check",), executable="/etc/check")


class Router(Struct, frozen=True):
    """One virtual router, as all its machines have it; priorities by machine."""

    name: str
    interface: str
    interval_us: int
    priorities: tuple[int, ...]
    nopreempt: bool
    preempt_delay_us: int
    down_timer_adverts: int


class Plan(Struct, frozen=True):
    """See the module."""

    count: int
    """Machines."""
    unit_us: int
    """Most durations of this world are some of these."""
    routers: tuple[Router, ...]
    rise: int
    fall: int
    has_owner: bool
    version_2: bool
    delays_links: bool
    reverse: bool
    authenticated: bool
    """AH where version 2 is, auth_hmac on one of version 3."""

    @classmethod
    def drawn(cls, random: Random, count: int) -> Plan:
        count = count or random.choice((2, 3, 3, 4, MOST))
        unit_us = random.choice((100_000, 200_000, 500_000, SECOND, SECOND))
        # The two of the sync group have to agree.
        group_priorities = _priorities(random, count)
        group_preempts = _preemption(random, unit_us)
        routers = []
        for name, interface in (
            ("PLAIN", "eth0"),
            ("GROUP1", "eth0"),
            ("GROUP2", "eth1"),
            ("UNICAST", "eth0"),
            ("IPV6", "eth1"),
            ("SIXTH", "eth1"),
        ):
            grouped = name.startswith("GROUP")
            nopreempt, delay_us = group_preempts if grouped else _preemption(random, unit_us)
            routers.append(
                Router(
                    name=name,
                    interface=interface,
                    interval_us=unit_us * random.choice((1, 1, 2)),
                    priorities=group_priorities if grouped else _priorities(random, count),
                    nopreempt=nopreempt,
                    preempt_delay_us=delay_us,
                    down_timer_adverts=random.choice((3, 3, 3, 3, 2, 4)),
                )
            )
        return cls(
            count=count,
            unit_us=unit_us,
            routers=tuple(routers),
            rise=random.randint(1, 3),
            fall=random.randint(1, 3),
            has_owner=random.random() < 0.4,
            version_2=unit_us == SECOND and random.random() < 0.7,
            delays_links=random.random() < 0.3,
            reverse=random.random() < 0.3,
            authenticated=random.random() < 0.3,
        )

    @property
    def longest_interval_us(self) -> int:
        """A reload may double the one of the plan."""
        return min(2 * max(router.interval_us for router in self.routers), 2 * SECOND)

    @property
    def master_down_us(self) -> int:
        """No router of this world waits longer for a master."""
        return 5 * self.longest_interval_us

    @property
    def settle_us(self) -> int:
        """After what has gone wrong is mended, everything has found its place again in this time."""
        scripts_us = 2 * self.unit_us * (self.rise + self.fall + 2)
        delays_us = max(router.preempt_delay_us for router in self.routers)
        return scripts_us + delays_us + 4 * self.unit_us + 3 * self.master_down_us + 2 * SECOND

    def equip(self, machine: Machine) -> None:
        """What beside the instances belongs to a machine's configuration."""
        interval_us = 2 * self.unit_us
        machine.sync_groups = machine.previous_sync_groups = (self.group,)
        machine.scripts = tuple(
            TrackScript(name=name, command=COMMAND, interval_us=interval_us, rise=self.rise, fall=self.fall)
            for name in ("probe", "gate")
        )
        machine.files = (TrackFile(name="value", path=VALUE),)
        machine.processes = (
            TrackProcess(name="worker", process="worker", terminate_delay_us=self.unit_us // 2),
        )
        machine.counts = {"worker": 1}

    @property
    def group(self) -> SyncGroup:
        return SyncGroup(
            name="G",
            members=("GROUP1", "GROUP2"),
            tracking=Tracking(
                scripts=(TrackedItem("gate", 0),),
                files=(TrackedItem("value", 1, reverse=self.reverse),),
            ),
            notify=NOTIFY,
        )


def _priorities(random: Random, count: int) -> tuple[int, ...]:
    """Mostly all different; now and then two are equal."""
    drawn = random.sample(range(40, 230, 10), count)
    if random.random() < 0.25:
        drawn[0] = drawn[-1]
    return tuple(drawn)


def _preemption(random: Random, unit_us: int) -> tuple[bool, int]:
    match random.randrange(5):
        case 0:
            return True, 0
        case 1:
            return False, 8 * unit_us
    return False, 0


def configurations(plan: Plan, number: int) -> tuple[VrrpInstance, ...]:
    """Every instance of the machine of this number, counted from 1."""
    return tuple(_instance(plan, index, number) for index in range(len(plan.routers)))


def _instance(plan: Plan, index: int, number: int) -> VrrpInstance:
    router = plan.routers[index]
    vrid = index + 1
    segment = router.interface[3:]
    base = VrrpInstance(
        name=router.name,
        virtual_router_id=vrid,
        interface=router.interface,
        version=3,
        priority=router.priorities[number - 1],
        advert_int_us=router.interval_us,
        virtual_addresses=(
            VirtualAddress(f"10.0.{segment}.{100 + vrid}", 24),
            VirtualAddress(f"10.0.{segment}.{200 + vrid}", 32),
        ),
        nopreempt=router.nopreempt,
        preempt_delay_us=router.preempt_delay_us,
        down_timer_adverts=router.down_timer_adverts,
        garp=GarpSettings(
            master_delay_us=3 * router.interval_us,
            master_repeat=2,
            lower_prio_delay_us=2 * router.interval_us,
            lower_prio_repeat=1,
        ),
        notify=NOTIFY,
        notify_priority_changes=True,
        sync_group="G" if router.name.startswith("GROUP") else "",
    )
    return _PARTICULARS[router.name](plan, base, number)


def _plain(plan: Plan, base: VrrpInstance, number: int) -> VrrpInstance:
    """A second interface with an address, and a script that weighs."""
    return replace(
        base,
        excluded_addresses=(VirtualAddress("10.0.2.101", 24, interface="eth2"),),
        tracking=Tracking(scripts=(TrackedItem("probe", -60),)),
        interface_down_delay_us=plan.unit_us if plan.delays_links else 0,
        interface_up_delay_us=plan.unit_us * 2 if plan.delays_links else 0,
    )


def _grouped(plan: Plan, base: VrrpInstance, number: int) -> VrrpInstance:
    return base


def _unicast(plan: Plan, base: VrrpInstance, number: int) -> VrrpInstance:
    """Peers, a process that weighs, a route and a rule, and announcements that are paced."""
    segment = base.interface[3:]
    others = [each for each in range(1, plan.count + 1) if each != number]
    return replace(
        base,
        unicast=True,
        source_address=f"10.0.{segment}.{number}",
        unicast_peers=tuple(UnicastPeer(f"10.0.{segment}.{each}") for each in others),
        multicast_group="",
        virtual_routes=(Route(4, "192.168.4.0", 24, gateway="10.0.0.254", interface="eth0"),),
        virtual_rules=(Rule(4, 1004, table=1004),),
        auth_hmac=AuthHmac(keys=(HmacKey(1, b"secret"),), active_key=1) if plan.authenticated else None,
        tracking=Tracking(processes=(TrackedItem("worker", 70),)),
        garp=replace(base.garp, interval_us=1_000, master_refresh_us=20 * base.advert_int_us),
    )


def _ipv6(plan: Plan, base: VrrpInstance, number: int) -> VrrpInstance:
    """A BFD session that weighs, and an interface without which it cannot be."""
    return replace(
        base,
        family=6,
        multicast_group="ff02::12",
        virtual_addresses=(VirtualAddress("fe80::5:100", 64), VirtualAddress("2001:db8::5:100", 64)),
        tracking=Tracking(bfds=(TrackedItem("peer", -50),), interfaces=(TrackedItem("eth2", 0),)),
    )


def _sixth(plan: Plan, base: VrrpInstance, number: int) -> VrrpInstance:
    """Version 2 in some worlds, with an address owner in some."""
    if plan.version_2:
        base = replace(base, version=2, advert_int_us=SECOND)
        if plan.authenticated:
            base = replace(base, auth_type=AuthType.AH, auth_pass=b"secret")
    if plan.has_owner and number == 1:
        base = replace(base, priority=255, wanted_state=WantedState.MASTER, nopreempt=False)
    return replace(base, tracking=Tracking(interfaces=(TrackedItem("eth2", 20),)))


_PARTICULARS = {
    "PLAIN": _plain,
    "GROUP1": _grouped,
    "GROUP2": _grouped,
    "UNICAST": _unicast,
    "IPV6": _ipv6,
    "SIXTH": _sixth,
}


# Other configurations to reload ----------------------------------------------------------------------------


def harmless(random: Random, configs: tuple[VrrpInstance, ...]) -> tuple[VrrpInstance, ...]:
    """One change after which routers still understand each other, and the judge them."""
    index = random.randrange(len(configs))
    config = configs[index]
    match random.randrange(5):
        case 0 if not config.sync_group and not config.is_owner:
            config = replace(config, priority=random.randrange(30, 250))
        case 1:
            config = with_other_addresses(random, config)
        case 2 if not config.sync_group and not config.is_owner:
            config = replace(config, nopreempt=not config.nopreempt, preempt_delay_us=0)
        case 3:
            config = replace(config, garp=replace(config.garp, master_repeat=3))
        case _ if config.version == 3:
            interval_us = config.advert_int_us * 2
            config = replace(config, advert_int_us=min(interval_us, 2 * SECOND))
    return (*configs[:index], config, *configs[index + 1 :])


def with_other_addresses(random: Random, config: VrrpInstance) -> VrrpInstance:
    """One address more, or one less."""
    addresses = config.virtual_addresses
    if len(addresses) > 1 and random.random() < 0.5:
        return replace(config, virtual_addresses=addresses[:-1])
    if config.family == 6:
        fresh = VirtualAddress(f"2001:db8::5:{random.randrange(500, 900)}", 64)
    else:
        fresh = VirtualAddress(f"10.9.{config.virtual_router_id}.{random.randrange(1, 250)}", 32)
    return replace(config, virtual_addresses=(*addresses, fresh))


def harmful(random: Random, configs: tuple[VrrpInstance, ...]) -> tuple[VrrpInstance, ...]:
    """One change that sets a router apart from the others of its name."""
    index = random.randrange(len(configs))
    config = configs[index]
    match random.randrange(6):
        case 0:
            return configs[:index] + configs[index + 1 :]
        case 1 if not config.sync_group:
            config = replace(config, name=f"{config.name}-RENAMED")
        case 2 if not config.unicast and config.family == 4:
            config = replace(config, multicast_group="224.0.0.99")
        case 3 if config.version == 3:
            config = replace(config, version=2 if config.advert_int_us % SECOND == 0 else 3, priority=77)
        case 4:
            config = replace(config, tracking=Tracking(), dont_track_primary=True)
        case _:
            vrid = config.virtual_router_id + 100
            name = config.name if random.random() < 0.7 else f"{config.name}-{vrid}"
            config = replace(config, virtual_router_id=vrid, name=name)
    return (*configs[:index], config, *configs[index + 1 :])
