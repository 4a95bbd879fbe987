"""Which session a packet belongs to: RFC 5880 §6.3 and the selecting checks of §6.8.6. Pure."""

from __future__ import annotations

from kad_bfd.core.events import Origin
from kad_bfd.core.packet import ControlPacket, DropReason, PacketError, State
from kad_bfd.core.session import Session

ANY_HOPS = 255
"""A ``max_hops`` that switches the check of the TTL off."""


class Demux:
    """By discriminator, else by addresses. Sessions that leave are taken out first."""

    def __init__(self) -> None:
        self.by_discriminator: dict[bytes, Session] = {}
        """Key: the discriminator as it stands on the wire."""
        self._by_neighbor: dict[str, list[Session]] = {}

    def add(self, session: Session) -> None:
        key = session.local_discr.to_bytes(4, "big")
        assert key not in self.by_discriminator, "RFC 5880 §6.8.1: unique"
        self.by_discriminator[key] = session
        self._by_neighbor.setdefault(session.config.neighbor_address, []).append(session)

    def remove(self, session: Session) -> None:
        del self.by_discriminator[session.local_discr.to_bytes(4, "big")]
        beside = self._by_neighbor[session.config.neighbor_address]
        beside.remove(session)
        if not beside:
            del self._by_neighbor[session.config.neighbor_address]

    def is_free(self, discriminator: int) -> bool:
        """Whether a session may take it; zero is none (RFC 5880 §6.8.1)."""
        return discriminator != 0 and discriminator.to_bytes(4, "big") not in self.by_discriminator

    def session_of(self, packet: ControlPacket, origin: Origin) -> Session:
        """The session, which the packet may belong to going by all its outer marks too; else PacketError."""
        yours = packet.your_discriminator
        if yours:
            # "If the Your Discriminator field is nonzero, it MUST be used to select the session … If no
            # session is found, the packet MUST be discarded."
            session = self.by_discriminator.get(yours.to_bytes(4, "big"))
            if session is None:
                raise PacketError(DropReason.YOUR_DISCRIMINATOR, f"your discriminator {yours:#x}")
            return session
        # "If the Your Discriminator field is zero and the State field is not Down or AdminDown, the packet
        # MUST be discarded."
        if packet.state not in (State.DOWN, State.ADMIN_DOWN):
            raise PacketError(DropReason.STATE, f"your discriminator 0 in state {packet.state.name}")
        # "If the Your Discriminator field is zero, the session MUST be selected based on some combination of
        # other fields … If a matching session is not found … the packet MAY be discarded."
        for session in self._by_neighbor.get(origin.source, ()):
            if fits(session, origin):
                return session
        raise PacketError(DropReason.NO_SESSION, "no session with this neighbour")


def fits(session: Session, origin: Origin) -> bool:
    """Whether addresses, port and interface are the session's."""
    config, listener = session.config, origin.listener
    return (
        config.multihop == listener.multihop
        and config.interface in ("", listener.interface)
        and config.source_address in ("", origin.destination)
    )


def check_origin(session: Session, origin: Origin) -> None:
    """What lies outside the packet; raises PacketError.

    The discriminator selects the session, but does not prove who sent it: a packet from elsewhere than the
    neighbour is not believed. (keepalived looks at the discriminator alone.)
    """
    config, listener = session.config, origin.listener
    if origin.source != config.neighbor_address:
        raise PacketError(DropReason.SOURCE, "not the neighbour's address")
    if config.multihop != listener.multihop:
        raise PacketError(DropReason.PORT, f"on port {listener.port}")
    if config.interface not in ("", listener.interface):
        raise PacketError(DropReason.INTERFACE, f"not through {config.interface}")
    # RFC 5881 §5 and RFC 5082: 255 unless the configuration says otherwise.
    if config.max_hops != ANY_HOPS and origin.hop_limit + config.max_hops < config.expected_ttl:
        raise PacketError(DropReason.TTL, f"TTL {origin.hop_limit}")


def check_authentication(packet: ControlPacket) -> None:
    """RFC 5880 §6.8.6: a session without authentication discards what carries it."""
    if packet.authentication:
        raise PacketError(DropReason.AUTHENTICATION, "authentication is not in use")
