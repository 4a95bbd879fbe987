"""Tracked processes where the kernel tells of them, which it does here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.netns.test_track_probes import (  # noqa: F401  (fixtures, and tests to be run here)
    loop,
    processes,
    test_another_pattern_is_told_its_own_count_only,
    test_counted_by_the_kernels_events,
    test_forks_count_at_once_and_threads_never,
)
from tests.support.capture import Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, poll

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
