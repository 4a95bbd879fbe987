"""A kernel that cannot be spoken to, or does not answer in time: each interface fails, and no more."""

import pytest

from kad.config.model.vrrp import VirtualLink
from kad.kernel.conversation import Conversation
from kad_vrrp.io import link_maker
from tests.support.limits import no_descriptors

LINKS = (VirtualLink("vrrp.1", "eth0", mac="00:00:5e:00:01:01"), VirtualLink("ipvlan1", "eth1"))
NAMES = ["vrrp.1", "ipvlan1"]


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(Conversation, "request", request)


def test_without_a_socket_every_interface_fails() -> None:
    for work in (link_maker.make, link_maker.raise_, link_maker.remove):
        with no_descriptors():
            failures = work(LINKS)
        assert list(failures) == NAMES, work
        assert all("Too many open files" in reason for reason in failures.values())


def test_without_an_answer_every_interface_fails(silence: None) -> None:
    for work in (link_maker.make, link_maker.raise_, link_maker.remove):
        failures = work(LINKS)
        assert list(failures) == NAMES, work
        assert all("timed out" in reason for reason in failures.values())


def vmac(name: str, mac: str = "00:00:5e:00:01:33", base: str = "eth0") -> VirtualLink:
    return VirtualLink(name, base, mac)


@pytest.mark.parametrize(
    ("there", "wanted", "aside"),
    [
        ([vmac("vrrp.51")], [vmac("vip51")], ["vrrp.51"]),
        ([vmac("vrrp.51")], [vmac("vrrp.51")], []),
        ([vmac("vrrp.51")], [vmac("vip51", base="eth1")], []),
        ([vmac("vrrp.51", "00:00:5E:00:01:33")], [vmac("vip51")], ["vrrp.51"]),
        ([VirtualLink("ipvlan1", "eth0")], [VirtualLink("ipvlan2", "eth0")], []),
        (
            [vmac("a"), vmac("b", "00:00:5e:00:01:34")],
            [vmac("b"), vmac("a", "00:00:5e:00:01:34")],
            ["a", "b"],
        ),
    ],
    ids=["renamed", "kept", "another base", "spelt otherwise", "no MAC of its own", "exchanged"],
)
def test_what_has_the_mac_of_another_of_ours_is_in_the_way(
    there: list[VirtualLink], wanted: list[VirtualLink], aside: list[str]
) -> None:
    fresh = [link for link in wanted if link not in there]
    found = link_maker.in_the_way(there, fresh, {link.name: link for link in wanted})
    assert [link.name for link in found] == aside
