"""nftables_ipvs in the engine: which group has which mark, and when the rules are told."""

from __future__ import annotations

from kad.config.model.check import CheckConfiguration
from kad_check.core.actions import Action, MarkTraffic, ReplaceServices
from kad_check.core.events import AddressesChanged, StopRequested
from kad_check.core.ipvs_state import Service
from tests.support.check_host import CheckHost
from tests.support.configuration import SECURE, read

A, B = "10.0.0.1-3 80\n10.0.0.9 81", "2001:db8::1 80"


def configuration(
    *groups: str, settings: str = "", protocols: tuple[str, ...] = ("TCP",)
) -> CheckConfiguration:
    """A virtual server for each group and protocol; a group is a name and its addresses."""
    text = ""
    for group in groups:
        name, _, addresses = group.partition(" ")
        text += f"virtual_server_group {name} {{\n{addresses}\n}}\n"
        for protocol in protocols:
            text += (
                f"virtual_server group {name} {{\nlvs_sched rr\nlvs_method TUN\nprotocol {protocol}\n"
                f"ha_suspend\nreal_server 192.0.2.11 80 {{\n}}\n}}\n"
            )
    loaded = read(text, f"{SECURE}\nnftables_ipvs t\n{settings}")
    return loaded.config.check


def started(*groups: str, **words: object) -> CheckHost:
    host = CheckHost(configuration(*groups, **words))  # type: ignore[arg-type]
    host.start()
    return host


def marks(host: CheckHost) -> dict[tuple[str, str], int]:
    """First address and protocol -> mark."""
    return {(each.first, each.protocol.value): each.mark for each in host.marks}


def services(actions: list[Action]) -> list[Service]:
    (replaced,) = [action for action in actions if isinstance(action, ReplaceServices)]
    return [service for pool in replaced.pools for service in pool.services]


def test_a_mark_for_each_group_and_protocol() -> None:
    host = started(f"a {A}", f"b {B}", protocols=("TCP", "UDP"))
    assert marks(host) == {
        ("10.0.0.1", "TCP"): 1000,
        ("10.0.0.9", "TCP"): 1000,
        ("10.0.0.1", "UDP"): 1001,
        ("10.0.0.9", "UDP"): 1001,
        ("2001:db8::1", "TCP"): 1002,
        ("2001:db8::1", "UDP"): 1003,
    }
    found = services(host.reload(host.configuration))
    assert [(service.fwmark, service.family) for service in found] == [
        (1000, 4),
        (1001, 4),
        (1002, 6),
        (1003, 6),
    ]
    assert all(service.protocol is None and not service.address for service in found)


def test_the_services_come_first() -> None:
    host = started(f"a {A}")
    kinds = [type(action) for action in host.done if isinstance(action, ReplaceServices | MarkTraffic)]
    assert kinds == [ReplaceServices, MarkTraffic]
    host.done.clear()
    host.reload(host.configuration)
    assert not any(isinstance(action, MarkTraffic) for action in host.done), "nothing differs"


def test_another_priority_is_another_chain() -> None:
    def told(settings: str, *groups: str) -> list[int]:
        host.done.clear()
        host.reload(configuration(*groups, settings=settings))
        return [action.priority for action in host.done if isinstance(action, MarkTraffic)]

    host = started(f"a {A}")
    assert told("nftables_ipvs_priority 7", f"a {A}") == [7] and len(host.marks) == 2
    assert told("nftables_ipvs_priority 7", f"a {A}") == []
    assert told("", f"a {A}") == [-1]
    assert told("") == [-1] and host.marks == ()
    assert told("nftables_ipvs_priority 9") == [], "there is no chain"
    assert told("nftables_ipvs_priority 9", f"a {A}") == [9]


def test_a_group_of_both_families_is_two_services() -> None:
    host = CheckHost(configuration(f"a {A}\n{B}"))
    assert [(s.fwmark, s.family) for s in services(host.start())] == [(1000, 4), (1000, 6)]


def test_a_group_with_marks_of_its_own_keeps_its_addresses() -> None:
    host = CheckHost(configuration(f"a {A}\nfwmark 7"))
    assert [s.fwmark for s in services(host.start())] == [0, 0, 7]
    assert host.marks == ()


def test_marks_are_kept_and_not_given_out_again() -> None:
    host = started(f"b {B}", settings="nftables_ipvs_start_fwmark 50")
    host.reload(configuration(f"a {A}", f"b {B}"))
    assert marks(host)["2001:db8::1", "TCP"] == 50 and marks(host)["10.0.0.1", "TCP"] == 1000
    host = host.reborn()
    host.start()
    assert marks(host)["2001:db8::1", "TCP"] == 50 and marks(host)["10.0.0.1", "TCP"] == 1000
    host.reload(configuration(f"b {B}"))
    assert marks(host) == {("2001:db8::1", "TCP"): 50}
    host.reload(configuration(f"a {A}", f"b {B}"))
    assert marks(host)["10.0.0.1", "TCP"] == 1001


def test_the_end_takes_them_back() -> None:
    host = started(f"a {A}")
    host.feed(StopRequested())
    assert host.marks == () and host.stopped and host.journal == {}


def test_a_failure_is_told_and_tried_again_by_the_next_reload() -> None:
    host = CheckHost(configuration(f"a {A}"), marking_failure="EINVAL")
    host.start()
    assert any("EINVAL" in line for line in host.logged()) and host.engine.settled
    host.marking_failure = ""
    host.reload(host.configuration)
    assert len(host.marks) == 2


def test_suspending_looks_at_the_addresses() -> None:
    host = started(f"a {A}")
    host.feed(AddressesChanged(frozenset({"10.0.0.2"})))
    assert not host.engine.report().virtual_servers[0].suspended
    host.feed(AddressesChanged(frozenset({"10.0.0.4"})))
    assert host.engine.report().virtual_servers[0].suspended
