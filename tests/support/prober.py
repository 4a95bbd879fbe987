"""A client that asks addresses for echoes, so often a second, and counts what comes back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable

from tests.support.adverts import checksum
from tests.support.namespaces import Node

PROBES_A_SECOND = 20


class Prober:
    """Asks every address (IPv4) in a thread of its own for as long as it is entered."""

    def __init__(self, client: Node, addresses: Iterable[str]) -> None:
        with client.entered():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setblocking(False)
        self.sent = 0
        self.answered: dict[str, set[int]] = {address: set() for address in addresses}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Prober:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.socket.close()

    def run(self) -> None:
        while not self.stop.wait(1 / PROBES_A_SECOND):
            self.sent += 1
            head = struct.pack("!BBHHH", 8, 0, 0, 77, self.sent)
            packet = head[:2] + struct.pack("!H", checksum(head)) + head[4:]
            for address in self.answered:
                with contextlib.suppress(OSError):
                    self.socket.sendto(packet, (address, 0))
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, (source, _) = self.socket.recvfrom(2048)
                    if data[20] == 0 and source in self.answered:
                        self.answered[source].add(int.from_bytes(data[26:28], "big"))

    def lost(self) -> dict[str, int]:
        """Address -> how many probes have not come back; every address has answered at least once."""
        sent = self.sent
        assert all(self.answered.values())
        return {address: sent - len(numbers) for address, numbers in self.answered.items()}
