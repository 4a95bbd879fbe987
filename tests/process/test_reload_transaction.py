"""Reloads of a real daemon: accepted, refused, and interrupted by kill -9 between any two messages."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kad.ipc.messages import ReloadAnswer
from tests.support.control import (
    CHILDREN,
    kill,
    pids_of,
    reload,
    status_of,
    wait_for_generation,
    wait_for_transaction,
)
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root


def configuration(priority: int = 100, extra: str = "") -> str:
    return f"""
vrrp_instance VI_1 {{
    interface eth0
    state BACKUP
    virtual_router_id 51
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        192.0.2.100/24
    }}
    {extra}
}}
virtual_server 192.0.2.100 80 {{
    lvs_sched wlc
    lvs_method NAT
    protocol TCP
    real_server 192.0.2.200 80 {{
        TCP_CHECK {{
        }}
    }}
}}
bfd_instance peer {{
    neighbor_ip 192.0.2.200
    source_ip 192.0.2.1
}}
"""


WARM = 10
"""Reloads after which memory has found its level."""
GROWTH_LIMIT = 768 * 1024
"""Bytes, in 40 reloads."""
BROKEN = configuration(extra="virtual_routr_id 52")


@pytest.fixture
def node(network: Network) -> Node:
    one = network.node("one")
    one.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return one


@pytest.fixture
def daemon(node: Node) -> Iterator[Kad]:
    with Kad(node, configuration()) as kad:
        kad.wait_for("vrrp: STARTING → RUNNING")
        wait_for_generation(kad, 1)
        yield kad


class Asked:
    """A reload asked for in the background; :meth:`answer` waits for how it ended."""

    def __init__(self, daemon: Kad) -> None:
        self._answers: list[ReloadAnswer | Exception] = []
        self._thread = threading.Thread(target=self._ask, args=(daemon,), daemon=True)
        self._thread.start()

    def _ask(self, daemon: Kad) -> None:
        try:
            self._answers.append(reload(daemon))
        except Exception as error:  # noqa: BLE001 - raised again in the test's thread
            self._answers.append(error)

    def answer(self) -> ReloadAnswer:
        self._thread.join(40)
        (answer,) = self._answers
        if isinstance(answer, Exception):
            raise answer
        return answer


# Accepted and refused --------------------------------------------------------------------------------------


def test_good_reload_changes_what_runs_and_nobody_is_restarted(daemon: Kad) -> None:
    before = pids_of(daemon)
    daemon.configure(configuration(priority=150))
    answer = reload(daemon)
    assert (answer.accepted, answer.generation) == (True, 2), answer
    status = wait_for_generation(daemon, 2)
    assert [instance.priority for instance in status.instances] == [150]
    assert pids_of(daemon) == before


def test_hangup_is_a_reload(daemon: Kad) -> None:
    daemon.configure(configuration(priority=150))
    daemon.reload()
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]


def test_refused_reload_changes_nothing_and_says_where_and_why(daemon: Kad) -> None:
    before = pids_of(daemon)
    daemon.configure(BROKEN)
    done = daemon.kadctl("reload")
    assert done.returncode == 1
    line = 1 + BROKEN[: BROKEN.index("virtual_routr_id")].count("\n")
    assert f"daemon.conf:{line}:5: error:" in done.stderr
    assert "^^^^^" in done.stderr
    assert "generation 1 runs on unchanged" in done.stderr
    status = status_of(daemon)
    assert (status.generation, status.applied_everywhere, status.transaction) == (1, True, "IDLE")
    assert pids_of(daemon) == before


def test_forced_reload_accepts_what_keepalived_would(daemon: Kad) -> None:
    daemon.configure(BROKEN)
    done = daemon.kadctl("reload", "--force")
    assert done.returncode == 0, done.stderr
    wait_for_generation(daemon, 2)
    # The error is accepted now: it is no news for the next reload.
    assert reload(daemon).accepted
    wait_for_generation(daemon, 3)


def test_status_tells_whether_the_file_is_what_runs(daemon: Kad) -> None:
    assert status_of(daemon).file_is_what_runs is True
    daemon.configure(BROKEN)
    assert status_of(daemon).file_is_what_runs is False
    assert not reload(daemon).accepted
    status = status_of(daemon)
    assert (status.file_is_what_runs, status.file_note) == (False, "the last reload was refused")
    assert "IS NOT WHAT RUNS" in daemon.kadctl("status").stdout
    daemon.configure(configuration())
    assert status_of(daemon).file_is_what_runs is True


def test_missing_file_is_refused(daemon: Kad) -> None:
    daemon.config.unlink()
    answer = reload(daemon)
    assert not answer.accepted
    assert str(daemon.config) in answer.text
    assert status_of(daemon).generation == 1


def test_interface_that_is_gone_does_not_refuse_a_reload(daemon: Kad, node: Node) -> None:
    node.ip("link", "del", "eth0")
    daemon.configure(configuration(priority=150))
    answer = reload(daemon)
    assert answer.accepted, answer
    assert "the interface 'eth0' does not exist" in answer.diagnostics
    wait_for_generation(daemon, 2)


def test_children_come_and_go_with_the_configuration(daemon: Kad) -> None:
    whole = configuration()
    daemon.configure(whole[: whole.index("virtual_server")])
    assert reload(daemon).accepted
    poll(lambda: not {"check", "bfd"} & pids_of(daemon).keys(), "check and bfd to be stopped")
    daemon.configure(whole)
    assert reload(daemon).accepted
    poll(lambda: {"check", "bfd"} <= pids_of(daemon).keys(), "check and bfd to be started")
    assert status_of(daemon).generation == 3


def test_what_runs_no_more_is_not_shown(daemon: Kad) -> None:
    assert status_of(daemon).instances
    daemon.configure("")
    assert reload(daemon).accepted
    poll(lambda: pids_of(daemon).keys() == {"control"}, "all but control to have left")
    status = status_of(daemon)
    assert (status.instances, status.reports) == ((), {})


def test_ten_hangups_at_once_end_on_one_generation(daemon: Kad) -> None:
    daemon.configure(configuration(priority=150))
    for _ in range(10):
        daemon.reload()
    daemon.wait_for("reload: generation")
    number = poll(lambda: _resting_generation(daemon), "rest", seconds=10)
    # Standard signals merge, and those that come during a reload make one more.
    assert 2 <= number <= 11
    assert [each.priority for each in wait_for_generation(daemon, number).instances] == [150]


def _resting_generation(daemon: Kad) -> int:
    status = status_of(daemon)
    return status.generation if status.transaction == "IDLE" and status.applied_everywhere else 0


def test_many_reloads_leave_nothing_behind(daemon: Kad) -> None:
    """In any process: no descriptor, and no memory once everything has found its level."""
    pids = pids_of(daemon) | {"supervisor": daemon.pid}
    descriptors: dict[str, int] = {}
    memory: dict[str, int] = {}
    for number in range(WARM + 40):
        if number == WARM:
            descriptors = {role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in pids.items()}
            memory = {role: psutil.Process(pid).memory_info().rss for role, pid in pids.items()}
        daemon.configure(configuration(priority=100 + number))
        assert reload(daemon).accepted
    wait_for_generation(daemon, 1 + WARM + 40)
    assert pids_of(daemon) | {"supervisor": daemon.pid} == pids
    for role, pid in pids.items():
        more = len(os.listdir(f"/proc/{pid}/fd")) - descriptors[role]
        grown = psutil.Process(pid).memory_info().rss - memory[role]
        print(f"{role}: {more:+d} descriptors, {grown:+d} bytes")
        # One connection of kadctl's may still be on its way out, and the line to a spare child be new.
        assert more <= 1, role
        assert grown < GROWTH_LIMIT, role


# Killed between two messages -------------------------------------------------------------------------------


def test_control_killed_while_it_prepares(daemon: Kad) -> None:
    """Prepare is sent, Prepared not there: nothing was committed, so everything is as it was."""
    pids = pids_of(daemon)
    daemon.configure(configuration(priority=150))
    kill(pids["vrrp"], signal.SIGSTOP)
    daemon.reload()
    wait_for_transaction(daemon, "PREPARING")
    kill(pids["control"])
    kill(pids["vrrp"], signal.SIGCONT)
    status = wait_for_generation(daemon, 1)
    assert pids_of(daemon)["vrrp"] == pids["vrrp"]
    assert [each.priority for each in status.instances] == [100]
    # The late answer to the dead control's question is not taken for one to this one's.
    assert reload(daemon).accepted
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]


@pytest.mark.parametrize("role", CHILDREN)
def test_child_killed_while_it_is_asked(daemon: Kad, role: str) -> None:
    pids = pids_of(daemon)
    daemon.configure(configuration(priority=150))
    kill(pids[role], signal.SIGSTOP)
    asked = Asked(daemon)
    wait_for_transaction(daemon, "PREPARING")
    kill(pids[role])
    answer = asked.answer()
    assert (answer.accepted, answer.generation) == (False, 1)
    assert role in answer.text
    wait_for_generation(daemon, 1)


def test_child_that_does_not_answer_refuses_by_its_silence(daemon: Kad) -> None:
    """The supervisor replaces it as hung, or the time limit comes first: refused either way."""
    daemon.configure(configuration(priority=150))
    kill(pids_of(daemon)["check"], signal.SIGSTOP)
    answer = reload(daemon)
    assert (answer.accepted, answer.generation) == (False, 1)
    wait_for_generation(daemon, 1)


def _stop_at_commit(daemon: Kad) -> dict[str, int]:
    """A reload for priority 150 that waits for the supervisor's word."""
    pids = pids_of(daemon)
    daemon.configure(configuration(priority=150))
    kill(daemon.pid, signal.SIGSTOP)
    return pids


def test_control_killed_between_commit_and_acknowledgement(daemon: Kad) -> None:
    """What it sent before it died counts: its successor brings everybody forward."""
    pids = _stop_at_commit(daemon)
    Asked(daemon)
    wait_for_transaction(daemon, "COMMITTING")
    kill(pids["control"])
    kill(daemon.pid, signal.SIGCONT)
    # kadctl asks the new control again, which reads the same file once more.
    status = wait_for_generation(daemon, 3)
    assert [each.priority for each in status.instances] == [150]
    assert pids_of(daemon)["vrrp"] == pids["vrrp"]


@pytest.mark.parametrize("role", CHILDREN)
def test_child_killed_between_commit_and_acknowledgement(daemon: Kad, role: str) -> None:
    pids = _stop_at_commit(daemon)
    asked = Asked(daemon)
    wait_for_transaction(daemon, "COMMITTING")
    kill(pids[role])
    kill(daemon.pid, signal.SIGCONT)
    answer = asked.answer()
    assert (answer.accepted, answer.generation) == (True, 2)
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]


def _stop_at_apply(daemon: Kad, role: str) -> tuple[dict[str, int], Asked]:
    """A reload that is committed, and a child that has not heard of it."""
    pids = _stop_at_commit(daemon)
    asked = Asked(daemon)
    wait_for_transaction(daemon, "COMMITTING")
    kill(pids[role], signal.SIGSTOP)
    kill(daemon.pid, signal.SIGCONT)
    wait_for_transaction(daemon, "APPLYING")
    return pids, asked


@pytest.mark.parametrize("role", CHILDREN)
def test_child_killed_between_commit_and_its_apply(daemon: Kad, role: str) -> None:
    pids, asked = _stop_at_apply(daemon, role)
    kill(pids[role])
    answer = asked.answer()
    assert (answer.accepted, answer.generation) == (True, 2)
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]


def test_control_killed_between_commit_and_apply(daemon: Kad) -> None:
    pids, _ = _stop_at_apply(daemon, "vrrp")
    # A broken file meanwhile: the committed generation is not read from it.
    daemon.configure(BROKEN)
    kill(pids["control"])
    kill(pids["vrrp"], signal.SIGCONT)
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]
    assert pids_of(daemon)["vrrp"] == pids["vrrp"]


def test_everybody_killed_after_the_commit(daemon: Kad) -> None:
    pids, _ = _stop_at_apply(daemon, "vrrp")
    daemon.config.unlink()
    for role in ("control", *CHILDREN):
        kill(pids[role])
    wait_for_generation(daemon, 2)
    # All of them are new to each other: the report comes when it comes.
    poll(lambda: [each.priority for each in status_of(daemon).instances] == [150], "the instance")
    assert Path(f"/proc/{daemon.pid}").exists()
