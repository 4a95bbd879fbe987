"""What is seen of one router from outside, held against the RFC and what kad promises at every moment.

It asks the engine nothing but which state it is in; what it expects it works out by itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from kad.addresses import INET, packed
from kad.config.model.vrrp import AuthType, VrrpInstance
from kad.ipc.reports import InstanceReport
from kad_vrrp.core.actions import (
    AddressEntry,
    Announce,
    ChangeAddresses,
    Notify,
    PriorityChanged,
    SendAdvert,
    State,
    StateChanged,
)
from kad_vrrp.core.events import AdvertReceived
from kad_vrrp.core.record import OwedNotice
from kad_vrrp.core.sync_group import GroupRecord

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

SECOND = 1_000_000
OWNER = 255
ROUNDING_US = 1_000
STORM = 14
"""So many adverts to one destination within an interval are a storm: the regular one, four that others
provoke, and a few changes of state and configuration."""


BY_ITSELF = ("stopping", "script ", "file ", "process ", "BFD ")
"""Reasons to leave that have nothing to do with sockets and interfaces."""


class Violation(AssertionError):
    """What must not be, was."""


def skew_us(config: VrrpInstance, priority: int, interval_us: int) -> int:
    """RFC 9568 §6.1; version 2: RFC 3768 §6.1."""
    return (256 - priority) * (SECOND if config.version == 2 else interval_us) // 256


def master_down_us(config: VrrpInstance, priority: int, interval_us: int) -> int:
    return config.down_timer_adverts * interval_us + skew_us(config, priority, interval_us)


def early_us(interval_us: int) -> int:
    """How much before its time an advert may leave when its sender is awake anyway."""
    return min(10_000, interval_us // 64)


@dataclass(slots=True)
class Heard:
    """One advertisement, as far as it matters here."""

    vrid: int
    priority: int
    version: int
    interval_us: int
    source: str


def read(data: bytes, source: str, family: int) -> Heard:
    at = 20 if family == INET else 0
    version = data[at] >> 4
    if version == 2:
        interval_us = data[at + 5] * SECOND
    else:
        interval_us = (int.from_bytes(data[at + 4 : at + 6], "big") & 0xFFF) * 10_000
    return Heard(data[at + 1], data[at + 2], version, interval_us, source)


@dataclass(slots=True)
class Account:
    """What is known of one instance. Times are the world's; None: unknown, nothing can be demanded."""

    since_us: int | None = None
    priority: int = 0
    accepted_us: int | None = None
    """When it last heard a master it has to accept."""
    accepted_interval_us: int = 0
    leaving_us: int | None = None
    """When a master said priority 0 after that."""
    anyone_us: int | None = None
    """When it last heard any master."""
    anyone_interval_us: int = 0
    lower_us: int | None = None
    """Since when it has heard nothing but masters it may push aside."""
    knows_lower: bool = False
    last_sent_us: int = 0
    sent: dict[str, deque[int]] = field(default_factory=dict)
    added_us: dict[bytes, int] = field(default_factory=dict)
    announced_us: dict[bytes, int] = field(default_factory=dict)
    started: int = 0
    """The highest notification started in this life."""


class Witness:
    """See the module."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.accounts: dict[str, Account] = {}
        self.debts: dict[tuple[str, int], str] = {}
        """(name, serial) -> state of notifications that scripts are still to be run for."""
        self.paid: set[tuple[int, str]] = set()
        self.by_router: dict[tuple[int, int], VrrpInstance] = {}
        self.by_name: dict[str, VrrpInstance] = {}
        self.farewells: set[str] = set()
        """Instances that have left MASTER, and have not said so."""
        self.has_news = True
        """Some state, or the configuration, is another than when groups were last looked at."""
        self.united: set[str] = set()
        """Groups whose members have all been in one state since the configuration was taken in."""
        self.hold_until_us = 0
        """Before it, no lower master is to be pushed aside (after repeated crashes)."""
        self.deaf_until_us = 0
        """End of the start-up delay: what is heard before does not count."""
        self.notified_state: dict[str, str] = {}
        self.knows_priorities = False
        """Not while a configuration is being taken in."""

    @property
    def now_us(self) -> int:
        return self.machine.world.now_us

    def fail(self, text: str) -> None:
        raise Violation(f"{self.machine.label}: {text}")

    def account(self, name: str) -> Account:
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = Account()
        return found

    # Lives ---------------------------------------------------------------------------------------------

    def reborn(self) -> None:
        """A new process: what the former one had learnt is not known here."""
        for account in self.accounts.values():
            account.accepted_us = account.leaving_us = account.anyone_us = None
            account.knows_lower = False
            account.started = 0
            account.sent.clear()
        self.debts = {key: state for key, state in self.debts.items() if (key[1], state) not in self.paid}
        # Numbers are only above those that are still owed.
        self.paid.clear()
        self.knows_priorities = False
        self._index()

    def found(self, report: InstanceReport) -> None:
        """After the start of a process."""
        self.account(report.name).priority = report.effective_priority
        self.knows_priorities = True

    def forget(self) -> None:
        """The machine lost its power, or the daemon was stopped: nothing is remembered."""
        self.debts.clear()
        self.paid.clear()
        self.notified_state.clear()
        self.accounts.clear()

    def forgive(self) -> None:
        """The engine gave up notifications, and said so."""
        self.debts.clear()

    def interrupted(self) -> None:
        for account in self.accounts.values():
            account.sent.clear()

    def reconfigured(self) -> None:
        former = self.by_name
        self._index()
        self.knows_priorities = True
        for report in self.machine.engine.report().instances:
            account = self.account(report.name)
            account.priority = report.effective_priority
            if former.get(report.name) != self.by_name.get(report.name):
                account.accepted_us = account.leaving_us = account.anyone_us = None
                account.knows_lower = False
                account.sent.clear()

    def _index(self) -> None:
        self.has_news = True
        self.united.clear()
        configs = self.machine.configs
        self.by_name = {config.name: config for config in configs}
        self.by_router = {(config.family, config.virtual_router_id): config for config in configs}
        # Nobody is told of a new name.
        self.notified_state = {
            name: state for name, state in self.notified_state.items() if name in self.by_name
        }
        self.accounts = {name: each for name, each in self.accounts.items() if name in self.by_name}

    # Elections -----------------------------------------------------------------------------------------

    def hear(self, event: AdvertReceived, family: int, destination: str) -> str:
        """A packet that is about to be told. Returns the instance that must not be MASTER afterwards."""
        heard = read(event.data, event.source, family)
        config = self.by_router.get((family, heard.vrid))
        if config is None or destination != (config.source_address or config.multicast_group):
            return ""
        state = self.machine.states.get(config.name)
        if state is None:
            return ""
        self.machine.seen.add((state, AdvertReceived))
        if self.now_us < self.deaf_until_us:
            return ""
        if heard.version != config.version or config.is_owner or is_authenticated(config):
            return ""
        if heard.version == 2 and heard.interval_us != config.advert_int_us:
            return ""
        if state == "BACKUP":
            self._hear_as_backup(config, heard)
        elif state == "MASTER" and self._takes_precedence(config, heard):
            account = self.account(config.name)
            account.accepted_us, account.accepted_interval_us = self.now_us, heard.interval_us
            account.leaving_us = None
            return config.name
        return ""

    def hear_late(self, event: AdvertReceived, family: int) -> None:
        """What it makes of it depends on what it would have done meanwhile: nothing is demanded."""
        config = self.by_router.get((family, read(event.data, event.source, family).vrid))
        if config is not None:
            account = self.account(config.name)
            account.accepted_us = account.leaving_us = account.anyone_us = None
            account.knows_lower = False

    def _hear_as_backup(self, config: VrrpInstance, heard: Heard) -> None:
        account = self.account(config.name)
        if heard.priority == 0:
            # Only the first one counts, unlike keepalived: a later one does not begin the skew time anew.
            if account.leaving_us is None:
                account.leaving_us = self.now_us
            return
        account.anyone_us, account.anyone_interval_us = self.now_us, heard.interval_us
        if heard.priority >= account.priority:
            account.lower_us = None
        elif account.lower_us is None:
            account.lower_us = self.now_us
        if heard.priority >= account.priority or config.nopreempt:
            account.accepted_us, account.accepted_interval_us = self.now_us, heard.interval_us
            account.leaving_us = None
        elif config.preempt_delay_us or self.now_us < self.hold_until_us:
            # It may have been accepted for a while, with its interval: nothing can be demanded.
            account.accepted_us = account.leaving_us = None

    def _takes_precedence(self, config: VrrpInstance, heard: Heard) -> bool:
        """RFC 9568 §6.4.3 (705)-(720)."""
        own = self.account(config.name).priority
        if heard.priority != own:
            return heard.priority > own
        source = next((each.source_address for each in self._reports() if each.name == config.name), "")
        return bool(source) and packed(heard.source) > packed(source)

    def _reports(self) -> tuple[InstanceReport, ...]:
        return self.machine.engine.report().instances

    def has_yielded(self, name: str) -> None:
        if self.machine.states.get(name) == "MASTER":
            self.fail(f"{name} heard a master that takes precedence, and is still MASTER")

    def moved(self, action: StateChanged) -> None:
        self.has_news = True
        config = self.by_name.get(action.instance)
        account = self.account(action.instance)
        account.priority = action.priority
        if config is None:
            return
        if action.new is State.MASTER:
            if not config.is_owner and not is_authenticated(config):
                self._was_patient(config, account)
            account.announced_us.clear()
        elif action.new is State.BACKUP:
            self._begin_to_wait(config, account, action.old)
        account.since_us = self.now_us
        lately = self.now_us - account.last_sent_us < 2 * config.advert_int_us
        if action.old is State.MASTER and lately and action.reason.startswith(BY_ITSELF):
            self.farewells.add(action.instance)

    def look_at_farewells(self) -> None:
        """A master that leaves while its sockets work says so, before anything else happens to it."""
        for name in sorted(self.farewells):
            config = self.by_name.get(name)
            if config is not None and self.machine.can_send(config):
                self.fail(f"{name} left without a farewell")
        self.farewells.clear()

    def _begin_to_wait(self, config: VrrpInstance, account: Account, old: State) -> None:
        account.lower_us = account.anyone_us = None
        account.knows_lower = True
        if old is not State.MASTER and not config.is_owner:
            account.accepted_us = max(self.now_us, self.deaf_until_us)
            account.accepted_interval_us = config.advert_int_us
            account.leaving_us = None
        elif account.accepted_us != self.now_us:
            account.accepted_us = None

    def _was_patient(self, config: VrrpInstance, account: Account) -> None:
        """It takes over: not before the master was silent for long enough, or one may be pushed aside."""
        now_us = self.now_us + ROUNDING_US
        name, priority = config.name, account.priority
        if account.accepted_us is not None:
            interval_us = account.accepted_interval_us
            waits_us = master_down_us(config, priority, interval_us)
            left = account.leaving_us
            said_so = left is not None and now_us - left >= skew_us(config, priority, interval_us)
            if now_us - account.accepted_us < waits_us and not said_so:
                waited_us = self.now_us - account.accepted_us
                self.fail(f"{name} took over after {waited_us} us of silence, {waits_us} are due")
        if account.anyone_us is None or account.leaving_us is not None:
            return
        silent_us = now_us - account.anyone_us
        if silent_us >= master_down_us(config, priority, account.anyone_interval_us):
            return
        self._may_preempt(config, account)

    def _may_preempt(self, config: VrrpInstance, account: Account) -> None:
        now_us = self.now_us + ROUNDING_US
        if config.nopreempt:
            self.fail(f"{config.name} pushed a living master aside in spite of nopreempt")
        if now_us < self.hold_until_us:
            self.fail(f"{config.name} pushed a living master aside just after it crashed repeatedly")
        if config.preempt_delay_us and account.knows_lower:
            since_us = account.lower_us
            if since_us is None or now_us - since_us < config.preempt_delay_us:
                self.fail(f"{config.name} pushed a living master aside before its preempt_delay")

    def look_at_groups(self) -> None:
        """Members move together, within one event."""
        if not self.knows_priorities or self.machine.leaving:
            return
        self.has_news = False
        for group in self.machine.sync_groups:
            states = {self.machine.states.get(name) for name in group.members}
            if len(states) == 1:
                self.united.add(group.name)
            elif group.name in self.united:
                self.fail(f"the members of {group.name} are divided: {states}")

    def reweighed(self, action: PriorityChanged) -> None:
        self.account(action.instance).priority = action.priority

    # What it sends -------------------------------------------------------------------------------------

    def sent(self, action: SendAdvert) -> None:
        config = self.by_name.get(action.instance)
        if config is None:
            return
        account = self.account(action.instance)
        priority = action.data[priority_at(config)]
        state = self.machine.states.get(action.instance)
        if priority and state not in (None, "MASTER"):
            self.fail(f"{action.instance} advertises as {state}")
        if priority and self.knows_priorities and priority != account.priority:
            self.fail(f"{action.instance} advertises {priority}, its priority is {account.priority}")
        if not priority:
            self.farewells.discard(action.instance)
        times = account.sent.setdefault(action.destination, deque(maxlen=STORM))
        times.append(self.now_us)
        if len(times) == STORM and self.now_us - times[0] < config.advert_int_us:
            self.fail(f"{action.instance} storms: {STORM} adverts within {self.now_us - times[0]} us")
        if action.destination == times_key(config):
            self._keeps_time(config, account)
            account.last_sent_us = self.now_us

    def _keeps_time(self, config: VrrpInstance, account: Account) -> None:
        """While all is calm a master's adverts come at their interval."""
        still_since_us = self.machine.world.still_since_us
        if still_since_us is None or account.last_sent_us < still_since_us:
            return
        gap_us, interval_us = self.now_us - account.last_sent_us, config.advert_int_us
        if abs(gap_us - interval_us) > early_us(interval_us) + ROUNDING_US:
            self.fail(f"{config.name} left {gap_us} us between two adverts, its interval is {interval_us}")

    def asked(self, action: ChangeAddresses) -> None:
        account = self.account(action.instance)
        for entry in action.add:
            if not isinstance(entry, AddressEntry):
                continue
            account.added_us[packed(entry.address)] = self.now_us

    def announced(self, action: Announce) -> None:
        state = self.machine.states.get(action.instance)
        config = self.by_name.get(action.instance)
        if config is None:
            return
        account = self.account(action.instance)
        virtual = {packed(a.address) for a in config.virtual_addresses + config.excluded_addresses}
        for _, frame in action.frames:
            address = frame[28:32] if frame[12:14] == b"\x08\x06" else frame[62:78]
            account.announced_us[address] = self.now_us
            if state not in (None, "MASTER") and address in virtual:
                self.fail(f"{action.instance} announces a virtual address as {state}")

    # Notifications -------------------------------------------------------------------------------------

    def owes(self, name: str, owed: tuple[OwedNotice, ...]) -> None:
        """Its record says so: from now on they are to be carried out, whatever happens to the process."""
        for notice in owed:
            if (notice.serial, notice.state) in self.paid:
                continue
            former = self.debts.setdefault((name, notice.serial), notice.state)
            if former != notice.state:
                self.fail(f"{name} owes two notifications under one number: {former}, {notice.state}")

    def owes_as_group(self, name: str, record: bytes) -> None:
        self.owes(name, msgspec.msgpack.decode(record, type=GroupRecord).owed)

    def notified(self, action: Notify) -> None:
        account = self.account(action.instance)
        if action.serial <= account.started:
            self.fail(f"{action.instance}: notification {action.state} out of order")
        account.started = action.serial
        if action.state != "MASTER_RX_LOWER_PRI":
            # Scripts hear FAULT of a deletion, as they always did.
            state = "FAULT" if action.state == "DELETED" else action.state
            self.notified_state[action.instance] = state

    def script_ended(self, serial: int, state: str) -> None:
        self.paid.add((serial, state))

    def unpaid(self) -> list[str]:
        """Notifications whose scripts never ended."""
        return [
            f"{name} {state}"
            for (name, serial), state in self.debts.items()
            if (serial, state) not in self.paid
        ]


def times_key(config: VrrpInstance) -> str:
    """The destination whose adverts are timed: one of them, where there are several."""
    return config.unicast_peers[0].address if config.unicast else config.multicast_group


AH_LENGTH = 24


def is_authenticated(config: VrrpInstance) -> bool:
    """Such packets are believed only if they are not old ones: nothing is demanded of those who hear."""
    return config.auth_hmac is not None or config.auth_type is AuthType.AH


def priority_at(config: VrrpInstance) -> int:
    if config.family != INET:
        return 2
    return 22 + (AH_LENGTH if config.auth_type is AuthType.AH else 0)
