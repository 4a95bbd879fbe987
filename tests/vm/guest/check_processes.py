"""Tracked processes where the kernel tells of them, which it does here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.test_words_side_by_side import buffers_of
from tests.netns.test_track_probes import (  # noqa: F401  (fixtures, and tests to be run here)
    loop,
    processes,
    test_another_pattern_is_told_its_own_count_only,
    test_counted_by_the_kernels_events,
    test_forks_count_at_once_and_threads_never,
)
from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

PATIENCE_S = 180


def test_an_instance_follows_them(network: Network, tmp_path: Path) -> None:
    program = tmp_path / f"kt{os.getpid()}"
    shutil.copy("/bin/sleep", program)
    node, observer = network.node("kad"), network.node("observer")
    network.pair(node, observer)
    node.ip("addr", "add", "192.0.2.1/24", "dev", "eth0")
    text = configuration(
        f"vrrp_track_process many {{\nprocess {program.name}\nquorum 1\nquorum_max 2\nweight 20\n}}\n",
        vrrp_instance(version=3, advert_int=0.5, extra=("track_process {", "many", "}")),
    )
    running: list[subprocess.Popen[bytes]] = []
    with Capture(observer, "eth0") as wire, Kad(node, text) as kad:

        def advertises(priority: int) -> None:
            poll(
                lambda: wire.adverts() and wire.adverts()[-1].priority == priority,
                lambda: f"{priority}: {kad.said()}",
                seconds=PATIENCE_S,
                every=0.1,
            )

        try:
            advertises(100)
            for priority in (120, 120, 100):
                running.append(subprocess.Popen([program, "1000"]))
                advertises(priority)
            running[0].kill()
            advertises(120)
            assert kad.count("looking at all processes") == 0, "the kernel tells"
        finally:
            for each in running:
                each.kill()
                each.wait()


# Beside keepalived --------------------------------------------------------------------------------------

TRACKED = {
    # Name: what is tracked, how it weighs.
    "quorum": ("process {quorum}", "quorum 2", "quorum_max 3", "weight 20"),
    "forks": ("process {forks}", "quorum 2", "weight 21"),
    "exact": ("process {exact} 1000", "weight 22"),
    "initial": ("process {initial} 10", "param_match initial", "weight 23"),
    "command": ("process {command} 1000", "full_command", "weight 24"),
    "delayed": ("process {delayed}", "terminate_delay 4", "fork_delay 2", "weight 25"),
    "needed": ("process {needed}",),
    "renamed": ("process renamed-{pid}", "weight -26"),
}
VRIDS = {name: number for number, name in enumerate(TRACKED, 61)}
RENAME = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); import signal; signal.pause()"
CALM_S = 6
"""Longer than any delay: then what is advertised has come to rest."""
Priorities = dict[str, int]


class FirstNamespace(Node):
    """Where this process is: the kernel tells keepalived of processes nowhere else."""

    def __init__(self) -> None:
        self.label = self.name = "first"
        self.processes = []
        self.descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Story:
    """Processes come, fork, rename themselves and go; noted is what is advertised each time."""

    def __init__(self, place: Path, wire: Capture) -> None:
        self.names = {name: f"kt{name[:7]}{os.getpid()}" for name in TRACKED}
        self.place, self.wire = place, wire
        for name, program in self.names.items():
            shutil.copy("/bin/dash" if name == "forks" else "/bin/sleep", place / program)
        self.running: dict[str, list[subprocess.Popen[bytes]]] = {}

    def text(self) -> str:
        # Where parameters or whole commands are compared it is argv[0], else the short name.
        long = ("exact", "initial", "command")
        programs = {name: str(self.place / n) if name in long else n for name, n in self.names.items()}
        blocks = []
        for name, lines in TRACKED.items():
            said = "\n".join(lines).format(pid=os.getpid(), **programs)
            blocks.append(f"vrrp_track_process {name} {{\n{said}\n}}\n")
            blocks.append(
                vrrp_instance(
                    name.upper(),
                    interface="kt0",
                    vrid=VRIDS[name],
                    version=3,
                    advert_int=0.5,
                    addresses=[f"192.0.2.{VRIDS[name]}/32"],
                    extra=("track_process {", name, "}"),
                )
            )
        return configuration(*blocks)

    def start(self, name: str, *words: str) -> None:
        argv = [str(self.place / self.names[name]), *(words or ("1000",))]
        if name == "renamed":
            argv = [sys.executable, "-c", RENAME, f"renamed-{os.getpid()}"]
        self.running.setdefault(name, []).append(subprocess.Popen(argv, process_group=0))

    def kill(self, name: str) -> None:
        process = self.running[name].pop(0)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def advertised(self) -> Priorities:
        """By instance; those that speak."""
        since_us = (time.time() - 2) * 1_000_000
        latest = {a.vrid: a.priority for a in self.wire.adverts() if a.time_us > since_us}
        return {name: latest[vrid] for name, vrid in VRIDS.items() if latest.get(vrid)}

    def at_rest(self) -> Priorities:
        found, since = self.advertised(), time.monotonic()

        def calm() -> bool:
            nonlocal found, since
            if (now := self.advertised()) != found:
                found, since = now, time.monotonic()
            return time.monotonic() - since > CALM_S

        poll(calm, "priorities to come to rest", seconds=PATIENCE_S, every=0.2)
        return found

    def tell(self) -> Iterator[Priorities]:
        yield self.at_rest()
        for name in TRACKED:
            self.start(name)
        # Two more of the same program, which do not count.
        self.start("exact", "1001")
        self.start("command", "1000", "1")
        yield self.at_rest()
        self.start("quorum")
        self.kill("needed")
        self.kill("delayed")
        self.start("delayed")
        yield self.at_rest()
        for _ in range(2):
            self.start("quorum")
        self.start("forks", "-c", "(while :; do /bin/sleep 1000; done) & wait")
        self.start("needed")
        yield self.at_rest()
        for name in ("quorum", "exact", "initial", "command", "delayed", "renamed"):
            self.kill(name)
        yield self.at_rest()
        for name in list(self.running):
            while self.running[name]:
                self.kill(name)
        yield self.at_rest()


@pytest.fixture
def wire(network: Network) -> Iterator[Capture]:
    observer = network.node("observer")
    words = ["ip", "link", "add", "kt0", "type", "veth", "peer", "name", "eth0", "netns", observer.name]
    subprocess.run(words, check=True)
    observer.set_link("eth0", "up")
    subprocess.run(["ip", "link", "set", "kt0", "up"], check=True)
    subprocess.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "kt0"], check=True)
    with Capture(observer, "eth0") as made:
        yield made
    subprocess.run(["ip", "link", "del", "kt0"], check=True)


def test_the_same_priorities_as_keepaliveds(tmp_path: Path, wire: Capture) -> None:
    told: dict[str, list[Priorities]] = {}
    for program in (Keepalived, Kad):
        place = tmp_path / program.__name__
        place.mkdir()
        story = Story(place, wire)
        wire.clear()
        with program(FirstNamespace(), story.text()) as daemon:
            try:
                poll(lambda s=story: len(s.advertised()) > 5, daemon.said, seconds=PATIENCE_S, every=0.2)  # type: ignore[misc]
                told[program.__name__] = list(story.tell())
            finally:
                for processes in story.running.values():
                    for process in processes:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
                print(daemon.said()[-8000:])
    assert told["Kad"] == told["Keepalived"]
    assert len({str(each) for each in told["Kad"]}) > 4, "something happened each time"


@pytest.mark.parametrize("program", [Keepalived, Kad])
@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("process_monitor_rcv_bufs 70000",), 140_000),
        (("process_monitor_rcv_bufs 7000000", "process_monitor_rcv_bufs_force"), 14_000_000),
    ],
)
def test_the_buffer_of_the_events(
    wire: Capture, program: type[Daemon], words: tuple[str, ...], size: int
) -> None:
    """The kernel doubles what it is asked for."""
    watched = "vrrp_track_process P {\nprocess sleep\nweight 1\n}\n"
    follower = vrrp_instance(interface="kt0", version=3, extra=("track_process {", "P", "}"))
    with program(FirstNamespace(), configuration(watched, follower, settings=words)) as daemon:
        daemon.wait_for("Entering MASTER STATE", seconds=PATIENCE_S)
        pid = daemon.vrrp_pid()
        poll(
            lambda: size in set(buffers_of(pid, socket.AF_NETLINK)),
            lambda: f"{sorted(buffers_of(pid, socket.AF_NETLINK))}: {daemon.said()}",
            seconds=PATIENCE_S,
            every=0.2,
        )
