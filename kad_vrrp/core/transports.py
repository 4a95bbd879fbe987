"""Which sockets the instances need, shared where equal, opened again after a failure. Pure."""

from kad.config.model.vrrp import AuthType, VrrpInstance
from kad.units import NEVER
from kad_vrrp.core.actions import CloseTransport, OpenTransport, Transport
from kad_vrrp.core.context import Context
from kad_vrrp.core.packet import AH_PROTOCOL, PROTOCOL

FIRST_RETRY_US = 1_000_000
LONGEST_RETRY_US = 30_000_000


def transport_for(config: VrrpInstance, source: str) -> Transport:
    """The sockets an instance needs when it sends from ``source`` (which only unicast sockets bind to)."""
    return Transport(
        family=config.family,
        protocol=AH_PROTOCOL if config.auth_type is AuthType.AH else PROTOCOL,
        interface=config.transport_interface,
        group="" if config.unicast else config.multicast_group,
        source=source if config.unicast else "",
        unicast_ttl=config.unicast_ttl,
        vrf=config.vrf,
        receive_buffer=config.receive_buffer,
        receive_buffer_mtus=config.receive_buffer_mtus,
    )


class Slot:
    """One transport: its number, who uses it, and whether it works."""

    __slots__ = ("failure", "is_open", "link_index", "number", "retry_at_us", "retry_us", "spec", "users")

    def __init__(self, number: int, spec: Transport, link_index: int) -> None:
        self.number = number
        self.spec = spec
        self.link_index = link_index
        self.users = 0
        self.is_open = False
        self.failure = ""
        self.retry_at_us = NEVER
        self.retry_us = FIRST_RETRY_US


class Transports:
    """Every transport of the engine, by number and by what it is."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_number: dict[int, Slot] = {}
        self._by_spec: dict[tuple[Transport, int], Slot] = {}
        self._last = 0
        self.deadline_us = NEVER
        """The next time a failed one is tried again. Asked for with every packet, so kept."""

    def acquire(self, spec: Transport, link_index: int) -> Slot:
        """A transport like this on the interface of this index: a new one is asked to be opened."""
        slot = self._by_spec.get((spec, link_index))
        if slot is None:
            self._last += 1
            slot = Slot(self._last, spec, link_index)
            self._by_number[slot.number] = slot
            self._by_spec[(spec, link_index)] = slot
            self._context.emit(OpenTransport(slot.number, spec))
        slot.users += 1
        return slot

    def release(self, slot: Slot) -> None:
        """One user less; the last one closes it."""
        slot.users -= 1
        assert slot.users >= 0
        if slot.users:
            return
        del self._by_number[slot.number]
        del self._by_spec[(slot.spec, slot.link_index)]
        self._context.emit(CloseTransport(slot.number))
        self._rearm()

    def opened(self, number: int) -> Slot | None:
        slot = self._by_number.get(number)
        if slot is not None:
            slot.is_open = True
            slot.failure = ""
            slot.retry_at_us = NEVER
            slot.retry_us = FIRST_RETRY_US
            self._rearm()
        return slot

    def failed(self, number: int, reason: str, now_us: int) -> Slot | None:
        """It could not be opened, or broke; it is tried again, ever less often."""
        slot = self._by_number.get(number)
        if slot is not None:
            slot.is_open = False
            slot.failure = reason
            slot.retry_at_us = now_us + slot.retry_us
            slot.retry_us = min(slot.retry_us * 2, LONGEST_RETRY_US)
            self._rearm()
        return slot

    def retry(self, now_us: int) -> None:
        """Ask once more for what is due."""
        if self.deadline_us > now_us:
            return
        for slot in self._by_number.values():
            if slot.retry_at_us <= now_us:
                slot.retry_at_us = NEVER
                self._context.emit(OpenTransport(slot.number, slot.spec))
        self._rearm()

    def _rearm(self) -> None:
        self.deadline_us = min((slot.retry_at_us for slot in self._by_number.values()), default=NEVER)
