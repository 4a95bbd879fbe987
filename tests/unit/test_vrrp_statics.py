"""Static addresses, routes and rules: there from start to stop, put back, followed by their track groups."""

import itertools

from msgspec.structs import replace

from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import VirtualAddress, VrrpInstance
from kad_vrrp.core.actions import AddressEntry, Entry
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.events import AddressDeleted, LinkRemoved, RouteDeleted, RouteReplaced, StopRequested
from tests.support.configuration import assert_as_annotated
from tests.support.vrrp_host import SECOND, Killed, instance, link
from tests.support.vrrp_playbook import Playbook

ADDRESS = AddressEntry("eth1", "10.1.0.9", 24)
ROUTE = Route(4, "192.168.0.0", 16, gateway="10.1.0.254", interface="eth1")
RULE = Rule(4, 50, table=100)
ALL = (ADDRESS, ROUTE, RULE)
NAMES = ["10.1.0.9", "192.168.0.0", "50"]
LINKS = (link(), link("eth1", "10.1.0.1", index=3))


def machine(*configs: VrrpInstance, statics: tuple[Entry, ...] = ALL) -> Playbook:
    book = Playbook(*configs, links=LINKS)
    book.statics = statics
    return book.start()


def present(book: Playbook) -> list[str]:
    return sorted(book.addresses + book.routes)


def plans(book: Playbook) -> list[str]:
    return [line for line in book.lines() if line.startswith(("add", "remove"))]


def test_they_are_there_from_start_to_stop_with_no_instance_at_all() -> None:
    book = machine()
    assert plans(book) == ["add 10.1.0.9 192.168.0.0 50"]
    assert book.engine.settled
    assert [(each.text, each.present) for each in book.engine.report().statics] == [
        ("address 10.1.0.9/24 dev eth1", True),
        ("route 192.168.0.0/16 via 10.1.0.254 dev eth1", True),
        ("rule 50: from all lookup 100", True),
    ]
    book.tell(StopRequested())
    assert plans(book) == ["remove 50 192.168.0.0 10.1.0.9"]
    assert present(book) == [] and book.stopped
    assert book.objects == {}


def test_they_go_last_and_with_v_too() -> None:
    book = machine(instance())
    book.boot(EngineSettings(keep_vips_at_stop=True))
    book.run_for(4 * SECOND)
    book.lines()
    book.tell(StopRequested())
    assert present(book) == ["10.0.0.100", "10.0.0.101"]
    book = machine(instance())
    book.run_for(4 * SECOND)
    book.lines()
    book.tell(StopRequested())
    assert plans(book) == ["remove 10.0.0.100 10.0.0.101", "remove 50 192.168.0.0 10.1.0.9"]


def test_what_was_there_before_us_stays() -> None:
    book = Playbook(links=LINKS)
    book.statics = ALL
    book.kernel.add(("eth1", "10.1.0.9", 24))
    book.start()
    book.tell(StopRequested())
    assert present(book) == ["10.1.0.9"]


def test_a_reload_changes_only_what_changed() -> None:
    book = machine(instance())
    book.run_for(4 * SECOND)
    book.lines()
    other = replace(ROUTE, destination="172.16.0.0")
    book.statics = (ADDRESS, other, RULE)
    book.reload(*book.configs)
    assert plans(book) == ["remove 192.168.0.0", "add 172.16.0.0"]
    book.reload(*book.configs)
    assert plans(book) == []
    book.statics = ()
    book.reload(*book.configs)
    assert plans(book) == ["remove 50 172.16.0.0 10.1.0.9"]
    assert "statics" not in book.objects
    assert book.state() == "MASTER"


def test_an_address_moves_from_static_to_virtual() -> None:
    book = machine(instance(), statics=(AddressEntry("eth0", "10.0.0.55", 24),))
    book.run_for(4 * SECOND)
    book.statics = ()
    book.reload(instance(virtual_addresses=(VirtualAddress("10.0.0.55", 24),)))
    assert present(book) == ["10.0.0.55"]
    assert book.state() == "MASTER"


def test_what_others_delete_is_put_back_at_once_the_first_time() -> None:
    book = machine()
    book.lines()
    book.kernel.discard(("eth1", "10.1.0.9", 24))
    book.tell(AddressDeleted("eth1", "10.1.0.9", 24, "'networkd' (process 7)"))
    book.run_for(0)
    assert present(book) == NAMES
    book.kernel.discard(RULE)
    book.tell(RouteDeleted(RULE))
    book.run_for(0)
    assert present(book) == NAMES
    assert any("was deleted by 'networkd' (process 7); putting it back" in text for text in book.logs())


def test_a_writer_that_keeps_fighting_is_met_ever_less_often() -> None:
    book = machine()
    times = []
    start_us = book.now_us
    for _ in range(3000):
        if ROUTE in book.kernel:
            times.append(book.now_us - start_us)
            book.kernel.discard(ROUTE)
            book.tell(RouteDeleted(ROUTE, "'zebra' (process 7)"))
        book.run_for(SECOND // 10)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] <= SECOND // 5
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 30 * SECOND
    assert len(times) < 20
    book.run_for(70 * SECOND)
    assert ROUTE in book.kernel
    book.kernel.discard(ROUTE)
    book.tell(RouteDeleted(ROUTE))
    book.run_for(0)
    assert ROUTE in book.kernel, "after a calm minute at once again"


def test_an_address_that_is_put_back_brings_its_routes_along() -> None:
    book = machine()
    book.lines()
    book.kernel.discard(("eth1", "10.1.0.9", 24))
    book.kernel.discard(ROUTE)
    book.refuses.add("192.168.0.0")
    book.set_link(link("eth1", "10.1.0.2", index=3))
    book.refuses.clear()
    book.tell(AddressDeleted("eth1", "10.1.0.9", 24))
    book.run_for(0)
    assert present(book) == NAMES


def test_a_replaced_route_is_put_back_ever_less_often() -> None:
    book = machine()
    book.lines()
    for _ in range(100):
        book.tell(RouteReplaced(ROUTE, "'zebra' (process 7) with protocol 11"))
        book.run_for(SECOND // 10)
    lines = book.lines(everything=True)
    assert 3 <= sum(line == "add 192.168.0.0" for line in lines) <= 5
    assert any("was replaced by 'zebra' (process 7) with protocol 11 again" in line for line in lines)


def test_no_track_is_not_minded() -> None:
    loose = replace(ROUTE, no_track=True)
    book = machine(statics=(loose, replace(ADDRESS, no_track=True)))
    book.kernel.clear()
    book.tell(RouteDeleted(loose))
    book.tell(AddressDeleted("eth1", "10.1.0.9", 24))
    book.run_for(SECOND)
    assert present(book) == []


def test_what_goes_with_its_link_comes_back_with_it() -> None:
    book = machine()
    book.set_link(link("eth1", "10.1.0.1", index=3, up=False))
    book.kernel.clear()
    book.tell(AddressDeleted("eth1", "10.1.0.9", 24))
    book.run_for(SECOND)
    assert present(book) == []
    book.set_link(link("eth1", "10.1.0.1", index=3))
    assert present(book) == NAMES
    book.tell(LinkRemoved("eth1"))
    book.kernel.clear()
    book.set_link(link("eth1", "10.1.0.1", index=9))
    assert present(book) == NAMES


def test_a_refusal_is_said_once_and_asked_again_later() -> None:
    book = Playbook(links=LINKS)
    book.statics = ALL
    book.refuses.add("192.168.0.0")
    book.start()
    assert present(book) == ["10.1.0.9", "50"]
    book.run_for(35 * SECOND)
    logged = [text for text in book.logs() if "cannot add static route" in text]
    asked = [line for line in plans(book) if line == "add 192.168.0.0"]
    assert (len(logged), len(asked)) == (1, 3)
    book.refuses.clear()
    book.run_for(10 * SECOND)
    assert present(book) == NAMES


def test_every_crash_at_the_start_is_gone_on_with() -> None:
    number = 0
    while True:
        book = Playbook(instance(), links=LINKS)
        book.statics = ALL
        try:
            book.boot(kill_after=number)
        except Killed:
            book.start()
        finished = book.kill_after is not None
        book.kill_after = None
        assert set(NAMES) <= set(present(book)), number
        book.tell(StopRequested())
        assert present(book) == [], number
        if finished:
            return
        number += 1


def test_a_restart_in_a_reload_removes_what_only_the_former_generation_had() -> None:
    book = machine()
    book.previous_statics, book.statics = book.statics, (ADDRESS,)
    book.generation += 1
    book.start()
    assert present(book) == ["10.1.0.9"]


def test_a_withdrawing_child_leaves_them() -> None:
    book = machine(instance())
    book.run_for(4 * SECOND)
    book.boot(EngineSettings(withdraw=True))
    book.run_for(SECOND)
    assert present(book) == NAMES
    assert "statics" in book.objects


TRACKED = """
track_group G {
    group {
        A
        nobody # group-member/0
    }
}
static_ipaddress {
    10.9.9.9/24 dev eth1 track_group G
    10.9.9.8/24 dev eth5
}
static_routes {
    10.0.0.0/8 via 192.0.2.1 dev eth2 track_group G
    10.2.0.0/16 dev eth6 track_group G no_track
}
static_rules {
    iif eth3 table 100 preference 50 track_group G
}
vrrp_instance A {
    interface eth0
    virtual_router_id 1
    virtual_ipaddress {
        10.0.0.1
    }
}
vrrp_instance B {
    interface eth0
    virtual_router_id 2
    virtual_ipaddress {
        10.0.0.2
    }
}
"""


def test_instances_of_a_track_group_follow_the_interfaces_of_its_items() -> None:
    one, other = assert_as_annotated(TRACKED).config.vrrp.instances
    assert (one.static_interfaces, other.static_interfaces) == (("eth1", "eth2", "eth3"), ())
    book = machine(instance(static_interfaces=("eth1",)))
    book.run_for(4 * SECOND)
    assert book.state() == "MASTER"
    book.set_link(link("eth1", "10.1.0.1", index=3, up=False))
    assert book.state() == "FAULT"
    assert "eth1 of a static item is down" in book.engine.report().instances[0].fault
