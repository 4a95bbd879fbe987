"""Names of routing tables, protocols, scopes, realms and so on, as iproute2's files have them.

``FILE`` of the local directory, else of the vendor's; then the files of ``FILE.d``, where a local one takes
the place of the vendor's of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kad.config.numbers import c_integer

if TYPE_CHECKING:
    from kad.config.machine import Machine

USUAL_LOCAL = "/etc/iproute2"
USUAL_VENDOR = "/usr/share/iproute2"

TABLES = "rt_tables"
PROTOCOLS = "rt_protos"
SCOPES = "rt_scopes"
REALMS = "rt_realms"
CLASSES = "rt_dsfield"
GROUPS = "group"

_BUILT_IN: Mapping[str, Mapping[str, int]] = {
    TABLES: {"default": 253, "main": 254, "local": 255},
    PROTOCOLS: {
        "none": 0,
        "redirect": 1,
        "kernel": 2,
        "boot": 3,
        "static": 4,
        "gated": 8,
        "ra": 9,
        "mrt": 10,
        "zebra": 11,
        "bird": 12,
        "dnrouted": 13,
        "xorp": 14,
        "ntk": 15,
        "dhcp": 16,
        "keepalived": 18,
        "babel": 42,
    },
    SCOPES: {"global": 0, "universe": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255},
}
_ROUTING_DAEMONS = {99: "openr", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp"}
"""FRR's and others', as Linux's rtnetlink.h has them."""
_PROTOCOL_NAMES = {number: name for name, number in _BUILT_IN[PROTOCOLS].items()} | _ROUTING_DAEMONS
LARGEST = {
    TABLES: 0xFFFF_FFFF,
    PROTOCOLS: 255,
    SCOPES: 255,
    REALMS: 255,
    CLASSES: 255,
    GROUPS: 0x7FFF_FFFF,
}
"""Of the numbers of a kind, as keepalived has them."""


class UnknownName(Exception):
    """No file knows this name, or its number is too large."""


def protocol_name(number: int) -> str:
    """Who sets routes of this protocol, for people: ``16 (dhcp)``, or the number alone."""
    name = _PROTOCOL_NAMES.get(number)
    return f"{number} ({name})" if name else str(number)


class Names:
    """The names of one configuration, each file read once, when the first of its names is asked for.

    ``machine`` None: the text alone is judged, and every name may be one.
    """

    def __init__(self, machine: Machine | None, local: str = USUAL_LOCAL, vendor: str = USUAL_VENDOR) -> None:
        self._machine = machine
        self._directories = (local, vendor)
        self._known: dict[str, dict[str, int]] = {}

    def number(self, kind: str, text: str) -> int:
        """What ``text`` stands for: a number as it is, else a name. Raises :class:`UnknownName`."""
        value = c_integer(text)
        if value is None:
            value = self._table(kind).get(text)
        if value is None and self._machine is None:
            return 0
        if value is None or value > LARGEST[kind]:
            raise UnknownName(f"{kind} has no '{text}'")
        return value

    def _table(self, kind: str) -> dict[str, int]:
        if kind not in self._known:
            texts = self._machine.name_files(*self._directories, kind) if self._machine else ()
            self._known[kind] = _merged(kind, texts)
        return self._known[kind]


def _merged(kind: str, texts: tuple[str, ...]) -> dict[str, int]:
    """The first mention of a name counts; a built-in one holds where its number has no other name."""
    found: dict[str, int] = {}
    for text in texts:
        for name, number in parsed(text, LARGEST[kind]).items():
            found.setdefault(name, number)
    taken = set(found.values())
    for name, number in _BUILT_IN.get(kind, {}).items():
        if number not in taken:
            found.setdefault(name, number)
    return found


def parsed(text: str, largest: int) -> dict[str, int]:
    """Name -> number of one file; lines that are not NUMBER NAME mean nothing."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) != 2:
            continue
        number = c_integer(words[0])
        if number is not None and number <= largest:
            found.setdefault(words[1], number)
    return found
