"""keepalived and kad with the same random virtual servers, side by side: what each does at every step.

    with Trial(seed, place, sides) as trial:
        trial.run()                 # differences, in words

Each side is a namespace of its own with every server on its loopback. They agree when the tables are the
same, and each server, quorum and pipe was told the same things in the same order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from kad.control.status import DaemonStatus
from kad.ipc.client import NoAnswer, NoDaemon, ask
from kad.ipc.messages import StatusAnswer, StatusQuery
from tests.support.control import pids_of
from tests.support.daemon import Daemon, Kad
from tests.support.dialogues import Tls, dns, http, smtp
from tests.support.fifo import Reader
from tests.support.lvs import Farm
from tests.support.lvs_random import RandomSite, Target, prepare
from tests.support.namespaces import Node, wait_until

DEAD = "-2147483648\n"
_NOWHERE = ("script", "dynamic", "file")
"""What needs no address."""
Table = Callable[[], list[str]]
Seen = tuple[tuple[str, ...], tuple[str, ...]]
"""The table, and what was told."""


class Side:
    """One daemon, the servers around it, and what it tells."""

    def __init__(self, node: Node, place: Path, daemon: Daemon, table: Table, farm: Farm, tls: Tls) -> None:
        self.node, self.place, self.daemon, self.table = node, place, daemon, table
        self._farm, self._tls = farm, tls
        self.answering: set[Target] = set()
        self._known: set[Target] = set()
        self._here: set[str] = set()
        self._mute: set[tuple[str, int]] = set()
        """Where connections are accepted, and no more."""
        self._read = 0
        os.mkfifo(place / "pipe")
        (place / "told").touch()
        self._pipe = Reader(place / "pipe")

    def configure(self, text: str) -> None:
        self.daemon.configure(text.replace("@", str(self.place)))

    def surround(self, site: RandomSite, answering: set[Target]) -> None:
        """All the addresses, and these servers at them."""
        away = {t.address for t in site.targets - answering if t.kind == "ping"}
        wanted = site.addresses - away
        # Nobody can be bound to an address that is not there.
        for target in self.answering - answering:
            self._close(target)
        lines = [f"addr add {_of(a)} dev lo{' nodad' if ':' in a else ''}" for a in wanted - self._here]
        lines += [f"addr del {_of(a)} dev lo" for a in self._here - wanted]
        if lines:
            batch = self.place / "addresses"
            batch.write_text("\n".join(lines) + "\n")
            self.node.ip("-batch", str(batch))
        self._here = wanted
        for target in answering - self.answering:
            self._open(target)
        for target in site.targets - answering - self.answering - self._known:
            self._close(target)
        self._known |= site.targets
        self.answering = set(answering)

    def _open(self, target: Target) -> None:
        serve, node, (kind, address, port) = self._farm.serve, self.node, _parts(target)
        if (address, port) in self._mute and kind not in (*_DATAGRAMS, *_NOWHERE):
            self._mute.remove((address, port))
            self._farm.stop(node, address, port)
        match kind:
            case "tcp":
                serve(node, address, port, "it")
            case "http" | "smtp" | "tls":
                dialogue = {"http": http, "smtp": smtp, "tls": self._tls}[kind]
                serve(node, address, port, "it", dialogue=dialogue)
            case "udp":
                serve(node, address, port, "it", socket.SOCK_DGRAM)
            case "dns":
                serve(node, address, port, "it", socket.SOCK_DGRAM, reply=dns)
            case "script" | "dynamic":
                (self.place / f"dead-{address}").unlink(missing_ok=True)
            case "file":
                (self.place / address).write_text("1\n")

    def _close(self, target: Target) -> None:
        kind, address, port = _parts(target)
        match kind:
            case "script" | "dynamic":
                (self.place / f"dead-{address}").touch()
            case "file":
                (self.place / address).write_text(DEAD)
            case "ping":
                pass
            case _ if target in self.answering:
                datagram = kind in _DATAGRAMS
                self._farm.stop(self.node, address, port, _KIND[datagram])
                if address in self._here and kind in _TALKING and zlib.crc32(str(target).encode()) & 1:
                    # One that has died as hung servers do.
                    self._farm.serve(self.node, address, port, "it", dialogue=_say_nothing)
                    self._mute.add((address, port))

    def weigh(self, target: Target, value: int) -> None:
        """What its file or script says is another weight from now on."""
        if target.kind == "dynamic":
            (self.place / f"status-{target.address}").write_text(str(value))
        elif target in self.answering:
            (self.place / target.address).write_text(f"{value}\n")

    def told(self) -> dict[str, list[str]]:
        """Since the last call, of each who was told: what, in order."""
        found = defaultdict(list)
        lines = (self.place / "told").read_text().splitlines() + self._pipe.data.decode().splitlines()
        for line in lines:
            who, _, what = line.rpartition(" ")
            found[who].append(what)
        return dict(found)

    def forget_told(self) -> None:
        (self.place / "told").write_text("")
        self._pipe.forget()

    def close(self) -> None:
        self.daemon.close()
        self._pipe.close()


_TALKING = ("http", "tls", "smtp")
_DATAGRAMS = ("udp", "dns")
_KIND = {False: socket.SOCK_STREAM, True: socket.SOCK_DGRAM}


def _say_nothing(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(30)
        while connection.recv(4096):
            pass


def _of(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _parts(target: Target) -> tuple[str, str, int]:
    return target.kind, target.address, target.port


class Trial:
    """``make(label, place)``: a side."""

    def __init__(self, seed: int, place: Path, make: Callable[[str, Path], Side], **how: Any) -> None:
        self._random = Random(seed)
        self._patience_s = how.pop("patience_s", 40)
        self._place = place
        self.site = RandomSite(seed, Path("@"), **how)
        self.differences: list[str] = []
        self._sides = []
        for label in ("kad", "keepalived"):
            directory = place / label
            directory.mkdir()
            prepare(directory)
            self._sides.append(make(label, directory))
        self.kad, self.keepalived = self._sides

    def run(self) -> list[str]:
        """Everything there is to see, in words; empty: no difference."""
        try:
            self._live()
        finally:
            for side in self._sides:
                side.close()
        return self.differences

    def _live(self) -> None:
        site = self.site
        self._surround(self._but(site.targets, 0.25))
        for side in self._sides:
            side.configure(site.text())
        for side in self._sides:
            side.daemon.start()
        # Where some servers are taken for down and others for up, what a quorum goes through is luck.
        self._compare("start", servers_only=True)
        self._surround(self._but(self.kad.answering, 0.4))
        self._compare("deaths")
        self._weigh()
        self._compare("other weights", servers_only=True)
        self._surround(set(site.targets))
        self._compare("returns", servers_only=True)
        self._reload("reload")
        self._surround(self._but(self.kad.answering, 0.4))
        self._compare("deaths after the reload")
        self._kill_checker()
        self._compare("a checker killed")
        self._reload("second reload")
        self._surround(set(site.targets))
        self._compare("returns after it")
        for side in self._sides:
            status = side.daemon.stop(60)
            if status:
                self.differences.append(f"end: {side.daemon.program} left with {status}")
        self._compare("end", alive=False, tables=False)
        # keepalived's may not be: it forgets services of groups, after some reloads.
        self.differences += [f"end: left by kad: {line}" for line in self.kad.table()]

    def _reload(self, when: str) -> None:
        before = self.kad.answering
        self.site.change()
        fresh = {t for t in self.site.targets - before if self._random.random() < 0.8 or t.kind == "file"}
        self._surround(before | fresh)
        for side in self._sides:
            side.configure(self.site.text())
        for side in self._sides:
            if isinstance(side.daemon, Kad):
                side.daemon.reload_surely(self._patience_s)
            else:
                side.daemon.reload()
        # keepalived tells DOWN of what it holds to be up, by the quorum there was before, and the like.
        self._compare(when, told=False)

    def _kill_checker(self) -> None:
        """kad's: the next one goes on, and tells nobody anything."""
        assert isinstance(self.kad.daemon, Kad)
        before = pids_of(self.kad.daemon)["check"]
        os.kill(before, signal.SIGKILL)
        patience_s = self._patience_s
        assert wait_until(lambda: self._checker() not in (0, before), patience_s, every=0.05) is not None

    def _checker(self) -> int:
        assert isinstance(self.kad.daemon, Kad)
        return pids_of(self.kad.daemon).get("check", 0)

    def _weigh(self) -> None:
        for target in sorted(self.site.targets):
            if target.kind in ("file", "dynamic") and self._random.random() < 0.7:
                value = self._random.choice((2, 3, 20))
                for side in self._sides:
                    side.forget_told()
                    side.weigh(target, value)

    def _but(self, targets: set[Target], share: float) -> set[Target]:
        """All of them but some."""
        # A server whose file forbids it at the start has no weight with keepalived until a reload.
        fixed, wanted = not self.kad.answering, self.site.targets
        return {
            t
            for t in sorted(targets & wanted)
            if self._random.random() >= share or (fixed and t.kind == "file")
        }

    def _surround(self, answering: set[Target]) -> None:
        """Who does not answer pings has no address, for anybody."""
        away = {t.address for t in self.site.targets - answering if t.kind == "ping"}
        answering = {t for t in answering if t.address not in away or t.kind in _NOWHERE}
        for side in self._sides:
            side.forget_told()
            side.surround(self.site, answering)

    # Looking ---------------------------------------------------------------------------------------------

    def _compare(
        self,
        when: str,
        *,
        alive: bool = True,
        tables: bool = True,
        told: bool = True,
        servers_only: bool = False,
    ) -> None:
        """``alive``: kad holds those servers for up that should be. The others: what is to be the same."""
        compared = [n for n, wanted in enumerate((tables, told)) if wanted]
        if alive and wait_until(self._kad_has_seen, self._patience_s, every=0.3) is None:
            wanted, found = self._wanted(), self._found()
            wrong = [
                f"{k}: {wanted.get(k)} wanted, {found.get(k)} up" for k in wanted if wanted[k] != found.get(k)
            ]
            self.differences.append(f"{when}: kad has not seen: {wrong}")
        last: tuple[Seen, Seen] = (((), ()), ((), ()))

        def same() -> bool:
            nonlocal last
            before, last = (
                last,
                (self._seen(self.kad, servers_only), self._seen(self.keepalived, servers_only)),
            )
            return before == last and all(last[0][n] == last[1][n] for n in compared)

        if wait_until(same, self._patience_s, every=0.7) is not None:
            return
        ours, theirs = last
        for what in compared:
            self.differences += [f"{when}: kad only: {line}" for line in _less(ours[what], theirs[what])]
            self.differences += [
                f"{when}: keepalived only: {line}" for line in _less(theirs[what], ours[what])
            ]

    def _seen(self, side: Side, servers_only: bool) -> Seen:
        told = [
            f"{who}: {' '.join(what)}"
            for who, what in sorted(side.told().items())
            if not servers_only or who.startswith(("RS ", "server "))
        ]
        return tuple(side.table()), tuple(told)

    def _wanted(self) -> dict[int, int]:
        return self.site.alive(self.kad.answering)

    def _found(self) -> dict[int, int]:
        report = self._report()
        servers = (report or {}).get("virtual_servers", ())
        wanted = self._wanted()
        alive = (sum(s["alive"] for s in each.get("real_servers", ())) for each in servers)
        return {n: up for n, up in enumerate(alive) if n in wanted}

    def _kad_has_seen(self) -> bool:
        return self._wanted() == self._found()

    def _report(self) -> Any:
        with contextlib.suppress(NoDaemon, NoAnswer):
            answer = ask(f"{self.kad.daemon.directory}/run", StatusQuery("trial"), 5)
            if isinstance(answer, StatusAnswer):
                return msgspec.msgpack.decode(answer.status, type=DaemonStatus).reports.get("check")
        return None


def _less(some: Iterable[str], others: Iterable[str]) -> list[str]:
    return sorted(set(some) - set(others))
