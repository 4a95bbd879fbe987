"""What the log says of changes of state and of interfaces, and at which level: keepalived's words."""

import pytest

from kad.config.model.vrrp import SyncGroup, TrackedItem, Tracking, VirtualLink, Vmac, VrrpConfiguration
from kad_vrrp.core.actions import LogLevel, State, StateChanged
from kad_vrrp.core.events import LinkChanged, LinkRemoved
from kad_vrrp.core.log_lines import LinkNews, lines_of_change
from tests.support.vrrp_host import SECOND, instance
from tests.support.vrrp_playbook import Playbook

PEER = "10.0.0.9"
INFO, DEBUG, WARNING = LogLevel.INFO, LogLevel.DEBUG, LogLevel.WARNING


def link(name: str, *, up: bool) -> LinkChanged:
    return LinkChanged(name, 7, up, b"\2\0\0\0\0\7", 1500, True, True, ())


def change(old: State, new: State, reason: str = "why") -> list[tuple[LogLevel, str]]:
    return [(line.level, line.text) for line in lines_of_change(StateChanged("VI_1", old, new, reason, 100))]


def test_every_change_of_a_living_router_says_why_at_the_ordinary_level() -> None:
    for old, new in (
        (State.MASTER, State.BACKUP),
        (State.BACKUP, State.MASTER),
        (State.FAULT, State.BACKUP),
        (State.FAULT, State.MASTER),
    ):
        assert change(old, new) == [(INFO, "(VI_1) why"), (INFO, f"(VI_1) Entering {new.value} STATE")]


def test_fault_says_why_as_a_warning_and_what_can_be_done() -> None:
    assert change(State.INIT, State.FAULT)[0] == (WARNING, "(VI_1) why")
    told = change(State.MASTER, State.FAULT, "the kernel refused a virtual address")[0][1]
    assert told.endswith("belongs in virtual_ipaddress_excluded")


def test_start_and_stop_say_why_in_detail_only() -> None:
    assert change(State.INIT, State.BACKUP) == [
        (DEBUG, "(VI_1) why"),
        (INFO, "(VI_1) Entering BACKUP STATE (init)"),
    ]
    assert change(State.MASTER, State.INIT) == [(DEBUG, "(VI_1) why")]


@pytest.mark.parametrize(
    ("source", "priority", "told"),
    [
        (PEER, 103, f"Master received advert from {PEER} with higher priority 103, ours 102"),
        (
            PEER,
            102,
            f"Master received advert from {PEER} with same priority 102 but higher IP address than ours",
        ),
    ],
)
def test_a_lost_election_is_told_once_however_many_adverts_come(
    source: str, priority: int, told: str
) -> None:
    book = Playbook(instance(priority=102)).start_as_master()
    book.actions.clear()
    for _ in range(50):
        book.hear(priority=priority, source=source)
        book.run_for(SECOND // 100)
    moves = [action for action in book.actions if isinstance(action, StateChanged)]
    assert [line.text for move in moves for line in lines_of_change(move)] == [
        f"(VI_1) {told}",
        "(VI_1) Entering BACKUP STATE",
    ]


def test_interfaces_that_matter_are_told_of_with_each_turn() -> None:
    news = LinkNews()
    tracking = Tracking(interfaces=(TrackedItem("eth2"),))
    group = SyncGroup("G", ("VI_1",), tracking)
    eth0 = link("eth0", up=True)
    news.watch(VrrpConfiguration(instances=(instance(),), sync_groups=(group,)), {"eth0": eth0}.get)
    assert news.heard(eth0) == []
    assert news.heard(link("eth0", up=False)) == ["Netlink reports eth0 down"]
    assert news.heard(link("eth0", up=False)) == []
    assert news.heard(link("eth0", up=True)) == ["Netlink reports eth0 up"]
    assert news.heard(LinkRemoved("eth0")) == ["Netlink reports eth0 down", "Interface eth0 deleted"]
    assert news.heard(link("eth0", up=True)) == ["Netlink reports eth0 up"]
    assert news.heard(link("eth1", up=True)) == []
    assert news.heard(link("eth2", up=True)) == ["Netlink reports eth2 up"]
    news.watch(VrrpConfiguration(instances=(instance(),)), {"eth0": eth0}.get)
    assert news.heard(link("eth2", up=False)) == []


def test_one_of_our_own_is_no_news_when_it_is_made_and_is_when_another_takes_it_away() -> None:
    news = LinkNews()
    config = instance(vmac=Vmac(name="vip51", mac="00:00:5e:00:01:33"))
    news.watch(VrrpConfiguration(instances=(config,), virtual_links=(VirtualLink("vip51", "eth0"),)), {}.get)
    assert [news.heard(link("vip51", up=up)) for up in (False, True)] == [[], []]
    assert news.heard(LinkRemoved("vip51")) == ["Netlink reports vip51 down", "Interface vip51 deleted"]
    assert [news.heard(link("vip51", up=up)) for up in (False, True)] == [[], ["Netlink reports vip51 up"]]
