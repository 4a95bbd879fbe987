"""Priorities, processors, memory and names of real processes, from the configuration and back by a reload."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest

from kad.runtime.processors import SHORT_SLICE_US
from tests.support.control import pids_of
from tests.support.daemon import Kad, proportional_memory
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll
from tests.support.slices import needs_slices, slice_us

pytestmark = pytest.mark.root

SETTINGS = [
    "script_user root",
    "process_names",
    "process_name parent",
    "vrrp_priority -5",
    "vrrp_rt_priority 7",
    "vrrp_rlimit_rttime 3000000",
    "vrrp_cpu_affinity 0",
    "vrrp_no_swap",
    "umask 022",
]


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("node")
    made.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return made


def text_of(settings: list[str], *extra: str) -> str:
    return configuration(vrrp_instance(version=3, advert_int=0.1, extra=extra), settings=settings)


def status(pid: int, key: str) -> str:
    found = re.search(rf"^{key}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return found.group(1)


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_process_is_as_it_was_asked_to_be_and_as_it_was_after_a_reload(node: Node, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        f"#!/bin/sh\nulimit -R > {tmp_path}/limit 2>/dev/null\ncat /proc/self/stat > {tmp_path}/stat\n"
    )
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    processors = os.sched_getaffinity(0)
    with Kad(node, text_of(SETTINGS, f"notify_master {script}")) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        pid = daemon.vrrp_pid()
        assert (comm(pid), comm(daemon.pid)) == ("keepalived_vrrp", "parent")
        assert os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
        assert os.sched_getparam(pid).sched_priority == 7
        assert resource.prlimit(pid, resource.RLIMIT_RTTIME) == (1_500_000, 3_000_000)
        assert status(pid, "Cpus_allowed_list") == "0"
        assert status(pid, "Umask") == status(daemon.pid, "Umask") == "0022"
        assert int(status(pid, "VmLck").split()[0]) > 0
        fields = poll(
            lambda: (tmp_path / "stat").read_text() if (tmp_path / "stat").exists() else "", "the script"
        )
        numbers = fields.rpartition(")")[2].split()
        assert (numbers[16], numbers[38]) == ("0", "0"), "scripts run with ordinary priority"
        daemon.configure(text_of(["script_user root"], f"notify_master {script}"))
        daemon.reload()
        daemon.wait_for("reload: generation 2 runs")
        assert daemon.vrrp_pid() == pid
        assert (comm(pid), comm(daemon.pid)) == ("kad_vrrp", "kad")
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert os.sched_getaffinity(pid) == processors
        assert int(status(pid, "VmLck").split()[0]) == 0
        assert status(pid, "Umask") == "0177"
        assert daemon.count("Entering MASTER STATE") == 1


SESSION = "bfd_instance peer {\nneighbor_ip 192.0.2.2\nsource_ip 192.0.2.1\n}\n"


def test_who_speaks_runs_in_short_slices_scripts_and_control_do_not(node: Node, tmp_path: Path) -> None:
    needs_slices()
    script = tmp_path / "script"
    script.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nexec sleep 1000\n"
    )
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    usual_us = slice_us(os.getpid())
    instance = vrrp_instance(version=3, advert_int=0.1, extra=(f"notify_master {script}",))
    lasting = ["script_user root", "vrrp_priority -5"]

    def text(*settings: str) -> str:
        return configuration(SESSION, instance, settings=[*lasting, *settings])

    with Kad(node, text()) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        pid = daemon.vrrp_pid()
        assert slice_us(pid) == slice_us(daemon._pid_of("bfd")) == SHORT_SLICE_US < usual_us
        assert slice_us(daemon.pid) == SHORT_SLICE_US, "it sends the next VRRP process off"
        assert slice_us(pids_of(daemon)["control"]) == usual_us
        poll((tmp_path / "pid").exists, "the script")
        started = int((tmp_path / "pid").read_text())
        poll(lambda: slice_us(started) == usual_us, "the usual slice of the script")
        daemon.configure(text("vrrp_rt_priority 7"))
        daemon.reload_surely()
        assert os.sched_getscheduler(pid) != os.SCHED_OTHER
        daemon.configure(text())
        daemon.reload_surely()
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        assert slice_us(pid) == SHORT_SLICE_US, "after real-time priority as before it"


def test_locked_memory_is_no_more_memory(node: Node) -> None:
    taken = []
    for settings in ([], ["vrrp_no_swap"]):
        with Kad(node, text_of(settings)) as daemon:
            daemon.wait_for("Entering MASTER STATE")
            taken.append(proportional_memory([daemon.vrrp_pid()]))
    assert taken[1] < taken[0] * 1.3


def test_who_is_late_raises_itself_as_far_as_allowed(node: Node) -> None:
    settings = ["max_auto_priority 2", "min_auto_priority_delay 100"]
    with Kad(node, text_of(settings)) as daemon:
        daemon.wait_for("Set realtime priority 2", seconds=30)
        pid = daemon.vrrp_pid()
        assert os.sched_getparam(pid).sched_priority == 2
        assert daemon.count("Set realtime priority") == 2


def test_the_environment_can_still_be_read(node: Node) -> None:
    with Kad(node, text_of([]), wrapper=["env", "SITE=here"]) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        for pid in (daemon.pid, *daemon.children()):
            assert b"SITE=here" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"kad: ")


def test_the_bfd_process_is_tuned_by_its_own_words(node: Node) -> None:
    settings = ["bfd_priority -3", "bfd_process_name sessions"]
    text = configuration(
        SESSION,
        vrrp_instance(version=3, advert_int=0.1),
        settings=settings,
    )
    with Kad(node, text) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        pid = poll(
            lambda: next((each for each in daemon.children() if comm(each) == "sessions"), 0), "its name"
        )
        poll(lambda: os.getpriority(os.PRIO_PROCESS, pid) == -3, "its priority")
        assert os.getpriority(os.PRIO_PROCESS, daemon.vrrp_pid()) == os.getpriority(os.PRIO_PROCESS, 0)


SERVICE = "virtual_server 198.51.100.1 80 {\nlvs_sched rr\nlvs_method NAT\nreal_server 192.0.2.2 80 {\n}\n}\n"


@pytest.mark.parametrize("role", ["checker", "bfd"])
def test_the_other_processes_too(node: Node, role: str) -> None:
    words = [
        f"{role}_process_name other",
        f"{role}_priority -4",
        f"{role}_rt_priority 6",
        f"{role}_rlimit_rttime 2000000",
        f"{role}_cpu_affinity 0",
        f"{role}_no_swap",
    ]
    processors = os.sched_getaffinity(0)
    with Kad(node, configuration(SESSION, SERVICE, settings=words)) as daemon:
        pid = daemon._pid_of("checkers" if role == "checker" else role)
        daemon.wait_for(f"{'check' if role == 'checker' else role}: STARTING → RUNNING: ready")
        assert comm(pid) == "other"
        assert os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
        assert os.sched_getparam(pid).sched_priority == 6
        assert resource.prlimit(pid, resource.RLIMIT_RTTIME)[1] == 2_000_000
        assert status(pid, "Cpus_allowed_list") == "0"
        assert int(status(pid, "VmLck").split()[0]) > 0
        daemon.configure(configuration(SESSION, SERVICE, settings=words[1:2]))
        daemon.reload_surely()
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, pid) == -4
        assert os.sched_getaffinity(pid) == processors
        assert (comm(pid), int(status(pid, "VmLck").split()[0])) != ("other", 0)


def test_the_umask_is_everybodys_and_goes_back_for_those_born_later_too(node: Node, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\numask > {tmp_path}/$1.new\nmv {tmp_path}/$1.new {tmp_path}/$1\n")
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    words = ["script_user root", f'startup_script "{script} up"', f'shutdown_script "{script} down"']

    def masks(daemon: Kad) -> set[str]:
        return {status(pid, "Umask") for pid in (daemon.pid, *daemon.children())}

    with Kad(node, text_of([*words, "umask 022"])) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        assert (tmp_path / "up").read_text() == "0022\n"
        assert masks(daemon) == {"0022"}
        daemon.configure(text_of(words))
        daemon.reload_surely()
        for role in ("vrrp", "control"):
            os.kill(pids_of(daemon)[role], signal.SIGKILL)
            daemon.wait_for(f"{role}: STARTING → RUNNING: ready", times=2)
        assert masks(daemon) == {"0177"}
        daemon.stop()
        assert (tmp_path / "down").read_text() == "0177\n"
