"""Two hundred reloads in a row with 255 masters: nobody listening to them notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.control import pids_of, reload, status_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.namespaces import Network, poll

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.alone]

INSTANCES = 255
RELOADS = 200
WARM = 20
"""Reloads after which memory has found its level."""
LONGEST_GAP_US = 1_500_000
GROWTH_LIMIT_KB = {"control": 4_096, "vrrp": 2_048, "supervisor": 512}
"""Who reads a file anew each time, or changes 255 instances, does not come out to the page."""


def configuration(priority: int) -> str:
    return "".join(
        f"""vrrp_instance VI_{number} {{
    interface eth0
    state MASTER
    virtual_router_id {number}
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        10.0.{number}.1/24
    }}
}}
"""
        for number in range(1, INSTANCES + 1)
    )


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1])


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_two_hundred_reloads_with_255_masters(network: Network) -> None:
    lan = network.bridge()
    one, two = network.node("one"), network.node("two")
    one.attach(lan, "192.0.2.1/24", name="eth0")
    two.attach(lan, "192.0.2.2/24", name="eth0")
    with Kad(one, configuration(200)) as daemon:
        daemon.wait_for("Entering MASTER STATE", times=INSTANCES, seconds=30)
        wait_for_generation(daemon, 1)
        pids = pids_of(daemon) | {"supervisor": daemon.pid}
        memory: dict[str, int] = {}
        descriptors: dict[str, int] = {}
        with Capture(two, "eth0") as capture:
            for number in range(RELOADS):
                if number == WARM:
                    memory = {role: resident_kb(pid) for role, pid in pids.items()}
                    descriptors = {role: descriptors_of(pid) for role, pid in pids.items()}
                daemon.configure(configuration(200 + number % 40))
                assert reload(daemon).accepted
                capture.drain()
            wait_for_generation(daemon, 1 + RELOADS)
            ended = capture.drain()[-1].time_us
            poll(
                lambda: len({a.vrid for a in capture.adverts() if a.time_us > ended}) == INSTANCES,
                "an advertisement of each after the last reload",
            )
            assert not capture.lost()
            adverts = capture.adverts()
        last: dict[int, int] = {}
        gaps: list[int] = []
        for advert in adverts:
            assert advert.priority, "a master said goodbye"
            gaps.append(advert.time_us - last.get(advert.vrid, advert.time_us))
            last[advert.vrid] = advert.time_us
        assert max(gaps) <= LONGEST_GAP_US
        assert pids_of(daemon) | {"supervisor": daemon.pid} == pids
        assert daemon.count("Entering BACKUP STATE") == INSTANCES
        assert {instance.state for instance in status_of(daemon).instances} == {"MASTER"}
        for role, pid in pids.items():
            grown_kb, more = resident_kb(pid) - memory[role], descriptors_of(pid) - descriptors[role]
            print(f"{role}: {memory[role]} kB {grown_kb:+d}, {descriptors[role]} descriptors {more:+d}")
            assert grown_kb < GROWTH_LIMIT_KB[role], role
            # One connection of the asker's may still be on its way out, and the line to a spare child be new.
            assert more <= 1, role
