"""A reload that takes the last instance out: it is told of like one of several, as with keepalived."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

VIP = "192.0.2.100"
SETTINGS = ["script_user root"]


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("node")
    made.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return made


def recorder(place: Path) -> tuple[Path, Path]:
    """A notify script, and where it writes."""
    place.chmod(0o755)
    told, script = place / "told", place / "notify"
    told.touch()
    script.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    script.chmod(0o755)
    return script, told


@pytest.mark.parametrize("with_deleted", [True, False])
@pytest.mark.parametrize("program", [Keepalived, Kad])
def test_the_last_instance_is_deleted_and_not_stopped(
    node: Node, tmp_path: Path, program: type[Daemon], with_deleted: bool
) -> None:
    if program is Keepalived:
        needs_keepalived()
    script, told = recorder(tmp_path)
    extra = [f'notify "{script}"', f'notify_stop "{script} stopped"']
    if with_deleted:
        extra.append(f'notify_deleted "{script} deleted"')
    block = vrrp_instance(version=3, advert_int=0.1, extra=extra)

    def lines() -> list[str]:
        return told.read_text().splitlines()

    with program(node, configuration(block, settings=SETTINGS)) as daemon:
        poll(lambda: "INSTANCE VI_1 MASTER 100" in lines(), "the master")
        told.write_text("")
        daemon.configure(configuration(settings=SETTINGS))
        daemon.reload()
        expected = ["INSTANCE VI_1 DELETED 100", "deleted"] if with_deleted else ["INSTANCE VI_1 FAULT 100"]
        poll(lambda: sorted(lines()) == sorted(expected), lambda: f"{expected}: {lines()}")
        poll(lambda: not node.holds(VIP), "the address to go")
        daemon.stop()
        assert sorted(lines()) == sorted(expected), "nothing more at the daemon's own end"


def test_what_goes_with_the_last_instance_goes_whatever_stays_at_a_stop(node: Node) -> None:
    """-V keeps the addresses when the daemon stops, and not when a reload removes them; nor the VMAC."""
    block = vrrp_instance(version=3, advert_int=0.1, extra=["use_vmac vip51"])
    with Kad(node, configuration(block), "-V") as kad:
        poll(lambda: node.holds(VIP), "the address")
        kad.configure(configuration())
        kad.reload()
        poll(lambda: not node.holds(VIP), "the address to go")
        poll(lambda: "vip51" not in node.ip("-o", "link"), "its VMAC to go")


def test_groups_and_pipes_hear_the_same_of_the_last_as_of_one_of_several(node: Node, tmp_path: Path) -> None:
    script, told = recorder(tmp_path)
    extra = [f'notify "{script}"', f'notify_deleted "{script} deleted"']
    group = f'vrrp_sync_group G {{\ngroup {{\nVI_1\n}}\nnotify "{script}"\n}}\n'
    removed = vrrp_instance(version=3, advert_int=0.1, extra=extra) + group
    stays = vrrp_instance("OTHER", vrid=77, version=3, advert_int=0.1, addresses=["192.0.2.77/24"])
    heard = []
    for others in ("", stays):
        with Kad(node, configuration(removed, others, settings=SETTINGS)) as kad:
            poll(lambda: "GROUP G MASTER" in told.read_text(), "the master")
            told.write_text("")
            kad.configure(configuration(others, settings=SETTINGS))
            kad.reload()
            poll(lambda: "deleted" in told.read_text(), "the news")
            poll(lambda: not node.holds(VIP), "the address to go")
            heard.append(sorted(told.read_text().splitlines()))
    assert heard[0] == heard[1]
