"""Who should be master: what an advertisement means to a backup and to a master. Pure decisions."""

from enum import Enum

from kad.addresses import packed
from kad.units import NEVER
from kad_vrrp.core.priority import STOPPING


class BackupVerdict(Enum):
    """RFC 9568 §6.4.2, with keepalived's preempt delay."""

    LEAVING = 1
    """Priority 0: take over after the skew time."""
    ACCEPT = 2
    DISCARD = 3
    """Lower than ours: the timer runs on, and we take over when it ends."""


def judge_as_backup(priority: int, own_priority: int, *, preempt: bool) -> BackupVerdict:
    """What a backup makes of an advertisement. ``preempt``: whether a lower one is to be pushed aside now."""
    if priority == STOPPING:
        return BackupVerdict.LEAVING
    if priority >= own_priority or not preempt:
        return BackupVerdict.ACCEPT
    return BackupVerdict.DISCARD


class MasterVerdict(Enum):
    """RFC 9568 §6.4.3."""

    LEAVING = 1
    LOWER = 2
    HIGHER = 3
    OURSELVES = 4
    """Our priority from our address: someone answers with our identity."""


def judge_as_master(priority: int, own_priority: int, order: int) -> MasterVerdict:
    """``order``: sign of the sender's address compared with ours (RFC 9568 §6.4.3, equal priorities)."""
    if priority == STOPPING:
        return MasterVerdict.LEAVING
    if priority != own_priority:
        return MasterVerdict.HIGHER if priority > own_priority else MasterVerdict.LOWER
    if order == 0:
        return MasterVerdict.OURSELVES
    return MasterVerdict.HIGHER if order > 0 else MasterVerdict.LOWER


def address_order(theirs: str, ours: str) -> int:
    """-1, 0 or 1 by numeric value, as RFC 9568 §6.4.3 compares primary addresses."""
    left, right = packed(theirs), packed(ours) if ours else b""
    return (left > right) - (left < right)


class OwnerConflict:
    """Two routers configured as address owner (priority 255): keepalived's way out.

    The lower address yields as usual. The higher one waits for two adverts of its own and 1.2 times the
    longer interval; if the other is still heard then, it does not yield, and we step down to 254.
    """

    __slots__ = ("_adverts_left", "_listening_until_us", "_rival_interval_us")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._adverts_left = 0
        self._listening_until_us = NEVER
        self._rival_interval_us = 0

    def heard(self, rival_interval_us: int, now_us: int) -> tuple[bool, bool]:
        """Another owner with a lower address. (first time, we must step down)."""
        if self._listening_until_us != NEVER:
            still_listening = now_us <= self._listening_until_us
            self.forget()
            if still_listening:
                return False, True
        self._rival_interval_us = rival_interval_us
        first = self._adverts_left == 0
        if first:
            self._adverts_left = 2
        return first, False

    def advert_sent(self, own_interval_us: int, now_us: int) -> None:
        if self._adverts_left:
            self._adverts_left -= 1
            if not self._adverts_left:
                patience = max(self._rival_interval_us, own_interval_us) * 12 // 10
                self._listening_until_us = now_us + patience
