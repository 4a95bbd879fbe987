"""Which addresses this machine has, for services that are only checked where their address is."""

from __future__ import annotations

from collections.abc import Callable

from kad.ipc.link import Reactor
from kad.kernel.batch import ReceiveBuffer
from kad.kernel.links import LinkTable
from kad.kernel.monitor import LinkMonitor


class LocalAddresses:
    """``told`` gets all of them, once they are known and whenever they changed."""

    def __init__(self, reactor: Reactor, told: Callable[[frozenset[str]], None]) -> None:
        self._reactor = reactor
        self._told = told
        self._by_link: dict[str, tuple[str, ...]] = {}
        self._known: frozenset[str] | None = None
        self._monitor: LinkMonitor | None = None

    def follow(self, wanted: bool, *, receive_buffer: ReceiveBuffer) -> None:
        """Begin to listen, or stop."""
        if wanted and self._monitor is None:
            self._monitor = LinkMonitor(LinkTable(), self._on_news)
            self._monitor.set_receive_buffer(receive_buffer)
            self._reactor.add_reader(self._monitor.fileno(), self._monitor.drain)
            self._monitor.resync()
        elif wanted and self._monitor is not None:
            self._monitor.set_receive_buffer(receive_buffer)
        elif not wanted:
            self.close()

    def close(self) -> None:
        if self._monitor is not None:
            self._reactor.remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
            self._by_link.clear()
            self._known = None

    def _on_news(self, _resynced: bool) -> None:
        assert self._monitor is not None
        table = self._monitor.table
        gone, links = table.changes()
        table.losses()  # not of interest here, and not to be kept
        for name in gone:
            self._by_link.pop(name, None)
        for link in links:
            self._by_link[link.name] = link.addresses
        addresses = frozenset(address for each in self._by_link.values() for address in each)
        if addresses != self._known:
            self._known = addresses
            self._told(addresses)
