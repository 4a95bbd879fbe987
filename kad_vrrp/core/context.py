"""What the parts of one engine share: links, serial numbers, and the list actions are put on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct

from kad_vrrp.core.actions import Action, Announce, Log, LogLevel
from kad_vrrp.core.notices import Audience
from kad_vrrp.core.object_records import ObjectRecords
from kad_vrrp.core.trackers import Trackers

if TYPE_CHECKING:
    from kad_vrrp.core.events import LinkChanged
    from kad_vrrp.core.garp import Pacer
    from kad_vrrp.core.instance import Instance


class Ending(Enum):
    """Why an instance is on its way out."""

    STOP = auto()
    """The daemon stops."""
    GONE = auto()
    """A reload no longer has it."""
    WITHDRAW = auto()
    """A one-shot child cleans up; the next life goes on as BACKUP."""


class EngineSettings(Struct, frozen=True):
    """What the command line and global_defs say to the whole engine."""

    release_vips: bool = False
    """-X: on leaving MASTER remove addresses that were there before us too."""
    keep_vips_at_stop: bool = False
    """-V"""
    startup_delay_us: int = 0
    """vrrp_startup_delay and what remains of vrrp_delay_after_boot, whichever is longer."""
    no_preempt_until_us: int = 0
    """CLOCK_MONOTONIC: before it a lower priority is accepted as master (after repeated crashes)."""
    withdraw: bool = False
    """Only take back what the records say is ours, say priority 0 for masters, and stop."""


class Context:
    """Owned by the engine; parts write actions through it."""

    def __init__(self, settings: EngineSettings, pacer: Pacer, objects: Mapping[str, bytes]) -> None:
        self.settings = settings
        self.pacer = pacer
        self.records = ObjectRecords(self.emit, objects)
        self.trackers = Trackers(self)
        self.links: dict[str, LinkChanged] = {}
        self.bases: dict[str, str] = {}
        """Interfaces of instances' own -> what they are on top of."""
        self.generation = 0
        self.realtime_ahead_us = 0
        """What CLOCK_REALTIME is ahead of CLOCK_MONOTONIC."""
        self.virtual: frozenset[str] = frozenset()
        """Every configured virtual address: none of them is a source address of the machine's own."""
        self.deaf_until_us = 0
        """End of the start-up delay: nothing received before counts (not for what goes on after a crash)."""
        self.actions: list[Action] = []
        self.moved: list[Instance] = []
        """Members of sync groups whose deadlines may have changed because of another member."""
        self.serial = 0
        self.audience = Audience()
        self.names_unknown_vrids = False
        """log_unknown_vrids"""

    def next_serial(self) -> int:
        """Numbers of plans and notifications, unique within the engine and above every remembered one."""
        self.serial += 1
        return self.serial

    def emit(self, action: Action) -> None:
        self.actions.append(action)

    def log(self, level: LogLevel, text: str) -> None:
        self.actions.append(Log(level, text))

    def send_paced(self, now_us: int) -> None:
        """Announcements that wait for their turn on an interface: the ones whose turn has come."""
        for instance, interface, frame in self.pacer.due(now_us):
            self.actions.append(Announce(instance, ((interface, frame),)))
