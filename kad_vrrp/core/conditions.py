"""What must hold for an instance to take part: interfaces, source address, sockets. Pure."""

from collections.abc import Mapping

from kad.addresses import INET6, family_of, is_link_local
from kad.config.model.vrrp import VrrpInstance
from kad.config.needed_interfaces import needed_interfaces
from kad.units import NEVER
from kad_vrrp.core.actions import Entry
from kad_vrrp.core.events import LinkChanged

FIRST_REFUSAL_US = 10_000_000
LONGEST_REFUSAL_US = 320_000_000
"""How long an instance stays in FAULT after the kernel refused an address it advertises: twice as long every
time, so that a peer which has the address keeps it."""


def interfaces_of(config: VrrpInstance) -> frozenset[str]:
    """Every interface whose state matters to this instance."""
    own = config.vmac.name if config.vmac is not None else ""
    return frozenset({config.interface, own, *needed_interfaces(config)} - {""})


def source_link(config: VrrpInstance, links: Mapping[str, LinkChanged]) -> LinkChanged | None:
    """The link whose addresses adverts can come from: a VMAC has none of its own over IPv4."""
    if config.family == INET6:
        return links.get(config.transport_interface)
    return links.get(config.interface)


def source_of(config: VrrpInstance, link: LinkChanged | None, virtual: frozenset[str]) -> str:
    """The address adverts come from; empty when there is none yet.

    Configured, or the interface's first that is not a virtual address; over IPv6 a link-local one
    (RFC 9568 §5.1.2.1), but to unicast peers any will do where there is none.
    """
    if config.source_address:
        return config.source_address
    if link is None:
        return ""
    own = [a for a in link.addresses if family_of(a) == config.family and a not in virtual]
    if config.family == INET6:
        local = [address for address in own if is_link_local(address)]
        own = local or (own if config.unicast else [])
    return own[0] if own else ""


def obstacle(
    config: VrrpInstance, links: Mapping[str, LinkChanged], source: str, *, interface_up: bool
) -> str:
    """Why this instance cannot take part, in words for people; empty when it can.

    ``interface_up`` is the instance's own interface after its debounce delays.
    """
    if config.fault:
        return config.fault
    link = links.get(config.interface)
    if config.interface and link is None:
        return f"interface {config.interface} does not exist"
    if config.interface and not interface_up and not config.dont_track_primary:
        return f"interface {_down_one(config, links)} is down"
    if reason := _own_interface_obstacle(config, links, source):
        return reason
    for name, what in needed_interfaces(config).items():
        device = links.get(name)
        if name != config.interface and (device is None or not device.up):
            return f"interface {name} of a {what} is {'missing' if device is None else 'down'}"
    if not source:
        return "no source address"
    link = source_link(config, links)
    if config.track_src_ip and (link is None or source not in link.addresses):
        return f"source address {source} is not configured"
    if config.unicast and config.unicast_fault_no_peer and not config.unicast_peers:
        return "no unicast peer"
    return ""


def _down_one(config: VrrpInstance, links: Mapping[str, LinkChanged]) -> str:
    """Which of the two it is where there is a VMAC: the base, unless that is up and the other is not."""
    base = links.get(config.interface)
    own = links.get(config.vmac.name) if config.vmac is not None else None
    if base is not None and base.up and own is not None and not own.up:
        return own.name
    return config.interface


def _own_interface_obstacle(config: VrrpInstance, links: Mapping[str, LinkChanged], source: str) -> str:
    """What is wrong with its VMAC or ipvlan. Whether that is up is judged with the base, and debounced."""
    if config.vmac is None:
        return ""
    name = config.vmac.name
    own = links.get(name)
    if own is None:
        return f"interface {name} does not exist"
    if config.family == INET6 and not config.vmac.xmit_base and source and source not in own.addresses:
        return f"source address {source} is not on {name}"
    return ""


def is_up(config: VrrpInstance, links: Mapping[str, LinkChanged]) -> bool:
    """Its interface is up, and so is its VMAC on top of it."""
    link = links.get(config.interface)
    if link is None or not link.up or config.vmac is None:
        return link is not None and link.up
    own = links.get(config.vmac.name)
    return own is None or own.up


class Debounce:
    """Whether an interface is up, believed only after the configured delays."""

    __slots__ = ("change_at_us", "is_up")

    def __init__(self, is_up: bool) -> None:
        self.is_up = is_up
        self.change_at_us = NEVER

    def observe(self, is_up: bool, config: VrrpInstance, now_us: int) -> None:
        """The present truth; a state that holds for its delay is believed."""
        if is_up == self.is_up:
            self.change_at_us = NEVER
            return
        delay_us = config.interface_up_delay_us if is_up else config.interface_down_delay_us
        if self.change_at_us == NEVER:
            self.change_at_us = now_us + delay_us
        if self.change_at_us <= now_us:
            self.is_up = is_up
            self.change_at_us = NEVER


class Conditions:
    """Everything that can keep one instance from taking part, looked at again whenever any of it changed."""

    def __init__(self, is_up: bool) -> None:
        self._debounce = Debounce(is_up)
        self._refused: frozenset[Entry] = frozenset()
        self._refused_until_us = NEVER
        self._refusal_us = FIRST_REFUSAL_US

    @property
    def deadline_us(self) -> int:
        return min(self._debounce.change_at_us, self._refused_until_us)

    def refused(self, entries: frozenset[Entry], now_us: int) -> None:
        """The kernel refused these addresses: no use in trying again for a while."""
        self._refused = entries
        self._refused_until_us = now_us + self._refusal_us
        self._refusal_us = min(2 * self._refusal_us, LONGEST_REFUSAL_US)

    def configure(self, vital: frozenset[Entry]) -> None:
        """A reload: there is nothing to wait for where none of what was refused is asked for any more."""
        if self._refused_until_us != NEVER and self._refused.isdisjoint(vital):
            self._refused_until_us = NEVER
            self.accepted()

    def accepted(self) -> None:
        """It added what it was asked to."""
        self._refusal_us = FIRST_REFUSAL_US

    def find_fault(
        self,
        config: VrrpInstance,
        links: Mapping[str, LinkChanged],
        source: str,
        socket_failure: str,
        now_us: int,
    ) -> str:
        """What is in the way now; empty: nothing."""
        self._debounce.observe(is_up(config, links), config, now_us)
        if self._refused_until_us <= now_us:
            self._refused_until_us = NEVER
        fault = obstacle(config, links, source, interface_up=self._debounce.is_up)
        if not fault and socket_failure:
            fault = f"sockets: {socket_failure}"
        if not fault and self._refused_until_us != NEVER:
            fault = "the kernel refused a virtual address"
        return fault
