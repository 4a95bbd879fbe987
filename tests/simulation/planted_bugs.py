"""Mistakes one could make in the core, each as a patch: the simulator has to find every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from kad_vrrp.core import hearing, participation, timers
from kad_vrrp.core.actions import State
from kad_vrrp.core.announcer import Announcer
from kad_vrrp.core.conditions import Conditions
from kad_vrrp.core.deadlines import Deadlines
from kad_vrrp.core.election import BackupVerdict, MasterVerdict
from kad_vrrp.core.garp import AnnouncementSchedule
from kad_vrrp.core.holdings import DeletionGuard, Holdings
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.notices import Notices
from kad_vrrp.core.sync_group import SyncGroup
from kad_vrrp.core.trackers import Trackers
from kad_vrrp.core.transports import Transports

Plant = Callable[[ExitStack], None]
BUGS: dict[str, Plant] = {}


def _bug(plant: Plant) -> Plant:
    BUGS[plant.__name__] = plant
    return plant


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The core with this bug in it."""
    with ExitStack() as stack:
        BUGS[name](stack)
        yield


def _replace(stack: ExitStack, where: Any, name: str, by: Any) -> None:
    stack.enter_context(patch.object(where, name, by))


def _nothing(*_: Any, **__: Any) -> None:
    """What should have been done is not."""


def _wrap(stack: ExitStack, where: Any, name: str, change: Callable[..., Any]) -> None:
    """``change`` gets the original first."""
    original = getattr(where, name)
    _replace(stack, where, name, lambda *a, **k: change(original, *a, **k))


# Timers ----------------------------------------------------------------------------------------------------


@_bug
def skew_grows_with_the_priority(stack: ExitStack) -> None:
    _wrap(stack, timers, "skew_time_us", lambda f, version, priority, us: f(version, 256 - priority, us))


@_bug
def no_skew_at_all(stack: ExitStack) -> None:
    _replace(stack, timers, "skew_time_us", lambda *_: 0)


@_bug
def two_missed_adverts_are_enough(stack: ExitStack) -> None:
    _wrap(
        stack,
        timers,
        "master_down_interval_us",
        lambda f, v, p, us, adverts: f(v, p, us, max(1, adverts - 1)),
    )


@_bug
def a_stale_timer_is_not_moved_by_adverts(stack: ExitStack) -> None:
    def accept(original: Any, instance: Instance, heard: Any, now_us: int) -> None:
        timer_us = instance.timer_us
        original(instance, heard, now_us)
        instance.timer_us = timer_us

    _wrap(stack, hearing, "_accept", accept)


@_bug
def the_next_advert_is_counted_from_a_late_one(stack: ExitStack) -> None:
    def advertise(instance: Instance, now_us: int) -> None:
        instance._send(now_us)
        instance.timer_us = now_us + instance.config.advert_int_us * 5 // 4

    _replace(stack, Instance, "_advertise", advertise)


@_bug
def deadlines_that_move_earlier_are_forgotten(stack: ExitStack) -> None:
    def push(original: Any, deadlines: Deadlines, instance: Instance) -> None:
        if instance.queued_us >= 1 << 62:
            original(deadlines, instance)

    _wrap(stack, Deadlines, "push", push)


@_bug
def priority_0_does_not_shorten_the_wait(stack: ExitStack) -> None:
    def judge(original: Any, *args: Any, **words: Any) -> BackupVerdict:
        verdict = original(*args, **words)
        return BackupVerdict.DISCARD if verdict is BackupVerdict.LEAVING else verdict

    _wrap(stack, hearing, "judge_as_backup", judge)


# Elections -------------------------------------------------------------------------------------------------


@_bug
def preemption_never_happens(stack: ExitStack) -> None:
    _replace(stack, hearing, "_preempts", lambda *_: False)


@_bug
def nopreempt_and_delays_are_ignored(stack: ExitStack) -> None:
    _replace(stack, hearing, "_preempts", lambda *_: True)


@_bug
def a_master_does_not_give_way(stack: ExitStack) -> None:
    def judge(original: Any, *args: Any) -> MasterVerdict:
        verdict = original(*args)
        return MasterVerdict.LOWER if verdict is MasterVerdict.HIGHER else verdict

    _wrap(stack, hearing, "judge_as_master", judge)


@_bug
def ties_are_won_by_nobody(stack: ExitStack) -> None:
    _replace(stack, hearing, "address_order", lambda *_: 0)


@_bug
def weights_do_not_count(stack: ExitStack) -> None:
    _wrap(stack, participation, "effective_priority", lambda f, base, weights=0: f(base))


@_bug
def every_provocation_is_answered(stack: ExitStack) -> None:
    def react(instance: Instance, now_us: int) -> bool:
        instance.transmit(now_us)
        return True

    _replace(stack, hearing, "_react", react)


@_bug
def there_is_no_farewell(stack: ExitStack) -> None:
    def leave(original: Any, instance: Instance, now_us: int, *, farewell: bool) -> Any:
        return original(instance, now_us, farewell=False)

    _wrap(stack, Instance, "_leave_master", leave)


# Addresses and announcements -------------------------------------------------------------------------------


@_bug
def nothing_is_announced(stack: ExitStack) -> None:
    _replace(stack, Announcer, "settle", _nothing)


@_bug
def there_is_no_second_burst(stack: ExitStack) -> None:
    _replace(stack, AnnouncementSchedule, "begin", _nothing)


@_bug
def addresses_stay_behind(stack: ExitStack) -> None:
    def change(original: Any, instance: Instance, **words: Any) -> Any:
        return original(instance, **words) if instance.state is State.MASTER else None

    _wrap(stack, Instance, "_next_change", change)


@_bug
def what_a_former_life_left_is_not_looked_for(stack: ExitStack) -> None:
    _replace(stack, Holdings, "assume_all", _nothing)


@_bug
def a_deleted_address_is_not_missed(stack: ExitStack) -> None:
    _replace(stack, DeletionGuard, "deleted", lambda *_: False)


@_bug
def a_refusal_is_overlooked(stack: ExitStack) -> None:
    _replace(stack, Conditions, "refused", _nothing)


# Groups ----------------------------------------------------------------------------------------------------


@_bug
def a_member_is_left_behind_as_master(stack: ExitStack) -> None:
    def follow(original: Any, group: SyncGroup, leader: Instance, old: State, now_us: int) -> None:
        if leader.state is not State.BACKUP:
            original(group, leader, old, now_us)

    _wrap(stack, SyncGroup, "_follow", follow)


@_bug
def a_fault_is_the_members_own_business(stack: ExitStack) -> None:
    _replace(stack, SyncGroup, "fault_beside", lambda *_: "")


@_bug
def a_member_does_not_wait_for_the_others(stack: ExitStack) -> None:
    _replace(stack, SyncGroup, "claim", lambda *_: True)


# Memory, scripts, sockets ----------------------------------------------------------------------------------


@_bug
def notifications_do_not_survive(stack: ExitStack) -> None:
    _replace(stack, Notices, "restore", _nothing)


@_bug
def a_fault_is_not_told(stack: ExitStack) -> None:
    def ask(original: Any, notices: Notices, config: Any, state: Any, *args: Any, **words: Any) -> Any:
        return None if state == "FAULT" else original(notices, config, state, *args, **words)

    _wrap(stack, Notices, "ask", ask)


@_bug
def the_record_is_written_once(stack: ExitStack) -> None:
    def remember(original: Any, instance: Instance, *, stamp: bool = False) -> None:
        if not instance._last_record:
            original(instance, stamp=stamp)

    _wrap(stack, Instance, "remember", remember)


@_bug
def results_of_scripts_are_not_looked_at(stack: ExitStack) -> None:
    _replace(stack, Trackers, "_on_script", lambda *_: [])


@_bug
def broken_sockets_stay_broken(stack: ExitStack) -> None:
    _replace(stack, Transports, "retry", _nothing)
