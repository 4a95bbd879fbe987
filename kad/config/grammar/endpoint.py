"""Addresses and ports of servers and of the connections that examine them, as their keywords spell them."""

from __future__ import annotations

from msgspec import Struct

from kad.addresses import is_canonical_ipv4, parse_address
from kad.config.schema import NOTHING, Frame, Kind, Reading
from kad.config.tree import Statement
from kad.config.values import number_of
from kad.errors import ExitStatus

PORT_LIMIT = 65535


class Endpoint(Struct, frozen=True):
    """An address as canonical text with its port; 0: none."""

    address: str
    port: int = 0


def host_address(reading: Reading, frame: Frame, statement: Statement, index: int) -> str | None:
    """Word ``index`` as an address; None after reporting. A range or prefix after it is dropped, and said."""
    text = statement.texts[index]
    if is_canonical_ipv4(text):
        return text
    cut = min((place for place in (text.find("-"), text.find("/")) if place >= 0), default=len(text))
    found = parse_address(text[:cut])
    if found is None:
        reading.error(
            "bad-address",
            f"'{statement.texts[0]}': '{text}' is not an address; it is ignored",
            frame,
            statement,
            index,
        )
        return None
    if cut < len(text):
        reading.warning(
            "address-tail",
            f"'{text[cut:]}' after the address is ignored: {found} is used",
            frame,
            statement,
            index,
            remedy=f"write {found}",
            status=ExitStatus.OK,
        )
    return found


def port_of(reading: Reading, frame: Frame, statement: Statement, index: int) -> int | None:
    """Word ``index`` as a port; 0 when it is absent or only zeros, which has always meant none."""
    if len(statement.texts) <= index or not statement.texts[index].strip("0"):
        return 0
    return number_of(reading, frame, statement, index, 1, PORT_LIMIT)


def read_endpoint(reading: Reading, frame: Frame, statement: Statement) -> Endpoint | None:
    """``KEYWORD ADDRESS [PORT]``; None after reporting."""
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "address")
        return None
    port = port_of(reading, frame, statement, 2)
    address = host_address(reading, frame, statement, 1)
    return None if address is None or port is None else Endpoint(address, port)


def host(what: str = "address") -> Kind:
    """One address; a range or prefix after it is dropped."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, what)
            return NOTHING
        found = host_address(reading, frame, statement, 1)
        return NOTHING if found is None else found

    return Kind(what, read, takes=1)
