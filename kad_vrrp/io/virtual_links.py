"""Keeps the interfaces of the instances' own there: made before they are needed, removed when they are not.

The kernel is asked in one thread of its own, in order; here is only decided what is to be done. An interface
whose base comes later is made when it comes; one that somebody else removed is made again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kad.addresses import is_link_local
from kad.config.model.vrrp import VirtualLink
from kad.runtime.clock import monotonic_us
from kad_vrrp.core.events import LinkChanged, LinkRemoved
from kad_vrrp.io import link_maker
from kad_vrrp.io.sysctls import Sysctls, interface_setting, read

SWITCH_INTERVAL_S = 0.0005
FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 30.0
CALM_US = 60_000_000
"""After so long without one, the next retry is quick again."""
SOURCE_POLL_S = 0.002
SOURCE_POLLS = 50
"""How long to wait for word of the address that adverts leave from."""
_BASE_SETTINGS = ("arp_ignore", "arp_filter")
_REVERSE_PATH = "rp_filter"

Done = Callable[[], None]


class KernelThread:
    """The thread that may wait for the kernel. Work is done in order; what fails there ends the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], object], done: Done) -> None:
        """``done`` is called in the loop."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "kernel")
            # The loop waits for the interpreter no longer than this while the thread works.
            sys.setswitchinterval(SWITCH_INTERVAL_S)

        def finish(future: asyncio.Future[object]) -> None:
            future.result()
            done()

        self._loop.run_in_executor(self._executor, work).add_done_callback(finish)


class VirtualLinks:
    """``catch_up`` reads everything the kernel has said so far; ``complain`` takes lines for people.

    ``before_up``: what has to be there before an interface says its first word; it calls back. ``on_turned``:
    an interface could not be made, or can be used again; :attr:`failures` says which.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: KernelThread,
        sysctls: Sysctls,
        catch_up: Done,
        complain: Callable[[str], None],
        on_turned: Callable[[str], None],
        before_up: Callable[[Done], None],
    ) -> None:
        self._loop = loop
        self._thread = thread
        self._sysctls = sysctls
        self._catch_up = catch_up
        self._complain = complain
        self._on_turned = on_turned
        self._before_up = before_up
        self._wanted: dict[str, VirtualLink] = {}
        self._made: dict[str, VirtualLink] = {}
        """Those that may be there by our doing, wanted or not any more."""
        self._bases: dict[str, tuple[int, int]] = {}
        """Interfaces that are there: index and master."""
        self._addresses: dict[str, tuple[str, ...]] = {}
        """What adverts may leave from, by interface."""
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = FIRST_RETRY_S
        self._retried_at_us = -CALM_US
        self._closing = False
        self.failures: dict[str, str] = {}
        """Interface -> why it could not be made. Whatever has that name is not to be used."""

    def configure(self, links: Iterable[VirtualLink], former: Iterable[VirtualLink], done: Done) -> None:
        """Have these there; ``done`` when that was tried and all news of it is read.

        ``former``: of a generation whose end a former life may not have lived to see.
        """
        before = self._wanted
        self._wanted = {link.name: link for link in links}
        there = self._made | {link.name: link for link in former}
        self._made = there | self._wanted
        self.failures = {name: why for name, why in self.failures.items() if name in self._wanted}
        fresh = [link for name, link in self._wanted.items() if before.get(name) != link]
        aside = link_maker.in_the_way(there.values(), fresh, self._wanted)
        if aside:
            self._thread.run(lambda: link_maker.move_aside(aside), lambda: None)
        if fresh:
            self._make(fresh, done)
        else:
            done()

    def retire(self) -> None:
        """Nothing uses what is not wanted any more."""
        unwanted = [link for name, link in self._made.items() if name not in self._wanted]
        self._made = dict(self._wanted)
        if unwanted:
            self._remove(unwanted, lambda: None)
        if not self._closing:
            self._release_settings()

    def close(self, done: Done) -> None:
        """Remove every one, put the settings back, then ``done``."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        made, self._made, self._wanted = self._made, {}, {}
        if not made:
            done()
            return

        def finish() -> None:
            self._release_settings()
            done()

        self._remove(list(made.values()), finish)

    def heard(self, event: LinkChanged | LinkRemoved) -> None:
        """News of any interface."""
        if isinstance(event, LinkRemoved):
            self._lost(event.name)
            return
        known = self._bases.get(event.name)
        self._bases[event.name] = event.index, event.master
        self._addresses[event.name] = event.addresses
        if known == (event.index, event.master) or event.name in self._wanted:
            return
        above = [link for link in self._wanted.values() if link.base == event.name]
        if above and not self._closing:
            # New, or in another VRF than before.
            self._make(above, lambda: None)

    def _lost(self, name: str) -> None:
        self._bases.pop(name, None)
        self._addresses.pop(name, None)
        self._sysctls.forget(interface_setting(name, key) for key in (*_BASE_SETTINGS, _REVERSE_PATH))
        link = self._wanted.get(name)
        if link is not None and not self._closing:
            self._plan_retry()

    # Work ------------------------------------------------------------------------------------------------

    def _make(self, links: list[VirtualLink], done: Done) -> None:
        self._hold_settings()

        failures: dict[str, str] = {}

        def made() -> None:
            self._catch_up()
            self._before_up(raise_them)

        def raise_them() -> None:
            able = [link for link in links if link.name not in failures]
            self._thread.run(lambda: failures.update(link_maker.raise_(able)), finish)

        def finish() -> None:
            self._await_sources([link for link in links if link.name not in failures], judge, SOURCE_POLLS)

        def judge() -> None:
            self._judge(links, failures)
            done()

        self._thread.run(lambda: failures.update(link_maker.make(links)), made)

    def _await_sources(self, links: list[VirtualLink], done: Done, polls: int) -> None:
        """The kernel tells of a new IPv6 address milliseconds later: without it an instance would begin with
        a FAULT. ``done`` when all are known, or cannot be expected any more.
        """
        self._catch_up()
        awaited = [link for link in links if link.mac and link.has_ipv6 and link.link_local]
        if polls and any(not self._has_source(link) for link in awaited if link.name in self._bases):
            self._loop.call_later(SOURCE_POLL_S, self._await_sources, links, done, polls - 1)
        else:
            done()

    def _has_source(self, link: VirtualLink) -> bool:
        present = self._addresses.get(link.name, ())
        return link.source in present if link.source else any(map(is_link_local, present))

    def _judge(self, links: list[VirtualLink], failures: dict[str, str]) -> None:
        for link in links:
            reason = failures.get(link.name)
            if reason is None:
                if self.failures.pop(link.name, None) is not None:
                    self._on_turned(link.name)
            elif link.name in self._wanted and self.failures.get(link.name) != reason:
                self._complain(reason)
                self.failures[link.name] = reason
                self._on_turned(link.name)
        if self.failures:
            self._plan_retry()

    def _remove(self, links: list[VirtualLink], done: Done) -> None:
        failures: dict[str, str] = {}

        def finish() -> None:
            for reason in failures.values():
                self._complain(reason)
            done()

        self._thread.run(lambda: failures.update(link_maker.remove(links)), finish)

    def _plan_retry(self) -> None:
        if self._retry is None and not self._closing:
            if monotonic_us() - self._retried_at_us > CALM_US:
                self._retry_s = FIRST_RETRY_S
            self._retry = self._loop.call_later(self._retry_s, self._try_again)
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)

    def _try_again(self) -> None:
        self._retry = None
        self._retried_at_us = monotonic_us()
        missing = [link for name, link in self._wanted.items() if name not in self._bases]
        failed = [link for name, link in self._wanted.items() if name in self.failures]
        links = list({link.name: link for link in (*missing, *failed)}.values())
        if links:
            self._make(links, lambda: None)

    # Settings of other interfaces ------------------------------------------------------------------------

    def _hold_settings(self) -> None:
        """keepalived's: the base must not answer ARP for what is on top of it, and packets that come in on
        one and are answered on the other are no forgeries.
        """
        vmacs = [link for link in self._wanted.values() if link.mac]
        if any(link.family == 4 for link in vmacs):
            self._move_reverse_path_filter()
        for base in {link.base for link in vmacs if link.family == 4}:
            for key in _BASE_SETTINGS:
                self._sysctls.hold(interface_setting(base, key), 1)

    def _move_reverse_path_filter(self) -> None:
        """From ``all``, which holds for every interface, to each of them, so that ours may be without."""
        everywhere = interface_setting("all", _REVERSE_PATH)
        value = int(read(everywhere) or b"0")
        if value == 0:
            return
        interfaces = sorted(path.name for path in Path("/proc/sys/net/ipv4/conf").iterdir())
        for name in ("default", *(each for each in interfaces if each not in ("all", "default"))):
            path = interface_setting(name, _REVERSE_PATH)
            if name not in self._wanted and int(read(path) or b"0") < value:
                self._sysctls.hold(path, value)
        self._sysctls.hold(everywhere, 0)

    def _release_settings(self) -> None:
        bases = {link.base for link in self._wanted.values() if link.mac and link.family == 4}
        kept = {interface_setting(base, key) for base in bases for key in _BASE_SETTINGS}
        for path in reversed(self._sysctls.held):
            name = path.rpartition("/")[2]
            if (name == _REVERSE_PATH and not bases) or (name in _BASE_SETTINGS and path not in kept):
                self._sysctls.release(path)
