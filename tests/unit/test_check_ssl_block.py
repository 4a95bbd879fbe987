"""The files of the SSL block: read beside the loop, whatever they are."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kad.config.model.check import SslContext
from kad_check.io import ssl_block
from kad_check.io.ssl_block import FILE_LIMIT, SslBlock
from kad_check.io.tls import client_context
from tests.support import servers
from tests.support.reactor import LoopReactor

HANGING = SslContext(password="hangs")


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reactor = LoopReactor()
        self.said: list[str] = []
        self.turns: list[ssl.SSLContext | str] = []
        self.reading = 0
        """How often HANGING has been begun."""
        self.release = threading.Event()
        self.threads: set[int] = set()
        self.block = SslBlock(self.reactor.loop, self._turned, self.said.append)
        monkeypatch.setattr(ssl_block, "client_context", self._client_context)

    def settle(self, settings: SslContext) -> None:
        """Configure it, and wait for what comes of it."""
        self.turns.clear()
        self.block.configure(settings)
        self.block.want()
        self.reactor.until(lambda: self.turns)

    def _turned(self) -> None:
        self.turns.append(self.block.context or self.block.problem)

    def _client_context(self, settings: SslContext | None, *warn: Callable[[str], None]) -> ssl.SSLContext:
        self.threads.add(threading.get_ident())
        if settings == HANGING:
            self.reading += 1
            assert self.release.wait(30)
        return client_context(settings, *warn)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(monkeypatch)
    yield made
    made.release.set()
    made.block.close()
    made.reactor.close()


def readable() -> SslContext:
    return SslContext(certificate_file=servers.certificate()[0], key_file=servers.certificate()[1])


def test_files_are_read_in_a_thread_and_only_where_they_are_wanted(bench: Bench) -> None:
    bench.block.configure(readable())
    bench.reactor.spin()
    assert not bench.threads
    bench.block.want()
    assert bench.block.context is None and not bench.block.problem
    bench.reactor.until(lambda: bench.block.context)
    assert bench.threads.isdisjoint({threading.get_ident()})


def test_without_a_block_there_is_nothing_to_wait_for(bench: Bench) -> None:
    bench.block.want()
    assert bench.block.context is not None
    bench.block.configure(readable())
    assert bench.block.context is None, "servers may want what it has to present"
    bench.block.configure(None)
    assert bench.block.context is not None
    bench.reactor.spin()
    assert not bench.turns, "what was read for nothing is not heard of"


def test_what_is_no_file_or_too_long_is_not_read(bench: Bench, tmp_path: Path) -> None:
    fifo, long = tmp_path / "fifo", tmp_path / "long"
    os.mkfifo(fifo)
    with long.open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    for path, reason in ((fifo, "regular file"), (long, "longer than"), (tmp_path / "none", "No such file")):
        for settings in (SslContext(ca_file=str(path)), SslContext(certificate_file=str(path))):
            bench.settle(settings)
            assert bench.block.context is None
            assert reason in bench.block.problem and str(path) in bench.block.problem


def test_what_was_read_before_goes_on_while_the_next_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl_block, "PATIENCE_S", 0.02)
    bench.settle(readable())
    before = bench.block.context
    bench.block.configure(HANGING)
    bench.reactor.until(lambda: bench.said)
    assert bench.said == ["the files of the SSL block are still being read; what was read before goes on"]
    assert bench.block.context is before
    bench.release.set()
    bench.reactor.until(lambda: bench.block.context is not before)


def test_a_reload_while_they_are_read_reads_them_once_more(bench: Bench) -> None:
    bench.block.want()
    for _ in range(3):
        bench.block.configure(HANGING)
    bench.reactor.until(lambda: bench.reading)
    bench.release.set()
    bench.reactor.until(lambda: len(bench.turns) == 2)
    bench.reactor.spin()
    assert (bench.reading, len(bench.turns)) == (2, 2)


def test_other_files_do_not_wait_for_those_that_hang(bench: Bench) -> None:
    bench.block.want()
    bench.block.configure(HANGING)
    bench.reactor.until(lambda: bench.reading)
    bench.settle(readable())
    found = bench.block.context
    assert found is not None
    bench.release.set()
    bench.reactor.spin()
    assert bench.block.context is found, "what came too late is not taken"
