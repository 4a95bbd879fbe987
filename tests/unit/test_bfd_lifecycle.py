"""Reload, restart after a crash, stop, sockets that cannot be opened."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kad_bfd.core.actions import (
    CheckInterface,
    CloseTransport,
    Listener,
    OpenListener,
    OpenTransport,
    SendPacket,
    SessionChanged,
)
from kad_bfd.core.events import (
    ConfigurationChanged,
    ListenerFailed,
    SendingChanged,
    StopRequested,
    TimeReached,
    TransportFailed,
)
from kad_bfd.core.listeners import LOOKS
from kad_bfd.core.packet import Diagnostic, State
from kad_bfd.core.record import decode
from tests.support.bfd_host import MS, SECOND, Host, Killed, control, instance


def up(*configs: object) -> Host:
    host = Host(*(configs or (instance(),))).boot().bring_up()  # type: ignore[arg-type]
    host.clear()
    return host


def settle(host: Host, times: int = 4) -> None:
    for _ in range(times):
        host.run(50 * MS)
        host.hear_up()


# Reload ----------------------------------------------------------------------------------------------------


def test_a_reload_that_changes_nothing_does_nothing() -> None:
    host = up()
    deadline = host.engine.deadline_us
    host.reload(instance())
    assert host.actions == []
    assert host.engine.deadline_us == deadline


def test_other_sessions_are_not_touched() -> None:
    host = up()
    discriminator = host.discriminator
    host.reload(instance(), instance("new", "10.0.0.9"))
    assert host.state() is State.UP
    assert host.discriminator == discriminator
    assert [type(a) for a in host.actions if isinstance(a, SessionChanged)] == []


def test_changed_timers_keep_the_session_up_and_are_negotiated() -> None:
    host = up()
    host.reload(instance(min_tx_us=20 * MS, min_rx_us=20 * MS, multiplier=5))
    settle(host)
    assert host.last.poll
    host.hear_up(final=True, desired_min_tx_us=20 * MS, required_min_rx_us=20 * MS)
    settle(host, 2)
    assert host.state() is State.UP
    assert not host.changes
    assert (host.last.poll, host.last.detect_mult) == (False, 5)
    assert host.session().intervals.rx_in_use_us == 20 * MS


@pytest.mark.parametrize(
    "change",
    [
        {"neighbor": "10.0.0.3"},
        {"multihop": True},
        {"interface": "eth0"},
    ],
)
def test_another_neighbour_or_way_is_another_session(change: dict[str, object]) -> None:
    host = up()
    old = host.session()
    host.reload(instance(**change))  # type: ignore[arg-type]
    assert host.session() is not old
    assert host.state() is State.DOWN
    assert host.published["peer"].up is False
    record = decode(host.journal["peer"])
    assert record is not None
    assert record.local_discr == host.discriminator
    assert host.changes[0].reason == "has another neighbour, port or interface now"


@pytest.mark.parametrize(("before", "after"), [("", "10.0.0.1"), ("10.0.0.1", ""), ("10.0.0.1", "10.0.0.9")])
def test_another_source_is_a_new_socket_for_a_session_that_goes_on(before: str, after: str) -> None:
    """The neighbour goes by the discriminators; where it does not, the detection time says so."""
    host = up(instance(source_address=before))
    (port,), discriminator = host.ports.values(), host.discriminator
    host.reload(instance(source_address=after))
    opened = [action for action in host.actions if isinstance(action, OpenTransport)]
    assert [(action.port, action.transport.source) for action in opened] == [(port, after)]
    assert host.last.state is State.UP, "at once"
    settle(host)
    assert (host.state(), host.discriminator) == (State.UP, discriminator)
    assert not host.changes
    assert host.published["peer"].up


def test_a_source_that_is_not_there_is_waited_for() -> None:
    host = up()
    host.refused = "no such address"
    host.reload(instance(source_address="10.0.0.9"))
    assert host.state() is State.UP
    host.run(150 * MS)
    assert (host.state(), host.changes[0].reason) == (State.DOWN, "nothing heard for 150 ms")


def test_a_changed_ttl_needs_a_new_socket_on_the_same_port() -> None:
    host = up()
    (port,) = host.ports.values()
    host.reload(instance(ttl=200, expected_ttl=200))
    opened = [action for action in host.actions if isinstance(action, OpenTransport)]
    assert [(action.port, action.transport.ttl) for action in opened] == [(port, 200)]
    settle(host)
    assert host.state() is State.UP


def test_a_session_that_goes_passive_goes_on() -> None:
    host = up()
    host.reload(instance(passive=True))
    settle(host)
    assert host.sent
    assert host.state() is State.UP


def test_a_removed_session_is_unpublished_and_forgotten() -> None:
    host = up()
    host.reload()
    assert host.published == {}
    assert host.journal == {}
    host.run(SECOND)
    assert any(isinstance(action, CloseTransport) for action in host.actions)
    assert host.engine.deadline_us is None


def test_one_that_was_never_up_is_removed_without_waiting_longer_than_the_limit() -> None:
    host = Host(instance(idle_tx_us=60 * SECOND, multiplier=255)).boot()
    host.reload()
    host.run(1_100 * MS)
    assert host.transports == {}


# Restart after a crash -------------------------------------------------------------------------------------


def crash(host: Host, away_us: int) -> None:
    """kill -9, and a new life some time later."""
    host.now_us += away_us
    host.clear()
    host.boot()


def test_a_reborn_session_goes_on_as_up() -> None:
    host = up()
    host.hear_up()
    discriminator, (port,) = host.discriminator, host.ports.values()
    crash(host, 20 * MS)
    assert host.state() is State.UP
    assert host.last.state is State.UP
    assert (host.last.my_discriminator, host.last.your_discriminator) == (discriminator, 77)
    assert list(host.ports.values()) == [port]
    assert not host.changes
    assert host.published["peer"].up
    assert host.sent[0][0] == host.now_us, "at once"


def test_the_silence_of_the_dead_process_is_not_held_against_the_peer() -> None:
    host = up()
    crash(host, 149 * MS)
    host.run(149 * MS)
    assert host.state() is State.UP
    host.run(1 * MS)
    assert host.state() is State.DOWN


def test_longer_than_the_peer_waits_is_a_new_beginning_as_down() -> None:
    host = up()
    discriminator, (port,) = host.discriminator, host.ports.values()
    crash(host, 150 * MS)
    assert host.state() is State.DOWN
    assert host.last.state is State.DOWN
    # What the peer knows stays right: it says Down, and gets an answer.
    assert host.discriminator == discriminator
    assert list(host.ports.values()) == [port]
    host.hear(control(State.DOWN, your_discriminator=discriminator))
    assert host.state() is State.INIT


def test_a_poll_goes_on_after_a_crash() -> None:
    host = up()
    host.reload(instance(min_tx_us=200 * MS))
    settle(host, 2)
    crash(host, 10 * MS)
    assert host.last.poll
    assert host.session().intervals.transmit_interval_us == 50 * MS
    host.hear_up(final=True)
    assert host.session().intervals.transmit_interval_us == 200 * MS


def test_a_reload_between_two_lives_is_caught_up_with() -> None:
    host = up()
    host.configs = (instance(min_tx_us=20 * MS), instance("new", "10.0.0.9"))
    crash(host, 10 * MS)
    assert host.state() is State.UP
    assert (host.sent[0][1].desired_min_tx_us, host.sent[0][1].poll) == (20 * MS, True)
    assert host.state("new") is State.DOWN


@pytest.mark.parametrize(("before", "after"), [("", "10.0.0.1"), ("10.0.0.1", ""), ("10.0.0.1", "10.0.0.9")])
def test_killed_before_another_source_was_recorded(before: str, after: str) -> None:
    host = up(instance(source_address=before))
    discriminator = host.discriminator
    host.configs = (instance(source_address=after),)
    crash(host, 10 * MS)
    assert (host.state(), host.discriminator) == (State.UP, discriminator)
    assert {each.source for each in host.transports.values()} == {after}
    record = decode(host.journal["peer"])
    assert record is not None
    assert record.place == ("10.0.0.2", after, False, "")


def test_a_record_is_as_former_versions_write_and_read_it() -> None:
    """Who goes back to one, or comes from one, finds what runs."""
    host = Host(instance(source_address="10.0.0.1", interface="eth0")).boot()
    version, place, *_ = msgspec.msgpack.decode(host.journal["peer"])
    assert (version, place) == (1, ["10.0.0.2", "10.0.0.1", False, "eth0"])


def test_a_record_of_another_session_under_the_name_is_no_use() -> None:
    host = up()
    host.configs = (instance(neighbor="10.0.0.3"),)
    crash(host, 10 * MS)
    assert host.state() is State.DOWN


def test_records_of_sessions_that_are_gone_are_freed() -> None:
    host = up()
    host.configs = (instance("other", "10.0.0.9"),)
    crash(host, 10 * MS)
    assert list(host.journal) == ["other"]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\x93\x01\x02\x03"])
def test_a_damaged_record_is_no_record(data: bytes) -> None:
    host = Host(instance())
    host.journal["peer"] = data
    host.boot()
    assert host.state() is State.DOWN
    host.bring_up()


def test_killed_between_any_two_actions_the_next_life_goes_on() -> None:
    """That the record is never behind what a peer or a subscriber has seen is held by the host itself."""
    for kill_after in range(60):
        host = Host(instance()).boot()
        host.kill_after = kill_after
        try:
            host.bring_up()
            host.hear(control(State.DOWN, your_discriminator=host.discriminator))
            died = False
        except Killed:
            died = True
        record = decode(host.journal["peer"])
        crash(host, 5 * MS)
        assert record is not None
        assert (host.state(), host.discriminator) == (record.state, record.local_discr)
        if not died:
            return
    pytest.fail("it never got to the end")


# Stop ------------------------------------------------------------------------------------------------------


def test_stop_says_down_with_path_down_three_times() -> None:
    host = up(instance(), instance("other", "10.0.0.3"))
    host.stop()
    assert not host.stopped
    host.run(100 * MS)
    assert host.stopped
    told = [(p.state, p.diagnostic) for _, p in host.sent]
    assert told == [(State.DOWN, Diagnostic.PATH_DOWN)] * 6
    assert len({at for at, _ in host.sent}) == 3
    assert not any(packet.poll for _, packet in host.sent)


def test_after_stop_nothing_is_heard_and_nothing_remembered() -> None:
    host = up()
    discriminator = host.discriminator
    host.stop()
    host.hear(control(State.DOWN, your_discriminator=discriminator))
    assert host.state() is State.DOWN
    assert host.drops() == {"stopping": 1}
    host.run(100 * MS)
    assert host.journal == {}


def test_an_administrative_stop_says_so() -> None:
    """The last session was removed: to its neighbour that is no other end than any session's."""
    host = up()
    host.tell(StopRequested(administrative=True))
    assert not host.stopped
    host.run(2 * SECOND)
    assert host.stopped
    assert [(p.state, p.diagnostic) for _, p in host.sent] == [
        (State.ADMIN_DOWN, Diagnostic.ADMINISTRATIVELY_DOWN)
    ] * 3
    assert host.journal == {}


def test_stop_without_sessions_is_over_at_once() -> None:
    host = Host().boot()
    host.stop()
    assert host.stopped


def test_stop_before_any_configuration() -> None:
    host = Host()
    host.tell(StopRequested())
    assert host.stopped


def test_a_passive_session_that_heard_nobody_stops_silently() -> None:
    host = Host(instance(passive=True)).boot()
    host.stop()
    assert host.stopped
    assert host.sent == []


def test_stop_does_not_wait_for_sessions_that_leave_slowly() -> None:
    host = up()
    host.reload()
    host.stop()
    assert host.stopped


def test_a_configuration_that_comes_while_stopping_is_too_late() -> None:
    host = up()
    host.stop()
    host.tell(ConfigurationChanged(9, (instance("late", "10.0.0.9"),)))
    host.run(100 * MS)
    assert host.stopped
    assert "late" not in host.published


def farewells(host: Host) -> int:
    return sum(packet.state is State.ADMIN_DOWN for _, packet in host.sent)


def test_a_session_whose_place_another_takes_says_farewell_once_and_first() -> None:
    """What came after the first words of the new one would end it."""
    host = up()
    host.reload(instance("renamed"))
    assert [packet.state for _, packet in host.sent] == [State.ADMIN_DOWN, State.DOWN]
    host.run(3 * SECOND)
    assert farewells(host) == 1
    assert len(host.transports) == 1


def test_a_session_that_is_removed_and_comes_back_is_not_ended_by_its_own_farewells() -> None:
    host = up()
    host.reload()
    host.run(10 * MS)
    host.reload(instance())
    host.run(3 * SECOND)
    assert farewells(host) == 1
    assert len(host.transports) == 1


def test_a_session_with_another_neighbour_takes_nobodys_place() -> None:
    host = up()
    host.reload(instance("other", "10.0.0.9"), instance("far", multihop=True))
    host.run(3 * SECOND)
    assert farewells(host) == 3


# Sockets ---------------------------------------------------------------------------------------------------


def test_a_socket_that_cannot_be_opened_is_tried_again_every_second() -> None:
    host = Host(instance())
    host.refused = "no such address"
    host.boot()
    assert host.state() is State.DOWN, "not AdminDown: nobody decided it"
    host.run(3_500 * MS)
    assert sum(isinstance(action, OpenTransport) for action in host.actions) == 4
    assert host.logged == ["(peer) has no socket: no such address"]
    host.refused = ""
    host.run(600 * MS)
    assert host.sent
    host.bring_up()


def test_a_socket_lost_while_up_is_opened_again_on_its_port() -> None:
    host = up()
    (number,), (port,) = host.transports, host.ports.values()
    host.refused = "gone"
    host.tell(TransportFailed(number, "gone"))
    host.refused = ""
    host.run(SECOND)
    assert list(host.ports.values()) == [port]


def test_a_listener_that_cannot_be_opened_is_tried_again() -> None:
    host = Host(instance()).boot()
    host.clear()
    host.tell(ListenerFailed(Listener(4), "in use"))
    host.tell(ListenerFailed(Listener(4), "in use"))
    assert [text for text in host.logged if "in use" in text] == [
        "cannot listen on UDP port 3784 (IPv4): in use"
    ]
    host.run(1_100 * MS)
    assert [a.listener for a in host.actions if isinstance(a, OpenListener)] == [Listener(4)]


def test_status_says_whose_port_cannot_be_listened_on() -> None:
    host = Host(instance(), instance("six", "2001:db8::2"), instance("far", multihop=True)).boot()
    host.tell(ListenerFailed(Listener(4), "in use"))
    assert failures(host) == {"peer": "cannot listen on UDP port 3784 (IPv4): in use", "six": "", "far": ""}
    host.run(1_100 * MS)
    assert set(failures(host).values()) == {""}


def test_packets_that_do_not_leave_are_told_once() -> None:
    host = up(instance(), instance("other", "10.0.0.3"))
    number = host.session().number
    host.tell(SendingChanged(number, "unreachable"))
    host.run(2 * SECOND)
    assert failures(host) == {"peer": "cannot send: unreachable", "other": ""}
    assert host.logged == ["(peer) cannot send: unreachable"]
    host.tell(SendingChanged(number, ""))
    assert set(failures(host).values()) == {""}
    for _ in range(10):  # by turns: the same trouble
        host.run(300 * MS)
        host.tell(SendingChanged(number, "unreachable"))
        host.run(300 * MS)
        host.tell(SendingChanged(number, ""))
    assert len(host.logged) == 1
    host.run(SECOND)
    host.tell(SendingChanged(number, "prohibited"))
    assert host.logged[1:] == ["(peer) cannot send: prohibited"]


def test_a_new_socket_is_not_held_to_fail() -> None:
    host = up()
    number = host.session().number
    host.tell(SendingChanged(number, "unreachable"))
    host.tell(TransportFailed(number, "gone"))
    assert failures(host) == {"peer": "gone"}
    host.run(1_100 * MS)
    assert failures(host) == {"peer": ""}


def test_what_cannot_be_sent_by_a_session_that_is_gone() -> None:
    host = up()
    number = host.session().number
    host.reload()
    host.run(2 * SECOND)
    host.tell(SendingChanged(number, "unreachable"))
    assert failures(host) == {}


def failures(host: Host) -> dict[str, str]:
    return {each.name: each.failure for each in host.engine.report().sessions}


def test_an_interface_is_looked_at_once_a_second_while_nobody_is_up_over_it() -> None:
    """And the socket of a session that is not, though another over the interface is."""
    host = Host(
        instance("a", interface="eth0"),
        instance("b", "10.0.0.3", interface="eth0"),
        instance("c", "10.0.0.4", source_address="10.0.0.1"),
    )
    host.boot().clear()
    listener = Listener(4, False, "eth0")
    host.run(3_100 * MS)
    assert checks(host) == [CheckInterface(listener, (1, 2))] * 3
    for state, yours in ((State.DOWN, 0), (State.INIT, host.session("a").local_discr)):
        host.hear(control(state, your_discriminator=yours), listener=listener)
    assert host.state("a") is State.UP
    host.clear()
    for _ in range(30):
        packet = control(State.UP, your_discriminator=host.session("a").local_discr)
        host.hear(packet, listener=listener)
        host.run(100 * MS)
    assert host.state("a") is State.UP
    assert checks(host) == [CheckInterface(None, (2,))] * 3, "what brings packets is left alone"
    host.run(2_000 * MS)
    assert host.state("a") is State.DOWN
    assert checks(host)[-1] == CheckInterface(listener, (1, 2))


@pytest.mark.parametrize(
    "fields", [{}, {"multihop": True}, {"interface": "eth0", "source_address": "10.0.0.1"}]
)
def test_a_session_is_looked_at_once_a_second_while_it_is_not_up(fields: dict[str, Any]) -> None:
    """What the kernel chose for it may be wrong by now, and nobody else would find out."""
    host = Host(instance(**fields)).boot()
    (listener,) = host.listeners
    host.run(2_500 * MS)
    looked_at = CheckInterface(listener if listener.interface else None, (1,))
    assert checks(host) == [looked_at] * 2
    for state, yours in ((State.DOWN, 0), (State.INIT, host.discriminator)):
        host.hear(control(state, your_discriminator=yours), listener=listener)
    host.clear()
    for _ in range(60):
        host.hear(control(State.UP, your_discriminator=host.discriminator), listener=listener)
        host.run(50 * MS)
    assert host.state() is State.UP
    assert checks(host) == []
    host.run(3_200 * MS)
    assert checks(host) == [looked_at] * 3, "from the loss on"


def test_of_many_sessions_few_are_looked_at_in_one_go() -> None:
    names = [f"s{i}" for i in range(100)]
    host = Host(*(instance(name, f"10.0.1.{i}") for i, name in enumerate(names))).boot()
    host.run(3_900 * MS)
    looks = [look.transports for look in checks(host)]
    assert max(map(len, looks)) == LOOKS
    assert sorted(number for look in looks for number in look) == sorted([*range(1, 101)] * 3)


def test_reloads_do_not_put_off_the_looks() -> None:
    host = Host(instance()).boot()
    for neighbor in range(20):
        host.reload(instance(), instance("other", f"10.0.1.{neighbor}"))
        host.run(300 * MS)
    assert 4 <= sum(1 in look.transports for look in checks(host)) <= 6


def test_with_an_address_and_without_an_interface_there_is_nothing_to_look_at() -> None:
    host = Host(instance(interface="eth0")).boot()
    host.reload(instance(source_address="10.0.0.1"))
    host.clear()
    host.run(3 * SECOND)
    assert checks(host) == []


def test_a_listener_whose_interface_is_gone_is_opened_again() -> None:
    listener = Listener(4, False, "eth0")
    host = Host(instance(interface="eth0")).boot()
    host.run(500 * MS)
    host.clear()
    host.tell(ListenerFailed(listener, "No such device"))
    host.run(1_100 * MS)
    assert [a.listener for a in host.actions if isinstance(a, OpenListener)] == [listener]
    assert host.logged[-1] == "listening on UDP port 3784 of eth0 (IPv4) now"


def checks(host: Host) -> list[CheckInterface]:
    return [action for action in host.actions if isinstance(action, CheckInterface)]


# Stalls ----------------------------------------------------------------------------------------------------


def test_a_detection_time_noticed_late_gives_the_peer_one_interval_more() -> None:
    host = up()
    host.now_us += 400 * MS  # nothing ran meanwhile, and nothing arrived
    host.tell(TimeReached())
    assert host.state() is State.UP
    assert host.session().stats.stalls == 1
    host.run(49 * MS)
    assert host.state() is State.UP
    host.run(1 * MS)
    assert host.state() is State.DOWN


def test_only_once_in_a_silence() -> None:
    host = up()
    for _ in range(2):
        host.now_us += 400 * MS
        host.tell(TimeReached())
    assert host.state() is State.DOWN


def test_a_stall_that_ends_just_before_the_detection_time_counts_too() -> None:
    host = up()
    host.run(20 * MS)
    host.now_us += 129 * MS  # transmissions were due meanwhile: this process did not run
    host.tell(TimeReached())
    host.run(30 * MS)
    assert host.state() is State.UP, "150 ms are over, but most of them nobody lived through"
    host.hear_up()
    host.run(140 * MS)
    assert host.state() is State.UP


def test_a_stall_long_ago_is_no_excuse() -> None:
    host = up()
    host.run(10 * MS)
    host.now_us += 60 * MS
    host.tell(TimeReached())
    host.run(80 * MS)
    assert host.state() is State.DOWN


def test_a_slightly_late_process_does_not_excuse_the_peer() -> None:
    host = up()
    host.run(149 * MS)
    host.now_us += 5 * MS
    host.tell(TimeReached())
    assert host.state() is State.DOWN


# The pulse -------------------------------------------------------------------------------------------------


def test_the_process_shows_itself_twice_in_the_shortest_detection_time() -> None:
    host = Host(instance(min_rx_us=10 * MS, min_tx_us=2 * SECOND)).boot()
    host.bring_up(desired_min_tx_us=10 * MS, detect_mult=10)
    due = host.engine.deadline_us
    assert due is not None
    assert due <= host.now_us + 50 * MS


def test_nothing_turns_without_sessions() -> None:
    host = Host().boot()
    assert host.engine.deadline_us is None
    assert not [action for action in host.actions if isinstance(action, SendPacket)]
