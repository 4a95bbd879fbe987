"""After this process, or the whole machine, stood still: what was missed is not taken for silence. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_vrrp.core.actions import LogLevel, State
from kad_vrrp.core.packet import DropReason, PacketError
from kad_vrrp.core.timers import Intervals, intervals

if TYPE_CHECKING:
    from kad_vrrp.core.instance import Instance


def promised(instance: Instance) -> Intervals:
    """What silence of ours is judged by: the interval that our last advert told, as backups do."""
    config, told_us = instance.config, instance.transmitter.told_interval_us
    if told_us == config.advert_int_us:
        return instance.intervals
    return intervals(config.version, instance.priority, told_us, told_us, config.down_timer_adverts)


def listens_again(instance: Instance, now_us: int) -> bool:
    """Whether a backup that slept past its timer waits for one more advert before it takes over.

    A paused machine hears nothing, and a full socket keeps nothing: that nothing was found in it is no proof
    that nothing was sent. keepalived takes over at once.
    """
    late_us = now_us - instance.timer_us
    if late_us <= instance.master_adver_us or instance.state is not State.BACKUP or instance.ready:
        return False
    if instance.timer_us == instance.second_wait_us:
        return False
    instance.log(LogLevel.WARNING, f"woke up {late_us} us late; listening once more")
    waits_us = instance.master_adver_us + instance.intervals.skew_us
    instance.wait_for_master(waits_us, instance.expiry_reason, now_us)
    instance.second_wait_us = instance.timer_us
    return True


def heard_at(instance: Instance, age_us: int, now_us: int) -> int:
    """When to take a delayed advert for heard. PacketError when it says nothing about the present.

    A master's own time goes on from now; a backup's patience began when the advert arrived.
    """
    if age_us > instance.intervals.master_down_us:
        raise PacketError(DropReason.STALE, f"it arrived {age_us} us ago")
    return now_us - age_us if instance.state is State.BACKUP else now_us


def gives_up_mastery(instance: Instance, now_us: int) -> bool:
    """timer_expired_backup: so late that one of that priority is master by now, for good."""
    past = instance.transmitter.is_past_mastery(now_us)
    if past:
        waits_us = instance.intervals.master_down_us
        instance.enter_backup("our adverts are so late that another is master by now", now_us, waits_us)
    return past
