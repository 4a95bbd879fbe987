"""A configuration with a value that no message has room for, which the reader let through by mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support import blind_reader
from tests.support.control import status_of
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

GOOD = "table 10 priority 100 ipproto tcp"
POISON = "table 10 priority 101 ipproto mptcp"
"""262, which /etc/protocols or Python knows; a rule has eight bits for it."""


class BlindKad(Kad):
    def argv(self) -> list[str]:
        return [sys.executable, "-P", blind_reader.__file__, *super().argv()[1:]]


def text(*rules: str) -> str:
    inner = "\n".join(rules)
    return f"""vrrp_instance VI {{
        interface eth0
        virtual_router_id 51
        state MASTER
        priority 200
        virtual_ipaddress {{
            192.0.2.50/24
        }}
        virtual_rules {{
            {inner}
        }}
    }}
    """


@pytest.fixture
def node(network: Network) -> Iterator[Node]:
    made = network.node("one")
    made.attach(network.bridge(), "192.0.2.202/24", name="eth0")
    yield made


def lives(daemon: Kad) -> dict[str, int]:
    return {process.role: process.incarnation for process in status_of(daemon).processes}


def test_a_reload_with_it_is_refused_and_loses_nothing(node: Node) -> None:
    with BlindKad(node, text(GOOD)) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        before = lives(daemon)
        daemon.configure(text(GOOD, POISON))
        answer = daemon.kadctl("reload")
        assert answer.returncode != 0
        assert "(VI) rule 101:" in answer.stdout + answer.stderr
        assert lives(daemon) == before
        assert node.holds("192.0.2.50")
        daemon.configure(text(GOOD, "table 10 priority 102 ipproto udp"))
        assert daemon.kadctl("reload").returncode == 0, daemon.said()
        assert daemon.stop() == 0
        assert not daemon.count("BACKOFF"), daemon.said()


def test_a_start_with_it_does_without_and_withdraws_the_rest(node: Node) -> None:
    with BlindKad(node, text(GOOD, POISON)) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        daemon.wait_for("cannot be put into a message")
        poll(lambda: node.holds("192.0.2.50"), "the address")
        poll(lambda: "100:" in node.ip("rule"), "the good rule")
        assert max(lives(daemon).values()) == 1
        assert daemon.stop() == 0
        assert not daemon.count("BACKOFF"), daemon.said()
        assert not node.holds("192.0.2.50")
        assert "100:" not in node.ip("rule")
