"""The current master's packet, recognised without parsing when it comes again unchanged. Pure.

At a thousand instances nearly every packet is such a one. What is compared is everything a decision depends
on, so that recognising is never believing more than parsing would.
"""

from kad.addresses import INET
from kad_vrrp.core.events import AdvertReceived, Way


class FamiliarIPv4:
    """The current master's packet: all of it but identification and header checksum, which always change."""

    __slots__ = ("_fragment_ttl_protocol", "_length", "_rest")

    def __init__(self, event: AdvertReceived) -> None:
        self._length = event.data[:4]
        self._fragment_ttl_protocol = event.data[6:10]
        self._rest = event.data[12:]

    def matches(self, data: bytes, _: Way | None) -> bool:
        return (
            data[12:] == self._rest and data[6:10] == self._fragment_ttl_protocol and data[:4] == self._length
        )


class FamiliarIPv6:
    """The current master's packet, and what came beside it."""

    __slots__ = ("_data", "_way")

    def __init__(self, event: AdvertReceived) -> None:
        self._data = event.data
        self._way = event.way

    def matches(self, data: bytes, way: Way | None) -> bool:
        return data == self._data and way == self._way


Familiar = FamiliarIPv4 | FamiliarIPv6


def familiar_packet(event: AdvertReceived, family: int) -> Familiar:
    """From a packet that was parsed, believed, and needs no other decision when it comes again."""
    return FamiliarIPv4(event) if family == INET else FamiliarIPv6(event)
