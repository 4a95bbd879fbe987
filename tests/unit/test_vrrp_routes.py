"""Virtual routes and rules: they come after the addresses, go before them, and are minded like them."""

import pytest
from msgspec.structs import replace

from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import VrrpInstance
from kad_vrrp.core.actions import ChangeAddresses
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.events import AddressDeleted, RouteDeleted, RouteReplaced, RoutesDoubted, StopRequested
from tests.support.vrrp_host import SECOND, Killed, instance, link
from tests.support.vrrp_playbook import Playbook

ROUTE = Route(4, "192.168.0.0", 16, gateway="10.0.0.254", interface="eth1")
RULE = Rule(4, 50, table=100, source="10.0.0.0", source_length=8)
LINKS = (link(), link("eth1", "10.1.0.1", index=3))


def routed(**changes: object) -> VrrpInstance:
    return instance(**({"virtual_routes": (ROUTE,), "virtual_rules": (RULE,)} | changes))


def master(**changes: object) -> Playbook:
    return Playbook(routed(**changes), links=LINKS).start_as_master()


def plans(book: Playbook) -> list[str]:
    return [line for line in book.lines() if line.startswith(("add", "remove"))]


def test_they_follow_the_addresses_and_go_before_them() -> None:
    book = Playbook(routed(), links=LINKS)
    book.start()
    assert plans(book) == ["remove 50 192.168.0.0 10.0.0.100 10.0.0.101"], "what another has left"
    book.run_for(4 * SECOND)
    assert plans(book) == ["add 10.0.0.100 10.0.0.101 192.168.0.0 50"]
    assert book.routes == ["192.168.0.0", "50"]
    book.hear(200)
    assert plans(book) == ["remove 50 192.168.0.0 10.0.0.100 10.0.0.101"]
    assert book.routes == []


def test_their_interfaces_are_tracked_but_for_no_track() -> None:
    for changes in ({}, {"virtual_routes": (), "virtual_rules": (replace(RULE, output_interface="eth1"),)}):
        book = master(**changes)
        book.set_link(link("eth1", "10.1.0.1", index=3, up=False))
        assert book.state() == "FAULT"
        assert "eth1" in book.engine.report().instances[0].fault
        assert book.routes == []
        book.set_link(link("eth1", "10.1.0.1", index=3))
        assert book.state() == "BACKUP"
    loose = (replace(ROUTE, no_track=True),)
    book = master(virtual_routes=loose, virtual_rules=(replace(RULE, no_track=True),))
    book.set_link(link("eth1", "10.1.0.1", index=3, up=False))
    assert book.state() == "MASTER"


@pytest.mark.parametrize("lost", [ROUTE, RULE])
def test_a_deletion_makes_the_master_step_down_and_come_back(lost: Route | Rule) -> None:
    book = master()
    book.kernel.discard(lost)
    book.tell(RouteDeleted(lost, "'zebra' (process 7)"))
    book.run_for(0)
    assert book.state() == "BACKUP"
    assert "deleted by 'zebra' (process 7)" in book.engine.report().instances[0].reason
    book.run_for(SECOND)
    assert book.state() == "MASTER"
    assert book.routes == ["192.168.0.0", "50"]


def test_a_writer_that_keeps_fighting_does_not_flap_the_router() -> None:
    book = master()
    moves = []
    for _ in range(400):
        book.run_for(SECOND // 10)
        if ROUTE in book.kernel:
            book.kernel.discard(ROUTE)
            book.tell(RouteDeleted(ROUTE))
    moves = [line for line in book.lines() if line.startswith("MASTER ->")]
    assert 3 <= len(moves) <= 5, "once in ten seconds of the forty"


def test_a_replaced_route_is_set_again_without_a_change_of_state() -> None:
    book = master()
    for _ in range(30):
        book.tell(RouteReplaced(ROUTE, "'dhclient' (process 7) with protocol 16"))
        book.run_for(SECOND // 10)
    lines = book.lines(everything=True)
    assert sum("was replaced by 'dhclient'" in line for line in lines) == 1
    assert sum(line == "add 192.168.0.0 50" for line in lines) == 3
    assert book.state() == "MASTER"


def test_what_is_not_tracked_is_not_minded_and_may_be_refused() -> None:
    loose = replace(ROUTE, no_track=True)
    book = master(virtual_routes=(loose,))
    book.kernel.discard(loose)
    book.tell(RouteDeleted(loose))
    book.run_for(SECOND)
    assert book.state() == "MASTER"
    book = Playbook(routed(virtual_routes=(loose,)), links=LINKS)
    book.refuses.add("192.168.0.0")
    book.start()
    book.run_for(10 * SECOND)
    assert book.state() == "MASTER"
    assert book.routes == ["50"]
    asked = [line for line in plans(book) if "192.168.0.0" in line and line.startswith("add")]
    assert len(asked) == 1, "not again and again"


def test_one_that_expires_is_not_missed() -> None:
    book = master(virtual_routes=(replace(ROUTE, expires=30),))
    book.tell(RouteDeleted(replace(ROUTE, expires=30)))
    book.run_for(SECOND)
    assert book.state() == "MASTER"


def test_a_refused_route_is_missed_without_giving_up_mastery() -> None:
    book = Playbook(routed(), links=LINKS)
    book.refuses.add("192.168.0.0")
    book.start()
    book.run_for(15 * SECOND)
    assert book.state() == "MASTER"
    assert book.addresses and book.routes == ["50"]
    said = [text for text in book.logs() if "cannot add route 192.168.0.0/16" in text]
    assert len(said) == 1
    assert "192.168.0.0/16" in book.engine.report().instances[0].error


def test_a_reload_changes_only_what_changed() -> None:
    book = master()
    other = replace(ROUTE, destination="172.16.0.0")
    book.reload(routed(virtual_routes=(ROUTE, other)))
    assert plans(book) == ["add 172.16.0.0"]
    book.reload(routed(virtual_routes=(other,)))
    assert plans(book) == ["remove 192.168.0.0"]
    book.reload(routed(virtual_routes=(replace(other, metric=5),), virtual_rules=()))
    assert plans(book) == ["remove 50 172.16.0.0", "add 172.16.0.0"]
    assert book.state() == "MASTER"


def test_what_the_kernel_may_have_dropped_is_set_once_more() -> None:
    book = master(virtual_routes=(replace(ROUTE, no_track=True),))
    down = link("eth1", "10.1.0.1", index=3, up=False)
    book.set_link(down)
    book.kernel.discard(replace(ROUTE, no_track=True))
    assert plans(book) == []
    book.set_link(link("eth1", "10.1.0.1", index=3))
    book.run_for(SECOND)
    assert plans(book) == ["add 192.168.0.0 50"]
    book.tell(RoutesDoubted())
    book.run_for(SECOND)
    assert plans(book) == ["add 192.168.0.0 50"]
    assert book.state() == "MASTER"


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_doubted_while_it_is_being_added_is_asked_for_once_more(refused: bool) -> None:
    """The kernel's answer may be older than the loss, and its refusal older than what made it possible."""
    book = Playbook(routed(), links=LINKS)
    book.start()
    if refused:
        book.refuses.add("192.168.0.0")
    book.hold_answers = True
    book.run_for(4 * SECOND)
    assert plans(book)[-1] == "add 10.0.0.100 10.0.0.101 192.168.0.0 50"
    book.kernel.discard(ROUTE)
    book.refuses.clear()
    book.tell(RoutesDoubted())
    # Longer than a doubt waits by itself.
    book.run_for(2 * SECOND)
    book.hold_answers = False
    book.answer()
    assert book.routes == ["192.168.0.0", "50"]
    assert book.state() == "MASTER"


def test_what_was_refused_in_between_is_tried_again_with_what_is_put_back() -> None:
    book = master()
    book.kernel.discard(ROUTE)
    book.refuses.add("192.168.0.0")
    book.tell(RoutesDoubted())
    book.reload(routed(virtual_rules=(RULE, replace(RULE, preference=60))))
    assert book.routes == ["50", "60"], "asked for too early"
    book.refuses.clear()
    book.run_for(SECOND)
    assert book.routes == ["192.168.0.0", "50", "60"]


def test_every_crash_in_a_take_over_is_gone_on_with() -> None:
    """Killed after each action, the next life ends with everything in place, and gives everything back."""
    number = 0
    while True:
        book = Playbook(routed(), links=LINKS).start()
        book.kill_after = number
        try:
            book.run_for(4 * SECOND)
        except Killed:
            book.start()
            book.run_for(10 * SECOND)
        assert book.routes == ["192.168.0.0", "50"], number
        assert book.addresses == ["10.0.0.100", "10.0.0.101"]
        finished, book.kill_after = book.kill_after is not None, None
        book.tell(StopRequested())
        assert book.routes == [] and book.addresses == []
        if finished:
            return
        number += 1


def test_a_route_that_was_there_before_us_stays() -> None:
    book = Playbook(routed(), links=LINKS).start()
    book.kernel.add(ROUTE)
    book.run_for(4 * SECOND)
    book.hear(200)
    assert book.routes == ["192.168.0.0"]


def test_a_route_of_two_masters_stays_when_one_of_them_leaves() -> None:
    second = routed(name="VI_2", virtual_router_id=52, virtual_addresses=())
    book = Playbook(routed(), second, links=LINKS)
    book.start()
    book.run_for(4 * SECOND)
    book.hear(200, config=second)
    assert (book.state("VI_1"), book.state("VI_2")) == ("MASTER", "BACKUP")
    book.run_for(SECOND)
    assert book.routes == ["192.168.0.0", "50"]


def test_a_restart_in_a_reload_removes_what_only_the_former_generation_had() -> None:
    book = master()
    book.previous = book.configs
    book.configs = (routed(virtual_rules=()),)
    book.generation += 1
    book.start()
    book.run_for(0)
    assert book.routes == ["192.168.0.0"]


def test_the_report_tells_what_is_there() -> None:
    book = Playbook(routed(), links=LINKS).start()
    assert [each.present for each in book.engine.report().instances[0].routes] == [False, False]
    book.run_for(4 * SECOND)
    report = book.engine.report().instances[0]
    assert [(each.text, each.present) for each in report.routes] == [
        ("route 192.168.0.0/16 via 10.0.0.254 dev eth1", True),
        ("rule 50: from 10.0.0.0/8 lookup 100", True),
    ]
    assert [each.address for each in report.addresses] == ["10.0.0.100", "10.0.0.101"]


def test_plans_are_described() -> None:
    book = master()
    actions = [each for each in book.actions if isinstance(each, ChangeAddresses)]
    assert all(describe(entry) for each in actions for entry in (*each.add, *each.remove))


@pytest.mark.parametrize(
    "event",
    [AddressDeleted("eth0", "10.0.0.100", 24), RouteDeleted(ROUTE), RouteReplaced(ROUTE, "another")],
    ids=lambda event: type(event).__name__,
)
def test_in_init_what_others_delete_is_no_news(event: AddressDeleted | RouteDeleted | RouteReplaced) -> None:
    """The simulator meets these hardly ever: there is nothing set that could be deleted."""
    book = Playbook(routed(), links=LINKS)
    book.hold_answers = True
    book.boot()
    assert book.state() == "INIT"
    book.tell(event)
    assert book.state() == "INIT"
    book.hold_answers = False
    book.answer()
    book.run_for(5 * SECOND)
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]
    assert book.routes == ["192.168.0.0", "50"]
