"""Rows of garp_group: announcements paced per interface or set of interfaces."""

from kad.config.schema import Block, Frame, Kind, Reading, Repeat, Row, opens
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, decimal, word


def _interface(reading: Reading, frame: Frame, statement: Statement) -> object:
    return statement.words[0].text


INTERFACES = Block(
    "garp_group/interfaces",
    (),
    item=Row("<IFNAME>", Kind("interface", _interface), "An interface that shares this pace."),
    close=lambda reading, frame: tuple(frame.items),
)

GARP_GROUP = Block(
    "garp_group",
    (
        Row("garp_interval", decimal(0, UNSIGNED_MAX), "Least gap between two gratuitous ARPs.", "garp_us"),
        Row(
            "gna_interval",
            decimal(0, UNSIGNED_MAX),
            "Least gap between two neighbour advertisements.",
            "gna_us",
        ),
        Row(
            "interface", word("interface", longest=15), "The one interface it is about.", repeat=Repeat.FIRST
        ),
        Row("interfaces", opens(INTERFACES), "Interfaces that share one pace.", repeat=Repeat.FIRST),
    ),
)
