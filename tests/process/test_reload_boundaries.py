"""kill -9 of each process while a reload reads its files, and between the last consent and the commit.

The other boundaries, those that need nothing held up inside control, are in ``test_reload_transaction.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process.test_reload_transaction import BROKEN, Asked, configuration
from tests.support.control import CHILDREN, kill, pids_of, reload, wait_for_generation, wait_for_transaction
from tests.support.faulty_daemon import FaultyKad
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

RUNS, WANTED = 100, 150
"""Priorities: of what runs, and of what the reload brings."""


@pytest.fixture
def node(network: Network) -> Node:
    one = network.node("one")
    one.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return one


@pytest.fixture
def daemon(node: Node) -> Iterator[FaultyKad]:
    with FaultyKad(node, configuration(RUNS)) as kad:
        kad.wait_for("vrrp: STARTING → RUNNING")
        wait_for_generation(kad, 1)
        yield kad


def runs(daemon: FaultyKad, generation: int, priority: int) -> None:
    """Every process is on this generation, and does what it says."""
    status = wait_for_generation(daemon, generation)
    assert [instance.priority for instance in status.instances] == [priority]


def held(daemon: FaultyKad, act: str, text: str) -> dict[str, int]:
    """A reload (SIGHUP) that has come to this act and no further; the processes' numbers."""
    pids = pids_of(daemon)
    daemon.configure(text)
    daemon.plant(act, "pause")
    daemon.reload()
    daemon.met(act)
    return pids


def replaced(daemon: FaultyKad, role: str, old: int) -> None:
    poll(lambda: daemon.role(role) not in (0, old), f"another {role}")


# While the files are read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [configuration(WANTED), BROKEN], ids=["good", "broken"])
def test_control_killed_while_it_reads(daemon: FaultyKad, text: str) -> None:
    """The reload is lost, and said to be; the next one is like any other."""
    pids = held(daemon, "load", text)
    wait_for_transaction(daemon, "LOADING")
    kill(pids["control"])
    replaced(daemon, "control", pids["control"])
    daemon.go_on("load")
    runs(daemon, 1, RUNS)
    daemon.wait_for("the reload ended with control's process")
    assert {role: pid for role, pid in pids_of(daemon).items() if role != "control"} == {
        role: pid for role, pid in pids.items() if role != "control"
    }
    answer = reload(daemon)
    assert answer.accepted == (text is not BROKEN)
    runs(daemon, *((2, WANTED) if answer.accepted else (1, RUNS)))


def test_one_who_asked_a_control_that_was_killed_is_answered_by_the_next(daemon: FaultyKad) -> None:
    pids = pids_of(daemon)
    daemon.configure(configuration(WANTED))
    daemon.plant("load", "pause")
    asked = Asked(daemon)
    daemon.met("load")
    kill(pids["control"])
    answer = asked.answer()
    assert (answer.accepted, answer.generation) == (True, 2)
    runs(daemon, 2, WANTED)


@pytest.mark.parametrize("text", [configuration(WANTED), BROKEN], ids=["good", "broken"])
@pytest.mark.parametrize("role", CHILDREN)
def test_child_killed_while_control_reads(daemon: FaultyKad, role: str, text: str) -> None:
    """Nobody has been asked anything yet: the life after it is."""
    pids = held(daemon, "load", text)
    wait_for_transaction(daemon, "LOADING")
    kill(pids[role])
    replaced(daemon, role, pids[role])
    # Before control knows of the next life it would ask the one that is dead, and refuse the reload for it.
    poll(lambda: pids_of(daemon).get(role) not in (None, pids[role]), f"control to know of another {role}")
    daemon.go_on("load")
    runs(daemon, *((1, RUNS) if text is BROKEN else (2, WANTED)))
    changed = {each for each, pid in pids_of(daemon).items() if pid != pids[each]}
    assert changed == {role}


def test_everybody_killed_while_control_reads(daemon: FaultyKad) -> None:
    pids = held(daemon, "load", BROKEN)
    for pid in pids.values():
        kill(pid)
    for role, pid in pids.items():
        replaced(daemon, role, pid)
    wait_for_generation(daemon, 1)


def test_control_killed_while_it_reads_for_the_first_time(node: Node) -> None:
    """The start: nothing runs yet, and the next control reads it all."""
    daemon = FaultyKad(node, configuration(RUNS))
    daemon.plant("load", "pause")
    with daemon:
        daemon.met("load")
        first = daemon.role("control")
        kill(first)
        replaced(daemon, "control", first)
        runs(daemon, 1, RUNS)


# Between the last consent and the commit -------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, BROKEN], ids=["good", "broken"])
def test_control_killed_before_the_commit(daemon: FaultyKad, text: str | None) -> None:
    """Every child has consented, the supervisor has heard of nothing: all is as it was."""
    pids = held(daemon, "commit", configuration(WANTED))
    if text is not None:
        daemon.configure(text)
    kill(pids["control"])
    replaced(daemon, "control", pids["control"])
    runs(daemon, 1, RUNS)
    daemon.wait_for("the reload ended with control's process")
    assert daemon.count("generation 2 is committed") == 0
    if text is None:
        # What the children consented to in vain is in nobody's way.
        assert reload(daemon).accepted
        runs(daemon, 2, WANTED)


@pytest.mark.parametrize("role", CHILDREN)
def test_child_killed_before_the_commit(daemon: FaultyKad, role: str) -> None:
    """It has consented: the commit is made, and its next life, born in the old one, brought forward."""
    pids = held(daemon, "commit", configuration(WANTED))
    # A broken file meanwhile: what was consented to is not read from it.
    daemon.configure(BROKEN)
    kill(pids[role])
    replaced(daemon, role, pids[role])
    daemon.go_on("commit")
    runs(daemon, 2, WANTED)
    changed = {each for each, pid in pids_of(daemon).items() if pid != pids[each]}
    assert changed == {role}


def test_everybody_killed_before_the_commit(daemon: FaultyKad) -> None:
    pids = held(daemon, "commit", configuration(WANTED))
    for pid in pids.values():
        kill(pid)
    for role, pid in pids.items():
        replaced(daemon, role, pid)
    wait_for_generation(daemon, 1)


# While it is carried out -----------------------------------------------------------------------------------


def test_a_large_reload_is_no_hang(daemon: FaultyKad) -> None:
    """Of more work than one may stand still for."""
    pids = pids_of(daemon)
    daemon.configure(configuration(WANTED))
    daemon.plant("become", "toil")
    daemon.reload()
    daemon.met("become")
    runs(daemon, 2, WANTED)
    assert pids_of(daemon) == pids
