"""Plans of addresses against a real kernel: answers, marks, collateral losses, foreign hands."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from kad.config.model.routing import Route, Rule, RuleAction
from kad.kernel import batch
from kad.kernel.batch import ReceiveBuffer
from kad_vrrp.core.actions import AddressEntry, ChangeAddresses
from kad_vrrp.core.events import AddressDeleted, Event, LinkChanged, LinkRemoved, PlanDone
from kad_vrrp.io.addresses import PAUSES_S, Addresses
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

NODAD = 0x02


class Fixture:
    """Addresses in a node with eth0, and every event they told."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.events: list[Event] = []
        self.logged: list[str] = []
        self.serial = 0
        self.pauses: list[float] = []
        self.before_repeating: Callable[[], None] = lambda: None
        with node.entered():
            self.addresses = Addresses(self.events.append, self.logged.append, lambda: None, self.later)
        self.addresses.start()
        self.until(lambda: self.told(LinkChanged), "the links")

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """At once, and what the kernel is like then is the test's affair."""
        self.pauses.append(seconds)
        self.before_repeating()
        call()

    def turn(self) -> None:
        self.addresses.monitor.drain()
        self.addresses.requests.drain()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return poll(lambda: (self.turn(), condition())[1], what)

    def settle(self) -> None:
        """Read all that the kernel has said by now."""
        while self.addresses.monitor.drain() or self.addresses.requests.drain() or self.addresses.busy:
            pass

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def deletions(self) -> list[AddressDeleted]:
        """Those told, whoever did it."""
        return [replace(event, culprit="") for event in self.told(AddressDeleted)]

    def plan(self, *, remove: tuple[AddressEntry, ...] = (), add: tuple[AddressEntry, ...] = ()) -> PlanDone:
        self.serial += 1
        serial = self.serial
        self.addresses.change(ChangeAddresses("VI", serial, remove, add))
        return self.settle_plan(serial)

    def settle_plan(self, serial: int) -> PlanDone:
        done: list[PlanDone] = self.until(
            lambda: [event for event in self.told(PlanDone) if event.serial == serial], "the plan"
        )
        return done[0]


@pytest.fixture
def fixture(network: Network) -> Iterator[Fixture]:
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24", "2001:db8::1/64")
    made = Fixture(node)
    yield made
    made.addresses.close()


def entry(address: str, length: int = 24, **fields: Any) -> AddressEntry:
    flags = NODAD if ":" in address else 0
    return AddressEntry("eth0", address, length, flags=flags, **fields)


def described(node: Node, address: str) -> dict[str, Any]:
    for link in node.ip_json("addr", "show", "dev", "eth0"):
        for found in link["addr_info"]:
            if found["local"] == address:
                return dict(found)
    raise AssertionError(address)


def test_the_links_are_told_first(fixture: Fixture) -> None:
    links = {link.name: link for link in fixture.told(LinkChanged)}
    assert links["eth0"].up
    assert {"192.0.2.1", "2001:db8::1"} <= set(links["eth0"].addresses)


def test_both_families_are_added_and_removed(fixture: Fixture) -> None:
    four, six = entry("192.0.2.100"), entry("2001:db8::100", 64)
    done = fixture.plan(add=(four, six))
    assert (done.failures, done.existed) == ((), ())
    assert fixture.node.holds("192.0.2.100") and fixture.node.holds("2001:db8::100")
    done = fixture.plan(remove=(four, six))
    assert done.failures == ()
    assert not fixture.node.holds("192.0.2.100") and not fixture.node.holds("2001:db8::100")
    fixture.settle()
    assert fixture.told(AddressDeleted) == []


def test_every_attribute_arrives(fixture: Fixture) -> None:
    done = fixture.plan(
        add=(
            entry("10.5.0.100", broadcast="10.5.0.255", label="eth0:vip", scope=253),
            entry("192.0.2.101", 32, peer="192.0.2.201"),
            entry("2001:db8::100", 128, preferred_lifetime=0),
        )
    )
    assert done.failures == ()
    first = described(fixture.node, "10.5.0.100")
    assert (first["broadcast"], first["label"], first["scope"]) == ("10.5.0.255", "eth0:vip", "link")
    second = described(fixture.node, "192.0.2.101")
    assert second["address"] == "192.0.2.201"
    third = described(fixture.node, "2001:db8::100")
    assert third["deprecated"] is True
    assert third["nodad"] is True
    # iproute2 names protocol 18 only where its tables know it.
    assert first.get("protocol", "keepalived") in ("keepalived", "18", "0x12", 18)


def test_ours_are_no_source_addresses(fixture: Fixture) -> None:
    before = len(fixture.told(LinkChanged))
    fixture.plan(add=(entry("192.0.2.100"), entry("2001:db8::100", 64)))
    fixture.settle()
    assert len(fixture.told(LinkChanged)) == before
    fixture.node.ip("addr", "add", "192.0.2.3/24", "dev", "eth0")
    fixture.until(lambda: len(fixture.told(LinkChanged)) > before, "the change")
    assert "192.0.2.100" not in fixture.told(LinkChanged)[-1].addresses
    assert fixture.told(LinkChanged)[-1].addresses[0] == "192.0.2.1"


def test_what_exists_is_success_and_said(fixture: Fixture) -> None:
    fixture.node.ip("addr", "add", "192.0.2.100/24", "dev", "eth0")
    wanted = (entry("192.0.2.100"), entry("192.0.2.101"))
    done = fixture.plan(add=wanted)
    assert done.failures == ()
    assert done.existed == (wanted[0],)


def test_what_exists_with_our_mark_is_ours(fixture: Fixture) -> None:
    wanted = entry("192.0.2.100")
    fixture.plan(add=(wanted,))
    successor = Fixture(fixture.node)
    done = successor.plan(add=(wanted,))
    assert (done.failures, done.existed) == ((), ())
    successor.addresses.close()


def test_an_owners_own_address_stays_a_source(fixture: Fixture) -> None:
    before = len(fixture.told(LinkChanged))
    done = fixture.plan(add=(entry("192.0.2.1"),))
    assert len(done.existed) == 1
    fixture.node.ip("addr", "add", "192.0.2.3/24", "dev", "eth0")
    fixture.until(lambda: len(fixture.told(LinkChanged)) > before, "the change")
    assert all("192.0.2.1" in link.addresses for link in fixture.told(LinkChanged)[before:])


def test_removing_the_absent_is_no_failure(fixture: Fixture) -> None:
    elsewhere = AddressEntry("nowhere0", "192.0.2.77", 24)
    done = fixture.plan(remove=(entry("192.0.2.100"), entry("2001:db8::100", 64), elsewhere))
    assert done.failures == ()


def test_another_prefix_length_is_another_address(fixture: Fixture) -> None:
    fixture.node.ip("addr", "add", "192.0.2.100/32", "dev", "eth0")
    fixture.plan(remove=(entry("192.0.2.100", 24),))
    assert fixture.node.holds("192.0.2.100")


def test_refusals_are_told_each(fixture: Fixture) -> None:
    fine = entry("192.0.2.100")
    bad_label = entry("192.0.2.101", label="much-longer-than-fifteen")
    elsewhere = AddressEntry("nowhere0", "192.0.2.102", 24)
    done = fixture.plan(add=(bad_label, fine, elsewhere))
    assert {(failure.entry, failure.adding) for failure in done.failures} == {
        (bad_label, True),
        (elsewhere, True),
    }
    assert any("ERANGE" in failure.reason for failure in done.failures)
    assert fixture.node.holds("192.0.2.100")


def test_what_no_message_has_room_for_is_refused_alone(fixture: Fixture) -> None:
    fine, wrong = entry("192.0.2.100"), entry("192.0.2.101", scope=999)
    route = Route(4, "198.51.100.0", 24, interface="eth0")
    bad_route = replace(route, metric=1 << 40)
    bad_rule = Rule(4, 100, RuleAction.TABLE, table=10, ip_protocol=262)
    everything = (fine, wrong, route, bad_route, bad_rule)
    done = fixture.plan(add=everything)
    assert [failure.entry for failure in done.failures] == [wrong, bad_route, bad_rule]
    assert all("cannot be put into a message" in failure.reason for failure in done.failures)
    assert fixture.node.holds("192.0.2.100")
    assert "198.51.100.0/24" in fixture.node.ip("route")
    # Withdrawing: they were never set, and everything else goes.
    done = fixture.plan(remove=tuple(reversed(everything)))
    assert done.failures == ()
    assert not fixture.node.holds("192.0.2.100")
    assert "198.51.100.0/24" not in fixture.node.ip("route")
    assert len([line for line in fixture.logged if "not removed" in line]) == 2


def test_the_remedy_of_a_refusal_is_told(fixture: Fixture) -> None:
    setting = "net.ipv6.conf.eth0.disable_ipv6"
    fixture.node.sysctl(setting, "1")
    done = fixture.plan(add=(entry("2001:db8::100", 64),))
    assert [failure.reason.endswith(f" (sysctl -w {setting}=0)") for failure in done.failures] == [True]


@pytest.mark.parametrize("address", ["192.0.2.100", "2001:db8::100"])
def test_somebody_elses_deletion_is_told_once(fixture: Fixture, address: str) -> None:
    length = 64 if ":" in address else 24
    fixture.plan(add=(entry(address, length),))
    fixture.settle()
    fixture.node.ip("addr", "del", f"{address}/{length}", "dev", "eth0")
    fixture.until(lambda: fixture.told(AddressDeleted), "the deletion")
    fixture.settle()
    assert fixture.deletions() == [AddressDeleted("eth0", address, length)]


def test_a_foreign_deletion_of_a_foreign_address_is_nothing(fixture: Fixture) -> None:
    fixture.node.ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
    fixture.node.ip("addr", "del", "192.0.2.7/24", "dev", "eth0")
    before = len(fixture.told(LinkChanged))
    fixture.node.ip("addr", "add", "192.0.2.8/24", "dev", "eth0")
    fixture.until(lambda: len(fixture.told(LinkChanged)) > before, "the later address")
    assert fixture.told(AddressDeleted) == []


def test_secondaries_lost_with_our_primary_are_put_back(fixture: Fixture) -> None:
    fixture.node.sysctl("net.ipv4.conf.eth0.promote_secondaries", "0")
    primary, ours = entry("10.9.0.1"), entry("10.9.0.2")
    fixture.plan(add=(primary, ours))
    fixture.node.ip(
        "addr", "add", "10.9.0.3/24", "dev", "eth0", "label", "eth0:adm", "broadcast", "10.9.0.255"
    )
    fixture.settle()
    fixture.plan(remove=(primary,))
    fixture.settle()
    assert fixture.addresses.put_back == 2
    assert not fixture.node.holds("10.9.0.1")
    assert fixture.node.holds("10.9.0.2") and fixture.node.holds("10.9.0.3")
    restored = described(fixture.node, "10.9.0.3")
    assert (restored["label"], restored["broadcast"]) == ("eth0:adm", "10.9.0.255")
    assert fixture.told(AddressDeleted) == []
    # Still ours: the next foreign deletion is noticed.
    fixture.node.ip("addr", "del", "10.9.0.2/24", "dev", "eth0")
    fixture.until(lambda: fixture.told(AddressDeleted), "the deletion")


def test_secondaries_removed_with_their_primary_stay_away(fixture: Fixture) -> None:
    fixture.node.sysctl("net.ipv4.conf.eth0.promote_secondaries", "0")
    every = tuple(entry(f"10.9.0.{n}") for n in range(1, 100))
    fixture.plan(add=every)
    done = fixture.plan(remove=every)
    fixture.settle()
    assert done.failures == ()
    assert fixture.addresses.put_back == 0
    assert not [a for a in fixture.node.addresses("eth0") if a.startswith("10.9.")]


def test_several_plans_at_once(fixture: Fixture) -> None:
    for number in range(50):
        wanted = tuple(entry(f"10.8.{number}.{n}", 32) for n in range(1, 11))
        fixture.addresses.change(ChangeAddresses(f"VI_{number}", number, (), wanted))
    fixture.until(lambda: len(fixture.told(PlanDone)) == 50, "every plan")
    assert [event.serial for event in fixture.told(PlanDone)] == list(range(50))
    held = [a for a in fixture.node.addresses("eth0") if a.startswith("10.8.")]
    assert len(held) == 500
    assert fixture.told(AddressDeleted) == []


@pytest.mark.parametrize("address", ["10.8.0.1/32", "2001:db8:8::1/128"])
def test_a_deletion_while_a_plan_is_under_way_is_told_after_it(fixture: Fixture, address: str) -> None:
    written, _, length = address.partition("/")
    first = entry(written, int(length))
    rest = tuple(entry(f"10.8.1.{n}", 32) for n in range(1, 201))
    # The first window is in the kernel when this returns, the others are not.
    fixture.addresses.change(ChangeAddresses("VI", 1, (), (first, *rest)))
    assert fixture.addresses.busy
    fixture.node.ip("addr", "del", address, "dev", "eth0")
    fixture.until(lambda: fixture.told(AddressDeleted), "the deletion")
    fixture.settle()
    assert fixture.deletions() == [AddressDeleted("eth0", written, int(length))]
    order = [type(event) for event in fixture.events]
    assert order.index(PlanDone) < order.index(AddressDeleted)
    assert fixture.told(PlanDone)[0].failures == ()


@pytest.mark.parametrize("address", ["10.9.0.1", "2001:db8:9::1"])
def test_removed_and_added_in_one_plan_is_no_loss(fixture: Fixture, address: str) -> None:
    one = entry(address, 64 if ":" in address else 24)
    fixture.plan(add=(one,))
    for _ in range(20):
        done = fixture.plan(remove=(one,), add=(one,))
        assert done.failures == ()
    fixture.settle()
    assert fixture.node.holds(address)
    fixture.until(lambda: fixture.addresses.table.changes() is not None, "quiet")
    assert fixture.told(AddressDeleted) == []


def test_lost_notifications_are_made_up_for(network: Network) -> None:
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24")
    fixture = Fixture(node)
    fixture.addresses.close()
    fixture.events.clear()
    with node.entered():
        fixture.addresses = Addresses(
            fixture.events.append,
            fixture.logged.append,
            lambda: None,
            fixture.later,
            receive_buffer=ReceiveBuffer(4096, force=True),
        )
    fixture.addresses.start()
    fixture.until(lambda: fixture.told(LinkChanged), "the links")
    fixture.plan(add=(entry("192.0.2.100"), entry("192.0.2.101")))
    fixture.settle()
    resyncs = fixture.addresses.monitor.resyncs
    for number in range(60):
        node.ip("addr", "add", f"10.7.0.{number + 1}/32", "dev", "eth0")
    node.ip("addr", "del", "192.0.2.100/24", "dev", "eth0")
    fixture.until(lambda: fixture.told(AddressDeleted), "the deletion")
    assert fixture.addresses.monitor.resyncs > resyncs
    assert fixture.deletions() == [AddressDeleted("eth0", "192.0.2.100", 24)]
    fixture.addresses.close()


def have_room_for_answers(fixture: Fixture, size: int) -> None:
    """Of the kernel's, to requests: with the least size there is the fourth of a window finds none."""
    with socket.fromfd(fixture.addresses.requests.fileno(), socket.AF_NETLINK, socket.SOCK_RAW) as requests:
        requests.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def test_lost_answers_are_no_verdict(fixture: Fixture) -> None:
    wanted = tuple(entry(f"10.8.0.{number}", 32) for number in range(1, 31))
    fixture.node.ip("addr", "add", "10.8.0.7/32", "dev", "eth0")
    fixture.settle()
    fixture.before_repeating = lambda: have_room_for_answers(fixture, 1 << 20)
    have_room_for_answers(fixture, 1)
    done = fixture.plan(add=wanted)
    assert fixture.pauses == [0.0]
    assert (done.failures, done.existed) == ((), (wanted[6],))
    fixture.settle()
    have_room_for_answers(fixture, 1)
    done = fixture.plan(remove=wanted)
    assert fixture.pauses == [0.0, 0.0]
    assert done.failures == ()
    assert not any(fixture.node.holds(gone.address) for gone in wanted)
    fixture.settle()
    assert fixture.told(AddressDeleted) == []


def test_what_was_never_sent_is_sent_again(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that takes nothing stands for a kernel without memory: nothing has been done, and it passes."""
    first, second = entry("192.0.2.100"), entry("192.0.2.101")
    fixture.plan(add=(first,))

    def take_again() -> None:
        if len(fixture.pauses) == 2:
            monkeypatch.undo()

    fixture.before_repeating = take_again
    monkeypatch.setattr(batch, "QUEUE_LIMIT", 0)
    done = fixture.plan(remove=(first,), add=(second,))
    assert (done.failures, done.existed) == ((), ())
    assert fixture.pauses == list(PAUSES_S[:2])
    assert not fixture.node.holds("192.0.2.100") and fixture.node.holds("192.0.2.101")


def test_a_kernel_without_memory_is_not_asked_for_ever(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture.before_repeating = lambda: monkeypatch.undo() if fixture.told(PlanDone) else None
    monkeypatch.setattr(batch, "QUEUE_LIMIT", 0)
    done = fixture.plan(add=(entry("192.0.2.100"),))
    assert [failure.adding for failure in done.failures] == [True]
    assert fixture.pauses == [*PAUSES_S, PAUSES_S[0]], "and then it is removed, in case it is there"


def test_a_removal_is_not_given_up(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a backup the address would stay beside the master's."""
    leaving = entry("192.0.2.100")
    fixture.plan(add=(leaving,))

    def take_again() -> None:
        if len(fixture.pauses) == len(PAUSES_S) + 3:
            monkeypatch.undo()

    fixture.before_repeating = take_again
    monkeypatch.setattr(batch, "QUEUE_LIMIT", 0)
    done = fixture.plan(remove=(leaving,))
    assert done.failures == ()
    assert not fixture.node.holds("192.0.2.100")
    assert fixture.pauses == [*PAUSES_S, *[PAUSES_S[-1]] * 3]
    (said,) = fixture.logged
    assert "192.0.2.100/24" in said, "once"


def test_what_counts_as_refused_for_want_of_answers_does_not_stay(fixture: Fixture) -> None:
    """The kernel adds all of them, and has room for three or four answers only, each time it is asked."""
    wanted = tuple(entry(f"10.8.0.{number}", 32) for number in range(1, 61))
    fixture.node.ip("addr", "add", "10.8.0.60/32", "dev", "eth0")
    fixture.settle()
    have_room_for_answers(fixture, 1)
    done = fixture.plan(add=wanted)
    refused = {failure.entry.address for failure in done.failures if isinstance(failure.entry, AddressEntry)}
    assert refused > {"10.8.0.59", "10.8.0.60"}
    fixture.settle()
    there = {each.address for each in wanted if fixture.node.holds(each.address)}
    assert there == {each.address for each in wanted} - refused | {"10.8.0.60"}, "another's stays"
    assert [event.serial for event in fixture.told(PlanDone)] == [done.serial]
    assert fixture.told(AddressDeleted) == []


def test_what_is_added_again_is_not_removed_for_the_first_attempts_sake(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = entry("192.0.2.100")
    monkeypatch.setattr(batch, "QUEUE_LIMIT", 0)
    monkeypatch.setattr(
        fixture.addresses, "_feed", lambda event: (fixture.events.append(event), again(event))
    )

    def again(event: Event) -> None:
        if isinstance(event, PlanDone) and event.failures:
            monkeypatch.undo()
            fixture.addresses.change(ChangeAddresses("VI", 100, (), (wanted,)))

    fixture.addresses.change(ChangeAddresses("VI", 99, (), (wanted,)))
    assert fixture.settle_plan(100).failures == ()
    fixture.settle()
    assert fixture.node.holds("192.0.2.100")


def test_a_late_removal_does_not_undo_another_plan(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address moves from one instance to another, and the kernel had no memory for the removal."""
    moved, other = entry("192.0.2.100"), entry("192.0.2.101")
    fixture.plan(add=(moved, other))
    postponed: list[Callable[[], None]] = []
    monkeypatch.setattr(fixture.addresses, "_later", lambda _seconds, call: postponed.append(call))
    monkeypatch.setattr(batch, "QUEUE_LIMIT", 0)
    fixture.addresses.change(ChangeAddresses("VI_1", 101, (moved, other), ()))
    monkeypatch.undo()
    fixture.addresses.change(ChangeAddresses("VI_2", 102, (), (moved,)))
    fixture.settle_plan(102)
    (repeat,) = postponed
    repeat()
    fixture.settle_plan(101)
    assert fixture.node.holds("192.0.2.100") and not fixture.node.holds("192.0.2.101")


def test_an_interfaces_end_is_told_as_that(fixture: Fixture) -> None:
    fixture.plan(add=(entry("192.0.2.100"),))
    fixture.node.ip("link", "del", "eth0")
    fixture.until(lambda: fixture.told(LinkRemoved), "the end")
    # The link is known to be gone, or down, before any of its addresses is missed.
    order = [type(event) for event in fixture.events]
    ends = [
        number
        for number, event in enumerate(fixture.events)
        if isinstance(event, LinkRemoved) or (isinstance(event, LinkChanged) and not event.up)
    ]
    assert AddressDeleted not in order[: ends[0]]
    done = fixture.plan(remove=(entry("192.0.2.100"),), add=(entry("192.0.2.101"),))
    assert len(done.failures) == 1


def test_address_changes_are_logged_when_asked(network: Network) -> None:
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24")
    logged: list[str] = []
    synced: list[bool] = []
    with node.entered():
        addresses = Addresses(
            lambda event: None,
            logged.append,
            lambda: synced.append(True),
            lambda _seconds, call: call(),
            log_changes=True,
        )
    addresses.start()
    poll(lambda: (addresses.monitor.drain(), synced)[1], "the links")
    node.ip("addr", "del", "192.0.2.1/24", "dev", "eth0")
    node.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
    wanted = "Assigned address 192.0.2.2 for interface eth0"
    poll(lambda: (addresses.monitor.drain(), wanted in logged)[1], "the line")
    assert "Assigned address 192.0.2.1 for interface eth0" in logged
    assert "Deassigned address 192.0.2.1 from interface eth0" in logged
    addresses.close()
