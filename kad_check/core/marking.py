"""nftables_ipvs: the addresses of a group are one service in the kernel, a firewall mark. Pure.

Each group has a mark for each protocol it is served with. It keeps it for as long as it is configured, over
reloads and restarts, so that its service goes on; a mark that was given up is not given out again.
"""

from __future__ import annotations

from collections.abc import Mapping

from kad.config.model.check import CheckConfiguration, Protocol, VirtualServer, VirtualServerGroup
from kad_check.core.actions import Forget, LogLevel, MarkedRange, MarkTraffic, Remember
from kad_check.core.context import Context
from kad_check.core.events import MarkingDone
from kad_check.core.record import MARKS_KEY, RECORD_VERSION, MarksRecord, decode, encode


class Marking:
    """``remembered``: the journal's records, read at birth."""

    def __init__(self, context: Context, remembered: Mapping[str, bytes]) -> None:
        self._context = context
        found = decode(remembered.get(MARKS_KEY), MarksRecord)
        record = found if isinstance(found, MarksRecord) else MarksRecord(RECORD_VERSION, 0, {}, "")
        self._next = record.next_mark
        self._marks = record.marks
        """By group and protocol."""
        self._table = record.table
        """Where the rules are; empty: nowhere."""
        self._ranges: tuple[MarkedRange, ...] | None = None if record.table else ()
        """What the rules say; None: what a former life wrote."""
        self._wanted: tuple[MarkedRange, ...] = ()
        self._priority = 0
        self._put_priority = 0
        """The chain's, when the rules were last told; a chain cannot change its own."""
        self._awaited = 0

    @property
    def awaiting(self) -> bool:
        """The kernel has not answered yet."""
        return bool(self._awaited)

    def configure(self, configuration: CheckConfiguration) -> None:
        """Give marks to the groups of this configuration. Before :meth:`mark_of`."""
        settings = configuration.settings
        groups = {group.name: group for group in configuration.groups}
        marks: dict[str, int] = {}
        ranges: list[MarkedRange] = []
        self._next = max(self._next, settings.start_fwmark)
        for server in configuration.virtual_servers:
            group = groups.get(server.group)
            if not settings.nftables or not _is_marked(group) or server.protocol is None:
                continue
            name = _name(server)
            if name not in marks:
                marks[name] = self._marks.get(name) or self._new_mark()
                ranges += _ranges(group, server.protocol, marks[name])
        self._marks, self._wanted = marks, tuple(ranges)
        self._priority = settings.nftables_priority
        if settings.nftables:
            self._table = settings.nftables
            self._remember()

    def _new_mark(self) -> int:
        self._next += 1
        return self._next - 1

    def _remember(self) -> None:
        record = MarksRecord(RECORD_VERSION, self._next, self._marks, self._table)
        self._context.emit(Remember(MARKS_KEY, encode(record)))

    def mark_of(self, server: VirtualServer, group: VirtualServerGroup | None) -> int:
        """What stands for its addresses; 0: nothing does."""
        return self._marks.get(_name(server), 0) if _is_marked(group) else 0

    def put(self) -> None:
        """Have the rules say what is wanted, once its services are there. Answered by MarkingDone."""
        if self._is_put or not self._table:
            return
        self._ranges, self._put_priority = self._wanted, self._priority
        self._awaited = self._context.next_serial()
        self._context.emit(MarkTraffic(self._awaited, self._table, self._priority, self._wanted))

    @property
    def _is_put(self) -> bool:
        """Without ranges there is no chain that could have another priority."""
        same_chain = not self._wanted or self._priority == self._put_priority
        return self._wanted == self._ranges and same_chain

    def withdraw(self) -> None:
        """The daemon stops."""
        self._wanted = ()
        self.put()
        if self._table:
            self._context.emit(Forget(MARKS_KEY))

    def done(self, event: MarkingDone) -> None:
        if event.serial != self._awaited:
            return
        self._awaited = 0
        if event.failure:
            self._ranges = None  # the next reload tries again
            text = f"groups are not marked, and get no clients: {event.failure}"
            self._context.log(text, LogLevel.ERROR)


def _is_marked(group: VirtualServerGroup | None) -> bool:
    """As with keepalived: one that has marks of its own keeps its addresses as services."""
    return group is not None and bool(group.ranges) and not group.fwmarks


def _name(server: VirtualServer) -> str:
    return f"{server.group} {server.protocol}"


def _ranges(group: VirtualServerGroup | None, protocol: Protocol, mark: int) -> list[MarkedRange]:
    assert group is not None
    return [MarkedRange(each.first, each.last, each.port, protocol, mark) for each in group.ranges]
