"""Keeps the packet filter as the configuration and the interfaces ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kad.config.model.vrrp import VrrpConfiguration
from kad.kernel import nft_socket
from kad.kernel.nftables import Family
from kad_vrrp.core.events import LinkChanged, LinkRemoved
from kad_vrrp.core.packet_filter import (
    FilterSpec,
    commands,
    families,
    filter_spec,
    needs_filter,
    removal,
    table_of,
)
from kad_vrrp.io.virtual_links import Done, KernelThread

RETRY_S = 30.0
LOOK_S = 10.0
"""How often it is looked whether the tables are still there: many a firewall is loaded by flushing all."""


class PacketFilter:
    """One for the process. ``complain`` takes lines for people.

    Where nobody needs it, nothing is asked of nf_tables, which may not be there.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, thread: KernelThread, complain: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._thread = thread
        self._complain = complain
        self._configuration = VrrpConfiguration()
        self._links: dict[str, LinkChanged] = {}
        self._watched: frozenset[str] = frozenset()
        """Interfaces whose numbers are in the rules."""
        self._programmed = FilterSpec()
        """What was last asked of the kernel."""
        self._busy = False
        self._retry: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._closed = False
        self.error = ""
        """Why the rules are not in the kernel."""

    def concerns(self, instance: str) -> bool:
        """Does this instance lack something while there is an error?"""
        return any(each.name == instance and needs_filter(each) for each in self._configuration.instances)

    def configure(self, configuration: VrrpConfiguration, former: VrrpConfiguration) -> None:
        """What :meth:`program` is to put in place from now on.

        ``former``: of a generation whose end a former life may not have lived to see.
        """
        if not self._programmed:
            self._programmed = self._spec_of(former)
        self._configuration = configuration
        names = {name for link in configuration.virtual_links for name in (link.name, link.base)}
        refusing = (each for each in configuration.instances if each.no_accept)
        names |= {
            address.interface or each.interface
            for each in refusing
            for address in (*each.virtual_addresses, *each.excluded_addresses)
        }
        self._watched = frozenset(names)

    def heard(self, event: LinkChanged | LinkRemoved) -> None:
        if isinstance(event, LinkRemoved):
            self._links.pop(event.name, None)
            return
        self._links[event.name] = event
        if event.name in self._watched and not self._busy and not self._closed:
            self.program(lambda: None)

    def close(self, done: Done) -> None:
        """Nothing is left of it."""
        self._closed = True
        for timer in (self._retry, self._look):
            if timer is not None:
                timer.cancel()
        programmed, self._programmed = self._programmed, FilterSpec()
        if not programmed:
            done()
            return
        self._thread.run(lambda: nft_socket.commit(removal(programmed.settings)), done)

    def _spec_of(self, configuration: VrrpConfiguration) -> FilterSpec:
        settings = configuration.settings
        return filter_spec(
            settings.firewall,
            configuration.instances,
            configuration.virtual_links,
            self._links,
            local_igmp=not settings.disable_local_igmp,
        )

    def program(self, done: Done) -> None:
        """Have it in place, as far as the interfaces are there; then ``done``."""
        spec, before = self._spec_of(self._configuration), self._programmed
        if spec == before and not self.error:
            done()
            return
        self._programmed = spec
        wanted = commands(spec) if spec else []
        if before and (not spec or table_of(before.settings) != table_of(spec.settings)):
            wanted = [*removal(before.settings), *wanted]
        said: list[str] = []

        def finish() -> None:
            self._busy = False
            self._judge(said[0])
            self._plan_look()
            done()
            if not self._closed and self._spec_of(self._configuration) != self._programmed:
                self.program(lambda: None)

        self._busy = True
        self._thread.run(lambda: said.append(nft_socket.commit(wanted)), finish)

    def _judge(self, error: str) -> None:
        if error and error != self.error:
            self._complain(f"ERROR: the packet filter is not in place: {error}")
        self.error = error
        if error and self._retry is None and not self._closed:
            self._retry = self._loop.call_later(RETRY_S, self._try_again)

    def _plan_look(self) -> None:
        if self._look is None and self._programmed and not self._closed:
            self._look = self._loop.call_later(LOOK_S, self._look_after)

    def _look_after(self) -> None:
        self._look = None
        spec = self._programmed
        if not spec or self._closed:
            return
        name, missing = table_of(spec.settings), list[Family]()

        def look() -> None:
            missing.extend(family for family in families(spec) if nft_socket.lacks_table(family, name))

        def judge() -> None:
            if missing and not self.error and spec is self._programmed and not self._closed:
                self._complain(f"somebody removed the packet filter's table {name}; putting it back")
                self._programmed = FilterSpec(spec.settings)
                self.program(lambda: None)
            self._plan_look()

        self._thread.run(look, judge)

    def _try_again(self) -> None:
        self._retry = None
        if not self._busy:
            self.program(lambda: None)
