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
