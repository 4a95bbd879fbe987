"""What received advertisements do to an instance. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from kad.config.model.vrrp import OWNER
from kad.notify.policy import NotifyEvent, instance_line, lower_priority_commands
from kad.units import in_seconds
from kad_vrrp.core.actions import LogLevel, Notify, State
from kad_vrrp.core.election import (
    BackupVerdict,
    MasterVerdict,
    address_order,
    judge_as_backup,
    judge_as_master,
)
from kad_vrrp.core.events import AdvertReceived, Way
from kad_vrrp.core.familiar import familiar_packet
from kad_vrrp.core.packet import Advertisement, DropReason, PacketError, judge
from kad_vrrp.core.priority import REDUCED_OWNER
from kad_vrrp.core.stall import gives_up_mastery
from kad_vrrp.core.timers import VERSION_3

if TYPE_CHECKING:
    from kad_vrrp.core.instance import Instance

_REACTIONS_PER_INTERVAL = 4
"""How many adverts within one interval others can provoke a master to send."""


def hear_again(instance: Instance, data: bytes, way: Way | None, now_us: int) -> bool:
    """Whether it is what the master said last, word for word: then nothing but time has passed."""
    familiar = instance.familiar
    if familiar is None or not familiar.matches(data, way):
        return False
    instance.stats.advert_rcvd += 1
    instance.timer_us = now_us + instance.intervals.master_down_us
    return True


def hear(instance: Instance, event: AdvertReceived, now_us: int) -> bool:
    """A packet for this virtual router. PacketError when it is not believed: then no timer moves.

    False: the deadline has only moved later.
    """
    if hear_again(instance, event.data, event.way, now_us):
        return False
    if instance.state not in (State.MASTER, State.BACKUP) or not instance.running:
        raise PacketError(DropReason.NOT_LISTENING, instance.state.value)
    if now_us < instance.deaf_until_us:
        raise PacketError(DropReason.NOT_LISTENING, "start-up delay")
    config = instance.config
    advertisement = judge(
        event.data,
        instance.rules,
        source=event.source,
        hop_limit=event.hop_limit,
        destination=event.destination,
        ignore_as_owner=config.owner_ignore_adverts and instance.priority == OWNER,
        authenticator=instance.transmitter.authenticator,
        now_us=now_us,
    )
    instance.stats.advert_rcvd += 1
    # What came meanwhile is read before anything is sent: it is not to be answered as a master.
    if instance.state is State.MASTER and not gives_up_mastery(instance, now_us):
        _hear_as_master(instance, advertisement, now_us)
    else:
        _hear_as_backup(instance, advertisement, event, now_us)
    return True


def _hear_as_backup(instance: Instance, heard: Advertisement, event: AdvertReceived, now_us: int) -> None:
    """RFC 9568 §6.4.2 (300)-(365)."""
    config = instance.config
    new_master = heard.source != instance.master_address
    if new_master:
        instance.complaints.clear()
    if config.is_owner and instance.priority == REDUCED_OWNER and (new_master or heard.priority != OWNER):
        instance.log(LogLevel.INFO, f"restoring our priority to {OWNER}: no other address owner is heard")
        instance.set_priority(OWNER, now_us)
    matches = True
    if new_master or not config.skip_check_adv_addr:
        matches = _compare_addresses(instance, heard)
    _compare_interval(instance, heard)
    match judge_as_backup(heard.priority, instance.priority, preempt=_preempts(instance, now_us)):
        case BackupVerdict.LEAVING:
            instance.stats.pri_zero_rcvd += 1
            instance.familiar = None
            if now_us + instance.intervals.skew_us < instance.timer_us:
                # keepalived starts the skew time anew for every such packet: repeated, they keep a
                # network without master.
                instance.wait_for_master(
                    instance.intervals.skew_us,
                    f"Backup received priority 0 advertisement from {heard.source}",
                    now_us,
                )
        case BackupVerdict.ACCEPT:
            _accept(instance, heard, now_us)
            settled = instance.preempt_at_us == 0 and (
                heard.priority >= instance.priority or config.nopreempt
            )
            # What is authenticated never comes again unchanged, and must not be believed if it does.
            settled &= instance.transmitter.authenticator is None
            # Another's packet, or the same one while something is undecided, is to be looked at each time.
            instance.familiar = familiar_packet(event, config.family) if matches and settled else None
        case BackupVerdict.DISCARD:
            instance.familiar = None
            instance.master_address = heard.source
            instance.expiry_reason = f"preempting {heard.source} of lower priority {heard.priority}"
            text = f"received lower priority ({heard.priority}) advert from {heard.source} - discarding"
            instance.complain("lower_priority", text)
        case unreachable:
            assert_never(unreachable)


def _preempts(instance: Instance, now_us: int) -> bool:
    """Whether a master of lower priority is to be pushed aside at this moment."""
    config = instance.config
    if config.nopreempt or now_us < instance.context.settings.no_preempt_until_us:
        return False
    return not config.preempt_delay_us or 0 < instance.preempt_at_us <= now_us


def _accept(instance: Instance, heard: Advertisement, now_us: int) -> None:
    """The sender is our master: learn from it, and wait for it anew."""
    config = instance.config
    known = instance.master_address, instance.master_priority, instance.master_adver_us
    preempt_at_us = instance.preempt_at_us
    instance.ready = False
    learn(instance, heard)
    news = known != (instance.master_address, instance.master_priority, instance.master_adver_us)
    if config.preempt_delay_us:
        if heard.priority >= instance.priority:
            instance.preempt_at_us = 0
        elif not preempt_at_us:
            instance.preempt_at_us = now_us + config.preempt_delay_us
    instance.wait_for_master(
        instance.intervals.master_down_us, f"nothing more heard from {heard.source}", now_us
    )
    if news or preempt_at_us != instance.preempt_at_us:
        instance.remember()
    if instance.group is not None:
        instance.group.heard_master(instance, now_us)


def learn(instance: Instance, heard: Advertisement) -> None:
    """Who is master, and in version 3 at which interval (RFC 9568 §6.4.2 (340))."""
    instance.master_address = heard.source
    instance.master_priority = heard.priority
    if (
        heard.old_checksum
        and not instance.transmitter.old_checksum
        and not instance.config.old_unicast_checksum
    ):
        instance.log(LogLevel.INFO, "setting unicast VRRPv3 checksum to old version")
        instance.transmitter.old_checksum = True
        instance.transmitter.rebuild(instance.config)
    if instance.config.version == VERSION_3 and heard.advert_int_us != instance.master_adver_us:
        instance.master_adver_us = heard.advert_int_us
        instance.derive_intervals()


def _hear_as_master(instance: Instance, heard: Advertisement, now_us: int) -> None:
    """RFC 9568 §6.4.3 (700)-(770)."""
    _compare_addresses(instance, heard)
    _compare_interval(instance, heard)
    order = address_order(heard.source, instance.transmitter.source)
    verdict = judge_as_master(heard.priority, instance.priority, order)
    if verdict is MasterVerdict.LOWER and _owner_steps_down(instance, heard, now_us):
        verdict = MasterVerdict.HIGHER
    match verdict:
        case MasterVerdict.LEAVING:
            instance.stats.pri_zero_rcvd += 1
            _react(instance, now_us)
        case MasterVerdict.LOWER:
            _insist(instance, heard, now_us)
        case MasterVerdict.HIGHER:
            _give_way(instance, heard, now_us)
        case MasterVerdict.OURSELVES:
            instance.complain("ourselves", "equal priority advert received from a host with our IP address")
        case unreachable:
            assert_never(unreachable)


def _react(instance: Instance, now_us: int) -> bool:
    """One advert out of turn, but not at whatever rate others provoke it; the regular ones come anyway."""
    gap_us = instance.config.advert_int_us // _REACTIONS_PER_INTERVAL
    if now_us - instance.transmitter.last_sent_us < gap_us and now_us - instance.last_reaction_us < gap_us:
        return False
    instance.last_reaction_us = now_us
    instance.transmit(now_us)
    return True


def _insist(instance: Instance, heard: Advertisement, now_us: int) -> None:
    """A master below us: it shall hear us, and so shall every host that believed it."""
    config = instance.config
    text = (
        f"Received advert from {heard.source} with lower priority {heard.priority}, ours {instance.priority}"
    )
    if not config.lower_prio_no_advert:
        text += ", forcing new election"
    instance.complain("lower_priority", text)
    if not config.lower_prio_no_advert:
        _react(instance, now_us)
    if now_us - instance.last_lower_us < config.advert_int_us:
        # One burst an interval tells every host: packets that piled up while we were stopped need no more.
        return
    instance.last_lower_us = now_us
    for member in instance.group.members if instance.group is not None else (instance,):
        # keepalived: whoever believed the other master here believed its whole group.
        if member.state is State.MASTER:
            member.announce_lower_priority(now_us)
            instance.context.moved.append(member)
    _tell_lower_priority(instance)


def _tell_lower_priority(instance: Instance) -> None:
    """An event, not a state: it is not owed, and the next advert of that kind would bring it again."""
    config, context = instance.config, instance.context
    what = NotifyEvent.MASTER_RX_LOWER_PRI
    commands = lower_priority_commands(config.notify)
    line = instance_line(config.name, what, instance.priority) if context.audience.fifo else b""
    if commands or line:
        context.emit(Notify(config.name, context.next_serial(), what, instance.priority, commands, line))


def _give_way(instance: Instance, heard: Advertisement, now_us: int) -> None:
    config = instance.config
    if config.higher_prio_send_advert:
        instance.transmit(now_us)
    if heard.priority > instance.priority:
        than = f"higher priority {heard.priority}, ours {instance.priority}"
    else:
        than = f"same priority {heard.priority} but higher IP address than ours"
    reason = f"Master received advert from {heard.source} with {than}"
    learn(instance, heard)
    instance.yield_to_master(reason, now_us)


def _owner_steps_down(instance: Instance, heard: Advertisement, now_us: int) -> bool:
    """Another address owner with a lower address does not yield: we fall to 254 and give way."""
    if not (instance.config.is_owner and heard.priority == OWNER == instance.priority):
        return False
    first, step_down = instance.conflict.heard(heard.advert_int_us, now_us)
    if first:
        text = f"CONFIGURATION ERROR: {heard.source} is configured as address owner too, please resolve"
        instance.log(LogLevel.ERROR, text)
    if step_down:
        text = f"{heard.source} is still advertising as address owner, please resolve - reducing our priority"
        instance.log(LogLevel.ERROR, text)
        instance.set_priority(REDUCED_OWNER, now_us)
    return step_down


def _compare_addresses(instance: Instance, heard: Advertisement) -> bool:
    """RFC 9568 §7.1 lets a mismatch be dropped; like keepalived we only say it, once."""
    theirs = frozenset(heard.addresses)
    if len(heard.addresses) == len(instance.own_addresses) and theirs == instance.own_addresses:
        return True
    instance.stats.addr_list_err += 1
    text = f"virtual addresses of {heard.source} differ from ours ({len(heard.addresses)} received, "
    instance.complain("addresses", f"{text}{len(instance.own_addresses)} expected)")
    return False


def _compare_interval(instance: Instance, heard: Advertisement) -> None:
    """Version 3 only: version 2 does not believe another interval at all (RFC 3768 §7.1)."""
    mine = instance.config.advert_int_us
    if heard.advert_int_us != mine:
        text = f"advertisement interval mismatch with {heard.source}: ours {in_seconds(mine)}, "
        instance.complain("interval", f"{text}received {in_seconds(heard.advert_int_us)}")
