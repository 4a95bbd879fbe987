"""What a master does when somebody else deletes what it holds, and when things may have gone unsaid. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_vrrp.core.actions import LogLevel, State
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.events import AddressDeleted, RouteDeleted, RouteReplaced

if TYPE_CHECKING:
    from kad_vrrp.core.instance import Instance


def on_address_deleted(instance: Instance, event: AddressDeleted, now_us: int) -> None:
    """Someone deleted an address of ours. Judged when everything else that came with it is known."""
    entry = instance.holdings.find(event.interface, event.address, event.prefix_length)
    if entry is None or instance.state is not State.MASTER:
        return
    instance.holdings.lose(entry)
    instance.announcer.drop((entry,))
    if not entry.no_track:
        _mind(instance, f"{event.address} was deleted by {event.culprit or 'another'}", now_us)


def on_route_deleted(instance: Instance, event: RouteDeleted, now_us: int) -> None:
    """The same for a route or rule."""
    entry = event.entry
    if entry not in instance.holdings.held or instance.state is not State.MASTER:
        return
    instance.holdings.lose(entry)
    if entry.is_tracked:
        _mind(instance, f"{describe(entry)} was deleted by {event.culprit or 'another'}", now_us)


def on_route_replaced(instance: Instance, event: RouteReplaced, now_us: int) -> None:
    """It is set again after a while, beside the other, which only the kernel knows whether it is needed.

    Nobody steps down: keepalived does not even notice, and two routers would change places without end.
    """
    if event.entry in instance.holdings.held and instance.state is State.MASTER:
        instance.complain("route replaced", f"{describe(event.entry)} was replaced by {event.culprit}")
        doubt_routes(instance, now_us, heard=True)


def _mind(instance: Instance, loss: str, now_us: int) -> None:
    if instance.guard.deleted(loss, now_us):
        instance.log(LogLevel.WARNING, f"{loss} again; putting it back")
    instance.arm()


def on_time(instance: Instance, now_us: int) -> None:
    """Whatever is due."""
    if instance.guard.step_down_us <= now_us:
        _give_way(instance, now_us)
    if instance.guard.restore_us <= now_us:
        instance.guard.calm()
        instance.holdings.forgive()
        instance.reconcile(now_us)


def _give_way(instance: Instance, now_us: int) -> None:
    """keepalived's answer to a deletion: step down, and stand again after the skew time."""
    loss = instance.guard.stepping_down(now_us)
    if instance.group is not None:
        instance.group.stand_again(instance, loss, now_us)
    else:
        stand_again(instance, loss, now_us)


def stand_again(instance: Instance, reason: str, now_us: int) -> None:
    """Leave MASTER to whoever is there, and come back after the skew time where nobody is."""
    instance.enter_backup(reason, now_us, instance.intervals.skew_us, farewell=True)
    instance.expiry_reason = "coming back after a deletion"


def doubt_routes(instance: Instance, now_us: int, *, heard: bool) -> None:
    """Routes may have gone without a word: set them once more, to be sure. ``heard``: see Holdings.

    Not at once: an address that is replaced is missing for a moment, and a route that needs it is refused.
    """
    if instance.state is State.MASTER and instance.running and instance.ending is None:
        instance.holdings.doubt_routes(heard=heard)
        instance.guard.restore_later(now_us)
        instance.arm()
