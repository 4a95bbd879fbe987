"""Which instance of a new configuration is which of the old one. Pure."""

from collections.abc import Sequence

from kad.config.model.vrrp import VrrpInstance

Identity = tuple[int, int, str, bool]


def identity(config: VrrpInstance) -> Identity:
    """What makes an instance the same over a reload, as with keepalived: never its name."""
    return config.virtual_router_id, config.family, config.interface, config.unicast


def match(old: Sequence[VrrpInstance], new: Sequence[VrrpInstance]) -> list[int | None]:
    """For each new instance the index of the old one that it is, or None.

    Where several share an identity (multicast groups or unicast peers differ), the one with the same group
    and source address is meant, then the one of the same name, then any that is left.
    """
    candidates: dict[Identity, list[int]] = {}
    for index, config in enumerate(old):
        candidates.setdefault(identity(config), []).append(index)
    result: list[int | None] = []
    for config in new:
        left = candidates.get(identity(config), [])
        best = min(left, key=lambda index: _distance(old[index], config), default=None)
        if best is not None:
            left.remove(best)
        result.append(best)
    return result


def _distance(old: VrrpInstance, new: VrrpInstance) -> tuple[bool, bool, bool]:
    return (
        old.multicast_group != new.multicast_group,
        old.source_address != new.source_address,
        old.name != new.name,
    )
