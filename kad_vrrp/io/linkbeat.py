"""Asks interfaces for their link once a second, where the kernel does not tell (linkbeat_use_polling).

Old drivers know a link by their transceiver only: its status register (MII), else what ethtool would say,
else the interface's own flags. The first of them that works is kept. An answer may take a driver
milliseconds, so they are asked in a thread.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
from collections.abc import Callable, Iterable, Mapping
from struct import Struct as Layout

from kad.config.model.vrrp import LinkbeatInterface, VrrpConfiguration
from kad_vrrp.io.virtual_links import KernelThread

PERIOD_S = 1.0

_SIOCGIFFLAGS, _SIOCETHTOOL, _SIOCGMIIPHY, _SIOCGMIIREG = 0x8913, 0x8946, 0x8947, 0x8948
_GET_LINK = 0x0A
_UP_AND_RUNNING = 0x41
_CONTROL_REGISTER, _STATUS_REGISTER = 0, 1
_LINK_STATUS = 0x0004
_FLAGS_REQUEST = Layout("=16sh22x")
_POINTER_REQUEST = Layout("=16sQ16x")
_MII_REQUEST = Layout("=16sHHHH16x")
_VALUE = Layout("=II")
METHODS = ("MII", "ETHTOOL", "IOCTL")


def polled_interfaces(configuration: VrrpConfiguration) -> dict[str, str]:
    """Interface -> method ("": the first that works). VMACs are never polled: the kernel tells of them."""
    own = {link.name for link in configuration.virtual_links}
    everywhere = configuration.settings.linkbeat_use_polling
    asked = [
        LinkbeatInterface(each.interface)
        for each in configuration.instances
        if each.interface and (everywhere or each.linkbeat_polling)
    ]
    found = {each.name: each.method for each in (*asked, *configuration.linkbeat_interfaces)}
    return {name: method for name, method in found.items() if name not in own}


class Linkbeat:
    """``on_turned`` is called with an interface whose link is another than before."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_turned: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._thread = KernelThread(loop)
        self._on_turned = on_turned
        self._log = log
        self._methods: dict[str, str] = {}
        self._using: dict[str, str] = {}
        """Interface -> the method that works for it."""
        self._timer: asyncio.TimerHandle | None = None
        self._asking = False
        self._down: set[str] = set()

    def is_down(self, interface: str) -> bool:
        """By its own word; what has not been asked is not."""
        return interface in self._down

    def watch(self, methods: Mapping[str, str]) -> None:
        """Exactly these from now on."""
        self._methods = dict(methods)
        self._using = {n: m for n, m in self._using.items() if n in methods and methods[n] in ("", m)}
        for name in [name for name in self._down if name not in methods]:
            self._down.discard(name)
            self._on_turned(name)
        if methods and not self._asking:
            self._ask()
        elif not methods and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        self._methods = {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._asking = True
        wanted = {name: self._using.get(name) or method for name, method in self._methods.items()}
        answers: dict[str, tuple[bool, str]] = {}
        self._thread.run(lambda: answers.update(ask(wanted)), lambda: self._take(answers))

    def _take(self, answers: Mapping[str, tuple[bool, str]]) -> None:
        self._asking = False
        for name, (is_up, method) in answers.items():
            if name not in self._methods:
                continue
            self._note_method(name, method)
            if is_up == (name in self._down):
                self._down ^= {name}
                self._log(f"Linkbeat reports {name} {'up' if is_up else 'down'}")
                self._on_turned(name)
        if self._methods:
            self._timer = self._loop.call_later(PERIOD_S, self._ask)

    def _note_method(self, name: str, method: str) -> None:
        if self._using.get(name) == method:
            return
        self._using[name] = method
        asked = self._methods[name]
        if asked and asked != method:
            self._log(f"({name}) linkbeat by {asked} is not possible; using {method}")


def ask(methods: Mapping[str, str]) -> dict[str, tuple[bool, str]]:
    """Interface -> (is its link up, the method that told). Without those that are not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as made:
        found = ((name, _ask_one(made, name, method)) for name, method in methods.items())
        return {name: answer for name, answer in found if answer is not None}


def _ask_one(made: socket.socket, name: str, method: str) -> tuple[bool, str] | None:
    """By ``method`` if that works, else by the first that does."""
    for each in _in_turn(method):
        try:
            return _PROBES[each](made, name.encode()), each
        except OSError:
            continue
    return None


def _in_turn(method: str) -> Iterable[str]:
    return sorted(METHODS, key=lambda each: each != method)


def _mii(made: socket.socket, name: bytes) -> bool:
    _, phy, *_ = _MII_REQUEST.unpack(fcntl.ioctl(made, _SIOCGMIIPHY, _MII_REQUEST.pack(name, 0, 0, 0, 0)))

    def register(number: int) -> int:
        request = _MII_REQUEST.pack(name, phy, number, 0, 0)
        return int(_MII_REQUEST.unpack(fcntl.ioctl(made, _SIOCGMIIREG, request))[4])

    if register(_CONTROL_REGISTER) == 0xFFFF or register(_STATUS_REGISTER) == 0:
        raise OSError("no transceiver")
    # The bit stays low after a loss until it has been read: the second reading is the present.
    return bool(register(_STATUS_REGISTER) & _LINK_STATUS)


def _ethtool(made: socket.socket, name: bytes) -> bool:
    value = array.array("B", _VALUE.pack(_GET_LINK, 0))
    fcntl.ioctl(made, _SIOCETHTOOL, _POINTER_REQUEST.pack(name, value.buffer_info()[0]))
    return bool(_VALUE.unpack(value.tobytes())[1])


def _flags(made: socket.socket, name: bytes) -> bool:
    request = _FLAGS_REQUEST.pack(name, 0)
    flags = int(_FLAGS_REQUEST.unpack(fcntl.ioctl(made, _SIOCGIFFLAGS, request))[1])
    return flags & _UP_AND_RUNNING == _UP_AND_RUNNING


_PROBES: dict[str, Callable[[socket.socket, bytes], bool]] = {
    "MII": _mii,
    "ETHTOOL": _ethtool,
    "IOCTL": _flags,
}
