"""Leave to open datagram ICMP sockets."""

from __future__ import annotations

import os

RANGE_FILE = "/proc/sys/net/ipv4/ping_group_range"


def allow_ping() -> str:
    """Let this process's group open ICMP sockets, as keepalived does; "" or why that cannot be.

    The range is made to begin at 0 and keeps its end; one that ends before it begins allowed nobody.
    """
    try:
        with open(RANGE_FILE, "rb") as file:
            low, high = map(int, file.read().split())
        if low <= os.getegid() <= high:
            return ""
        descriptor = os.open(RANGE_FILE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"0 {high if low <= high else 0}".encode())
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        return f"{RANGE_FILE}: {error}"
    return ""
