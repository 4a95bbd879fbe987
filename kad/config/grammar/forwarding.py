"""The value of lvs_method: how packets reach a server, and how tunnels encapsulate them."""

from __future__ import annotations

from typing import NamedTuple

from kad.config.grammar.endpoint import PORT_LIMIT
from kad.config.model.check import Forwarding, ForwardingMethod, TunnelChecksum, TunnelType
from kad.config.numbers import whole_number
from kad.config.schema import NOTHING, Frame, Kind, Reading
from kad.config.tree import Statement


def forwarding(field: str) -> Kind:
    """A method and, for tunnels, how they encapsulate; what was set before stays when options are wrong."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, "method")
            return NOTHING
        try:
            method = ForwardingMethod(statement.texts[1])
        except ValueError:
            reading.error(
                "bad-choice",
                f"'{statement.texts[0]}' cannot be '{statement.texts[1]}'; the line is ignored",
                frame,
                statement,
                1,
                remedy="NAT, DR or TUN",
            )
            return NOTHING
        before = frame.fields.get(field) or Forwarding()
        options = _tunnel(statement.texts)
        if isinstance(options, Tunnel):
            return Forwarding(method, *options)
        index, problem = options
        reading.error(
            "bad-tunnel",
            f"{problem}; the options of '{statement.texts[0]}' are ignored",
            frame,
            statement,
            index,
            remedy="[type ipip | type gue port N | type gre] [nocsum | csum | remcsum]",
        )
        return Forwarding(method, before.tunnel_type, before.tunnel_port, before.tunnel_checksum)

    return Kind("NAT / DR / TUN [type ipip / gue port N / gre] [nocsum / csum / remcsum]", read)


class Tunnel(NamedTuple):
    kind: TunnelType = TunnelType.IPIP
    port: int = 0
    checksum: TunnelChecksum = TunnelChecksum.NONE


def _tunnel(words: list[str]) -> Tunnel | tuple[int, str]:
    """The options from the third word on, or which word is wrong and why."""
    found = Tunnel()
    index = 2
    while index < len(words):
        option = words[index]
        value = words[index + 1] if index + 1 < len(words) else ""
        if option in _CHECKSUMS:
            found = found._replace(checksum=TunnelChecksum(option))
            index += 1
            continue
        if option not in ("type", "port"):
            return index, f"there is no tunnel option '{option}'"
        if not value:
            return index, f"'{option}' lacks its value"
        if option == "type":
            if value not in _TUNNEL_TYPES:
                return index + 1, f"there is no tunnel type '{value}'"
            found = found._replace(kind=TunnelType(value))
        elif (port := whole_number(value, PORT_LIMIT, 1)) is not None:
            found = found._replace(port=port)
        else:
            return index + 1, f"'{value}' is not a port"
        index += 2
    problem = _tunnel_problem(found)
    return (2, problem) if problem else found


_CHECKSUMS = tuple(each.value for each in TunnelChecksum)
_TUNNEL_TYPES = tuple(each.value for each in TunnelType)


def _tunnel_problem(tunnel: Tunnel) -> str:
    if (tunnel.kind is TunnelType.GUE) != (tunnel.port != 0):
        return "a gue tunnel needs a port, the others take none"
    if tunnel.kind is TunnelType.IPIP and tunnel.checksum is not TunnelChecksum.NONE:
        return "an ipip tunnel has no checksum"
    if tunnel.kind is TunnelType.GRE and tunnel.checksum is TunnelChecksum.REMOTE:
        return "a gre tunnel has no remote checksum"
    return ""
