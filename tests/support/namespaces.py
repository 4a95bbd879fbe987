"""Network namespaces, links and processes for tests, all removed again whatever happens.

    with Network("vrrp") as network:
        lan = network.bridge()                  # a namespace of its own holding a bridge
        one = network.node("one")               # a namespace
        eth = one.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
        with one.entered():                     # this thread is inside: sockets made here stay inside
            ...
        process = one.start(["keepalived", "-n", ...])   # killed and reaped at the end
        poll(lambda: one.holds("192.0.2.100"), "the VIP", seconds=5)

``tests/conftest.py`` offers ``Network`` as the fixture ``network``. Packets: ``tests/support/capture.py``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_PAUSE_PER_LOOK = 3 if "KAD_GUEST" in os.environ else 0
"""In a guest looking is slow, and those who are looked at need the one processor too."""
LEAST_PATIENCE_S = 180 if "KAD_GUEST" in os.environ else 0
"""An emulated machine on a busy one takes minutes for what takes a second."""
_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count(1)


@functools.cache
def reason_not_possible() -> str:
    """Why no namespace can be made here; "" when one can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if shutil.which("ip") is None:
        return "needs ip (Debian: iproute2)"
    name = f"kad-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"cannot make network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def needs_namespaces() -> None:
    """Skip the running test, saying why, where namespaces cannot be made."""
    if reason := reason_not_possible():
        pytest.skip(reason)


def poll(
    condition: Callable[[], T], what: str | Callable[[], str], *, seconds: float = 15.0, every: float = 0.005
) -> T:
    """The first true value of ``condition``; fails the test when there is none within ``seconds``."""
    seconds = max(seconds, LEAST_PATIENCE_S)
    limit = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if value := condition():
            return value
        now = time.monotonic()
        if now > limit:
            pytest.fail(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(max(every, (now - begun) * _PAUSE_PER_LOOK))


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.001) -> float | None:
    """Seconds until the condition holds, or None: for measuring, where a miss is a result, not a failure."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if condition():
            return time.monotonic() - start
        time.sleep(every)
    return None


def stand_still(seconds: float) -> None:
    """Let time pass, as long as a stall or a measurement lasts. Whoever waits for something polls."""
    time.sleep(seconds)


def remains(condition: Callable[[], bool], what: str, *, seconds: float, every: float = 0.005) -> None:
    """Fail the test if ``condition`` is false at any look during ``seconds``."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if not condition():
            pytest.fail(f"did not last {seconds} s: {what}")
        time.sleep(every)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Node:
    """One network namespace with lo up."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.name = f"kt{os.getpid()}-{next(_serial)}-{label}"
        self.processes: list[subprocess.Popen[str]] = []
        self._interfaces = itertools.count()
        _ip("netns", "add", self.name)
        self.descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        self.sysctl("net.ipv6.conf.all.accept_dad", "0")
        self.sysctl("net.ipv6.conf.default.accept_dad", "0")
        self.ip("link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread works inside this namespace; sockets opened here stay inside."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.descriptor)
            yield
        finally:
            _setns(home)
            os.close(home)

    def enter(self) -> None:
        """For good: for a process of its own (after a fork, or as ``preexec_fn``)."""
        _setns(self.descriptor)

    def ip(self, *words: str) -> str:
        """``ip WORDS`` inside."""
        return _ip("-n", self.name, *words)

    def ip_json(self, *words: str) -> Any:
        return json.loads(_ip("-j", "-n", self.name, *words) or "[]")

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        with self.entered():
            return subprocess.run(argv, check=check, capture_output=True, text=True, timeout=60)

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A process inside, in a process group of its own, killed at the end of the test at the latest."""
        with self.entered():
            process = subprocess.Popen(argv, text=True, process_group=0, **options)
        self.processes.append(process)
        return process

    def sysctl(self, key: str, value: str) -> None:
        with self.entered():
            Path("/proc/sys", key.replace(".", "/")).write_text(value)

    def attach(self, lan: Bridge, *addresses: str, name: str = "", mac: str = "") -> str:
        """A new interface on ``lan``, up, with these prefixes; returns its name."""
        name = name or f"eth{next(self._interfaces)}"
        lan.plug(self, name, mac)
        for prefix in addresses:
            family = ("-6",) if ":" in prefix else ()
            nodad = ("nodad",) if ":" in prefix else ()
            self.ip(*family, "addr", "add", prefix, "dev", name, *nodad)
        return name

    def set_link(self, interface: str, state: str) -> None:
        self.ip("link", "set", interface, state)

    def addresses(self, interface: str = "") -> list[str]:
        """Every address, ``ADDRESS/LEN``, in the kernel's order."""
        words = ("dev", interface) if interface else ()
        links = self.ip_json("addr", "show", *words)
        return [f"{a['local']}/{a['prefixlen']}" for link in links for a in link.get("addr_info", [])]

    def holds(self, address: str) -> bool:
        return any(entry.partition("/")[0] == address for entry in self.addresses())

    def mac(self, interface: str) -> str:
        return str(self.ip_json("link", "show", "dev", interface)[0]["address"])

    def close(self) -> None:
        for process in self.processes:
            kill_group(process)
        os.close(self.descriptor)
        _ip("netns", "del", self.name)


class Bridge:
    """One Ethernet segment: a bridge without spanning tree or snooping, in a namespace of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._ports = itertools.count(1)
        node.ip("link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        node.sysctl("net.ipv6.conf.br0.disable_ipv6", "1")
        node.ip("link", "set", "br0", "up")
        self.ports: dict[tuple[str, str], str] = {}

    def plug(self, node: Node, interface: str, mac: str = "") -> None:
        port = f"p{next(self._ports)}"
        address = ("address", mac) if mac else ()
        self.node.ip(
            "link", "add", port, "type", "veth", "peer", "name", interface, "netns", node.name, *address
        )
        self.node.sysctl(f"net.ipv6.conf.{port}.disable_ipv6", "1")
        self.node.ip("link", "set", port, "master", "br0", "up")
        node.ip("link", "set", interface, "up")
        self.ports[node.name, interface] = port

    def unplug(self, node: Node, interface: str) -> None:
        """Pull the cable: the node's interface loses its carrier."""
        self.node.ip("link", "set", self.ports[node.name, interface], "down")

    def replug(self, node: Node, interface: str) -> None:
        self.node.ip("link", "set", self.ports[node.name, interface], "up")


class Network:
    """Everything one test builds; a context manager that takes it all down again."""

    def __init__(self, prefix: str = "net") -> None:
        self.prefix = prefix
        self.nodes: list[Node] = []

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                node.close()

    def node(self, label: str) -> Node:
        node = Node(label)
        self.nodes.append(node)
        return node

    def bridge(self, label: str = "lan") -> Bridge:
        return Bridge(self.node(label))

    def pair(self, one: Node, two: Node, name: str = "eth0") -> None:
        """A veth pair between two nodes, the same name at both ends, up."""
        one.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", two.name)
        one.ip("link", "set", name, "up")
        two.ip("link", "set", name, "up")


def kill_group(process: subprocess.Popen[str]) -> None:
    """End a process started by :meth:`Node.start`, and all of its group, now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def network() -> Iterator[Network]:
    """A fresh :class:`Network`; skips where namespaces cannot be made."""
    needs_namespaces()
    with Network() as made:
        yield made
