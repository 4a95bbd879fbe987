"""RFC 5880, one test for each MUST and SHOULD that concerns us, named after its section."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kad_bfd.core.actions import Publish
from kad_bfd.core.packet import ControlPacket, Diagnostic, State, decode, encode
from kad_bfd.core.session import FINAL_GAP_US
from kad_bfd.core.timers import Variety, early_window_us, jitter_range_us
from tests.support.bfd_host import MS, SECOND, Host, control, instance
from tests.support.configuration import assert_as_annotated


def started(**fields: object) -> Host:
    return Host(instance(**fields)).boot()  # type: ignore[arg-type]


def up(**fields: object) -> Host:
    host = started(**fields).bring_up()
    host.clear()
    return host


def gaps(host: Host) -> list[int]:
    times = [at for at, _ in host.sent]
    return [b - a for a, b in itertools.pairwise(times)]


# 6.1 Overview ---------------------------------------------------------------------------------------------


def test_6_1_a_passive_system_does_not_begin_sending() -> None:
    host = started(passive=True)
    host.run(5 * SECOND)
    assert host.sent == []


def test_6_1_a_passive_system_answers_once_it_has_received_a_packet() -> None:
    host = started(passive=True)
    host.hear(control(State.DOWN))
    assert host.last.state is State.INIT


def test_6_1_an_active_system_sends_whether_or_not_it_has_received_anything() -> None:
    host = started()
    host.run(3 * SECOND)
    assert len(host.sent) >= 3
    assert all(packet.state is State.DOWN for _, packet in host.sent)


def test_6_1_and_6_8_7_a_passive_system_that_knows_the_peer_no_longer_is_silent_again() -> None:
    host = started(passive=True).bring_up()
    host.run(160 * MS)
    assert host.last.state is State.DOWN, "told once, while it still knew whom"
    host.clear()
    host.run(10 * SECOND)
    assert host.sent == []
    host.hear(control(State.DOWN))
    assert host.last.state is State.INIT


# 6.2 and 6.8.6 The state machine --------------------------------------------------------------------------

DOWN, INIT, UP, ADMIN = State.DOWN, State.INIT, State.UP, State.ADMIN_DOWN


@pytest.mark.parametrize(
    ("before", "received", "after"),
    [
        (DOWN, ADMIN, DOWN),
        (DOWN, DOWN, INIT),
        (DOWN, INIT, UP),
        (DOWN, UP, DOWN),
        (INIT, ADMIN, DOWN),
        (INIT, DOWN, INIT),
        (INIT, INIT, UP),
        (INIT, UP, UP),
        (UP, ADMIN, DOWN),
        (UP, DOWN, DOWN),
        (UP, INIT, UP),
        (UP, UP, UP),
    ],
)
def test_6_8_6_every_transition(before: State, received: State, after: State) -> None:
    host = started()
    if before in (INIT, UP):
        host.hear(control(DOWN))
    if before is UP:
        host.hear(control(INIT, your_discriminator=host.discriminator))
    assert host.state() is before
    host.hear(control(received, your_discriminator=host.discriminator))
    assert host.state() is after


def test_6_2_three_way_handshake_takes_both_sides_to_up() -> None:
    host = started()
    host.hear(control(DOWN))
    assert (host.last.state, host.last.your_discriminator) == (INIT, 77)
    host.hear(control(INIT, your_discriminator=host.discriminator))
    assert host.last.state is UP


def test_6_8_6_admin_down_from_the_peer_is_down_with_neighbor_signaled() -> None:
    host = up()
    host.hear(control(ADMIN, your_discriminator=host.discriminator))
    assert (host.last.state, host.last.diagnostic) == (DOWN, Diagnostic.NEIGHBOR_SIGNALED_DOWN)
    assert host.published["peer"].up is False


def test_6_8_6_admin_down_does_not_bring_a_session_out_of_down() -> None:
    host = started()
    host.hear(control(ADMIN))
    host.hear(control(ADMIN, your_discriminator=host.discriminator))
    assert host.state() is DOWN
    assert not host.changes


def test_6_8_6_down_from_the_peer_sets_diagnostic_neighbor_signaled() -> None:
    host = up()
    host.hear(control(DOWN, your_discriminator=host.discriminator))
    assert host.last.diagnostic == Diagnostic.NEIGHBOR_SIGNALED_DOWN


# 6.3 Demultiplexing: tests/unit/test_bfd_demux.py ----------------------------------------------------------


def test_6_3_the_remote_discriminator_is_reflected() -> None:
    host = up()
    host.hear_up(my_discriminator=4242)
    host.run(100 * MS)
    assert host.last.your_discriminator == 4242


# 6.5 Poll sequences ----------------------------------------------------------------------------------------


def test_6_5_becoming_up_polls_since_the_interval_changed() -> None:
    host = started()
    host.hear(control(DOWN))
    host.hear(control(INIT, your_discriminator=host.discriminator))
    assert host.last.poll
    assert host.last.desired_min_tx_us == 50 * MS


def test_6_5_poll_ends_with_the_first_final() -> None:
    host = started().bring_up()
    host.run(100 * MS)
    assert not host.last.poll


def test_6_5_polls_go_on_until_a_final_comes() -> None:
    host = started()
    host.hear(control(DOWN))
    host.hear(control(INIT, your_discriminator=host.discriminator))
    for _ in range(6):
        host.run(50 * MS)
        host.hear_up()
    assert host.last.poll


def test_6_5_no_additional_packets_are_sent_for_a_poll() -> None:
    host = up()
    host.run(10 * MS)
    count = len(host.sent)
    host.reload(instance(min_tx_us=60 * MS))
    assert len(host.sent) == count


def test_6_5_a_change_during_a_poll_needs_another_sequence() -> None:
    host = up()
    host.reload(instance(min_rx_us=40 * MS))
    host.run(50 * MS)
    assert host.last.poll
    host.reload(instance(min_rx_us=30 * MS))
    host.hear_up(final=True)
    # That answered a packet with 40 ms.
    assert host.session().intervals.rx_in_use_us == 50 * MS
    host.hear_up()
    host.run(50 * MS)
    assert host.last.poll
    host.hear_up(final=True)
    assert host.session().intervals.rx_in_use_us == 30 * MS
    assert not host.session().intervals.polling


def test_6_8_3_another_poll_sequence_waits_for_a_packet_without_final() -> None:
    """Two polls went out before the first was answered: the second answer says nothing of the next change."""
    host = up()
    host.reload(instance(min_rx_us=40 * MS))
    host.run(100 * MS)
    assert sum(packet.poll for _, packet in host.sent) == 2
    host.hear_up(final=True)
    host.reload(instance(min_rx_us=30 * MS))
    host.run(50 * MS)
    assert (host.last.poll, host.last.required_min_rx_us) == (False, 30 * MS)
    host.hear_up(final=True)
    assert host.session().intervals.polling
    host.hear_up()
    host.run(50 * MS)
    assert host.last.poll
    host.hear_up(final=True)
    assert not host.session().intervals.polling


def test_6_5_two_changes_before_the_first_poll_are_one_sequence() -> None:
    host = up()
    host.reload(instance(min_rx_us=40 * MS, min_tx_us=60 * MS))
    host.run(50 * MS)
    host.hear_up(final=True)
    assert not host.session().intervals.polling


def test_6_5_a_final_before_our_poll_went_out_answers_nothing() -> None:
    """A duplicate, on its way for long."""
    host = up()
    host.reload(instance(min_rx_us=40 * MS))
    host.hear_up(final=True)
    assert host.session().intervals.polling
    host.run(50 * MS)
    assert host.last.poll
    host.hear_up(final=True)
    assert not host.session().intervals.polling


def test_6_5_poll_and_final_are_never_both_set() -> None:
    host = up()
    host.reload(instance(min_rx_us=40 * MS))
    host.hear_up(poll=True)
    assert (host.last.poll, host.last.final) == (False, True)
    with pytest.raises(AssertionError):
        encode(control(UP, poll=True, final=True))


# 6.6 Demand mode, of the peer -------------------------------------------------------------------------------


def test_6_6_periodic_packets_cease_while_the_peer_demands() -> None:
    host = up()
    for _ in range(10):
        host.hear_up(demand=True)
        host.run(100 * MS)
    assert [p for at, p in host.sent if at > host.now_us - 900 * MS] == []


def test_6_6_a_poll_sequence_is_sent_even_so() -> None:
    host = up()
    host.hear_up(demand=True)
    host.clear()
    host.reload(instance(min_rx_us=40 * MS))
    host.run(100 * MS)
    assert host.sent
    assert all(packet.poll for _, packet in host.sent)
    host.hear_up(demand=True, final=True)
    host.clear()
    host.run(100 * MS)
    assert host.sent == []


@pytest.mark.parametrize("change", ["the multiplier", "whom we answer"])
def test_6_6_whatever_changes_while_the_peer_demands_begins_a_poll_sequence(change: str) -> None:
    """Its periodic packets have ceased: nothing else would ever tell it."""
    host = up()
    for _ in range(10):
        host.hear_up(demand=True)
        host.run(100 * MS)
    host.hear_up(demand=True)
    host.clear()
    if change == "the multiplier":
        host.reload(instance(multiplier=9))
        discriminator = 77
    else:
        host.hear_up(demand=True, my_discriminator=4242)
        discriminator = 4242
    host.run(60 * MS)
    assert host.last.poll
    assert (host.last.detect_mult, host.last.your_discriminator) in ((9, 77), (3, 4242))
    host.hear_up(demand=True, final=True, my_discriminator=discriminator)
    host.clear()
    host.run(140 * MS)
    assert host.sent == [], "answered: silent again"


def test_6_6_the_same_contents_begin_no_poll_sequence() -> None:
    host = up()
    for _ in range(5):
        host.hear_up(demand=True, poll=True)
        host.run(100 * MS)
    assert all(packet.final for at, packet in host.sent if at > host.now_us - 400 * MS)
    assert not host.session().intervals.polling


def test_6_6_packets_go_on_once_the_peer_no_longer_demands() -> None:
    host = up()
    host.hear_up(demand=True)
    host.run(100 * MS)
    host.clear()
    host.hear_up()
    host.run(60 * MS)
    assert host.sent


def test_6_6_demand_is_not_active_unless_both_are_up() -> None:
    host = started()
    host.hear(control(DOWN, demand=True))
    host.clear()
    host.run(1000 * MS)
    assert host.sent


def test_6_8_7_the_demand_bit_is_never_set() -> None:
    host = up()
    host.hear_up(demand=True, poll=True)
    host.run(SECOND)
    assert not any(packet.demand for _, packet in host.sent)


# 6.8.1 State variables -----------------------------------------------------------------------------------


def test_6_8_1_initial_values() -> None:
    host = started()
    first = host.sent[0][1]
    assert (first.state, first.diagnostic, first.your_discriminator) == (DOWN, Diagnostic.NONE, 0)
    assert not first.demand
    session = host.session()
    assert session.intervals.remote_min_rx_us == 1
    assert (session.remote_state, session.remote_demand, session.remote_discr) == (DOWN, False, 0)
    assert session.detect_mult > 0
    assert first.desired_min_tx_us >= SECOND


def test_6_8_1_local_discriminators_are_nonzero_unique_and_unpredictable() -> None:
    host = Host(*(instance(f"s{i}", f"10.0.{i // 200}.{i % 200 + 2}") for i in range(500))).boot()
    values = [host.session(f"s{i}").local_discr for i in range(500)]
    assert len(set(values)) == 500
    assert 0 not in values
    assert len({value >> 12 & 0xFF for value in values}) > 100
    assert len({value >> 20 for value in values}) == 1, "the tag strangers do not know"
    others = {Host(instance(), seed=seed).boot().discriminator >> 20 for seed in range(2, 30)}
    assert len(others) > 20


def test_6_8_1_the_remote_discriminator_is_forgotten_after_a_detection_time() -> None:
    host = up()
    host.run(160 * MS)
    assert host.session().remote_discr == 0
    host.run(2 * SECOND)
    assert host.last.your_discriminator == 0


def test_6_8_1_and_in_state_down_as_well() -> None:
    host = up()
    host.hear(control(DOWN, your_discriminator=host.discriminator))
    assert host.session().remote_discr == 77
    # It said 1 s, three times.
    host.run(2900 * MS)
    assert host.session().remote_discr == 77
    host.run(200 * MS)
    assert host.session().remote_discr == 0


def test_6_8_1_what_the_peer_asked_for_is_kept_for_a_detection_time_though_the_session_is_down() -> None:
    host = up()
    host.hear(
        control(
            DOWN,
            your_discriminator=host.discriminator,
            required_min_rx_us=700 * MS,
            desired_min_tx_us=SECOND,
        )
    )
    assert host.state() is DOWN
    host.run(2999 * MS)
    intervals = host.session().intervals
    assert (intervals.remote_min_rx_us, intervals.remote_desired_min_tx_us) == (700 * MS, SECOND)
    host.run(2 * MS)
    assert host.session().intervals.remote_min_rx_us == 1


@pytest.mark.parametrize("number", [0, 1, 255, 256])
def test_6_8_1_the_multiplier_is_never_zero(number: int) -> None:
    said = "" if 0 < number < 256 else "  # bad-number"
    text = f"bfd_instance peer {{\nneighbor_ip 10.0.0.2\nmultiplier {number}{said}\n}}\n"
    (found,) = assert_as_annotated(text).config.bfd.instances
    host = Host(found).boot()
    assert host.last.detect_mult == (found.multiplier if said else number) > 0


# 6.8.2 Timer negotiation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs", "interval"), [(50, 20, 50), (50, 200, 200), (10, 10, 10)])
def test_6_8_2_the_slower_side_decides_how_fast_we_send(ours: int, theirs: int, interval: int) -> None:
    host = started(min_tx_us=ours * MS).bring_up(required_min_rx_us=theirs * MS)
    host.clear()
    for _ in range(20):
        host.run(50 * MS)
        host.hear_up(required_min_rx_us=theirs * MS)
    assert all(interval * 750 <= gap <= interval * MS for gap in gaps(host))


def test_6_8_2_a_changed_interval_of_the_peer_counts_at_once() -> None:
    host = up()
    host.hear_up(required_min_rx_us=20 * MS)
    assert host.session().intervals.transmit_interval_us == 50 * MS
    host.hear_up(required_min_rx_us=80 * MS)
    assert host.session().intervals.transmit_interval_us == 80 * MS


def test_6_8_3_packets_follow_a_changed_interval_of_the_peer_at_once() -> None:
    host = up(min_tx_us=20 * MS)
    host.hear_up(required_min_rx_us=120 * MS)
    host.run(40 * MS)
    host.hear_up(required_min_rx_us=20 * MS)
    at_us = host.now_us
    host.run(20 * MS)
    assert host.sent[-1][0] > at_us, "not only when the slow interval has passed"


# 6.8.3 Timer manipulation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"min_tx_us": 70 * MS}, {"min_rx_us": 70 * MS}, {"min_tx_us": 20 * MS}])
def test_6_8_3_a_changed_interval_starts_a_poll_sequence(change: dict[str, Any]) -> None:
    host = up()
    host.reload(instance(**change))
    host.run(60 * MS)
    assert host.last.poll


def test_6_8_3_not_up_the_desired_interval_is_a_second_at_least() -> None:
    host = started()
    host.run(2 * SECOND)
    host.hear(control(DOWN))
    assert host.state() is INIT
    assert all(packet.desired_min_tx_us >= SECOND for _, packet in host.sent)


def test_6_8_3_down_again_the_interval_is_slow_again() -> None:
    host = up()
    host.hear(control(DOWN, your_discriminator=host.discriminator))
    assert host.last.desired_min_tx_us == SECOND
    assert host.session().intervals.transmit_interval_us == SECOND


def test_6_8_3_an_increased_interval_is_not_used_before_the_poll_ends() -> None:
    host = up()
    host.reload(instance(min_tx_us=400 * MS))
    host.clear()
    for _ in range(5):
        host.run(50 * MS)
        host.hear_up()
    assert host.last.desired_min_tx_us == 400 * MS
    assert max(gaps(host)) <= 50 * MS
    host.hear_up(final=True)
    assert host.session().intervals.transmit_interval_us == 400 * MS


def test_6_8_3_a_reduced_interval_is_used_at_once() -> None:
    host = up()
    host.reload(instance(min_tx_us=50 * MS))
    host.hear_up(required_min_rx_us=10 * MS)
    host.reload(instance(min_tx_us=20 * MS))
    assert host.session().intervals.transmit_interval_us == 20 * MS


def test_6_8_3_a_reduced_receive_interval_does_not_shorten_detection_before_the_poll_ends() -> None:
    host = up()
    host.hear_up(desired_min_tx_us=10 * MS)
    host.reload(instance(min_rx_us=10 * MS))
    assert host.session().detection_time_us == 150 * MS
    host.run(50 * MS)
    host.hear_up(desired_min_tx_us=10 * MS, final=True)
    assert host.session().detection_time_us == 30 * MS


def test_6_8_3_an_increased_receive_interval_lengthens_detection_at_once() -> None:
    host = up()
    host.reload(instance(min_rx_us=100 * MS))
    assert host.session().detection_time_us == 300 * MS


# 6.8.4 Detection time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mult", "our_rx", "their_tx", "expected"), [(3, 50, 50, 150), (5, 50, 20, 250), (2, 50, 80, 160)]
)
def test_6_8_4_detection_time(mult: int, our_rx: int, their_tx: int, expected: int) -> None:
    host = started(min_rx_us=our_rx * MS, multiplier=9)
    host.bring_up(detect_mult=mult, desired_min_tx_us=their_tx * MS)
    heard_at_us = host.now_us
    host.run(expected * MS - 1)
    assert host.state() is UP
    host.run(1)
    assert host.state() is DOWN
    assert host.changes[-1].local_diagnostic == Diagnostic.DETECTION_TIME_EXPIRED
    assert host.now_us - heard_at_us == expected * MS


def test_6_8_4_the_detection_time_counts_from_the_arrival_of_the_packet() -> None:
    host = up()
    host.hear_up()
    host.run(100 * MS)
    host.hear_up(ago_us=20 * MS)
    host.run(129 * MS)
    assert host.state() is UP
    host.run(1 * MS)
    assert host.state() is DOWN


def test_6_8_4_expiry_in_init_is_down_too() -> None:
    host = started()
    host.hear(control(DOWN))
    host.run(3 * SECOND)
    assert host.state() is DOWN
    assert host.last.diagnostic == Diagnostic.DETECTION_TIME_EXPIRED


def test_6_8_4_a_packet_that_was_discarded_does_not_count() -> None:
    host = up()
    host.run(140 * MS)
    host.hear(control(UP, your_discriminator=host.discriminator, authentication=False), hop_limit=254)
    host.run(11 * MS)
    assert host.state() is DOWN


def test_6_8_4_the_peer_is_told_at_once_what_was_detected() -> None:
    host = up()
    host.run(150 * MS)
    assert (host.last.state, host.last.diagnostic) == (DOWN, Diagnostic.DETECTION_TIME_EXPIRED)
    assert host.sent[-1][0] == host.now_us


# 6.8.6 Reception: the checks that need no session are in tests/unit/test_bfd_packet.py ---------------------


def test_6_8_6_echo_is_not_used() -> None:
    host = up()
    host.hear_up(required_min_echo_rx_us=1000)
    host.run(SECOND)
    assert all(packet.required_min_echo_rx_us == 0 for _, packet in host.sent)


# 6.8.7 Transmission ----------------------------------------------------------------------------------------


def test_6_8_7_packets_are_jittered_by_up_to_a_quarter() -> None:
    host = up()
    for _ in range(200):
        host.run(50 * MS)
        host.hear_up()
    found = gaps(host)
    assert all(37_500 <= gap <= 50_000 for gap in found)
    assert min(found) < 40_000
    assert max(found) > 48_000


def test_6_8_7_with_a_multiplier_of_one_at_most_nine_tenths() -> None:
    host = started(multiplier=1).bring_up()
    host.clear()
    for _ in range(200):
        host.run(50 * MS)
        host.hear_up()
    assert all(37_500 <= gap <= 45_000 for gap in gaps(host))


@pytest.mark.parametrize("interval_us", [1_000, 10_000, 50_000, 300_000, 4_000_000_000])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_6_8_7_jitter_for_any_interval(interval_us: int, multiplier: int) -> None:
    high = interval_us * 9 // 10 if multiplier == 1 else interval_us
    least_us, more_us = jitter_range_us(interval_us, multiplier)
    assert least_us - early_window_us(interval_us, multiplier) == interval_us * 3 // 4
    assert least_us + more_us == high
    assert more_us > 0


def test_6_8_7_no_periodic_packets_when_the_peer_can_take_none() -> None:
    host = up()
    host.hear_up(required_min_rx_us=0)
    host.clear()
    for _ in range(20):
        host.run(50 * MS)
        host.hear_up(required_min_rx_us=0)
    assert host.sent == []
    assert host.state() is UP


def test_6_8_7_a_poll_is_answered_at_once_whatever_the_timer_says() -> None:
    host = up()
    host.hear_up(required_min_rx_us=10 * SECOND)
    host.clear()
    host.hear_up(required_min_rx_us=10 * SECOND, poll=True)
    assert host.sent == [(host.now_us, host.last)]
    assert host.last.final


@pytest.mark.parametrize("state", [DOWN, INIT, UP])
def test_6_8_7_a_poll_is_answered_in_every_state(state: State) -> None:
    host = started()
    host.hear(control(DOWN, poll=True) if state is DOWN else control(DOWN))
    if state is not DOWN:
        host.run(2 * FINAL_GAP_US)
        host.hear(control(state, your_discriminator=host.discriminator, poll=True))
    assert host.last.final


def test_6_8_7_a_poll_is_answered_when_the_peer_demands_or_takes_no_packets() -> None:
    host = up()
    host.hear_up(demand=True, required_min_rx_us=0, poll=True)
    assert host.last.final


def test_6_8_7_the_answer_to_a_poll_does_not_put_off_the_periodic_packets() -> None:
    host = up()
    for _ in range(100):
        host.run(5 * MS)
        host.hear_up(poll=True)
    periodic = [at for at, packet in host.sent if not packet.final]
    assert len(periodic) >= 10


def test_6_8_7_polls_are_not_answered_more_often_than_the_limit() -> None:
    host = up()
    for _ in range(50):
        host.hear_up(poll=True)
    assert sum(packet.final for _, packet in host.sent) == 1
    assert host.session().stats.polls_unanswered == 49
    host.run(FINAL_GAP_US)
    host.hear_up(poll=True)
    assert host.last.final


def test_6_8_7_we_advertise_no_shorter_interval_than_polls_are_answered_at() -> None:
    """ "If rate limiting is in effect, the advertised value of Desired Min TX Interval MUST be …" """
    shortest = "bfd_instance peer {\nneighbor_ip 10.0.0.2\nmin_tx 1\n}\n"
    (found,) = assert_as_annotated(shortest).config.bfd.instances
    host = Host(found).boot().bring_up()
    assert host.last.desired_min_tx_us >= FINAL_GAP_US


def test_6_8_7_a_change_of_state_is_told_between_periodic_packets() -> None:
    host = started()
    at_us = host.now_us
    host.hear(control(DOWN))
    assert host.sent[-1][0] == at_us
    assert host.last.state is INIT


def test_6_8_6_what_the_packet_says_is_recorded() -> None:
    host = up()
    host.hear_up(
        my_discriminator=78,
        detect_mult=5,
        desired_min_tx_us=70 * MS,
        required_min_rx_us=60 * MS,
        demand=True,
        diagnostic=7,
    )
    session, intervals = host.session(), host.session().intervals
    assert (session.remote_discr, session.remote_state, session.remote_demand) == (78, UP, True)
    assert (intervals.remote_min_rx_us, intervals.remote_desired_min_tx_us) == (60 * MS, 70 * MS)
    assert (intervals.remote_detect_mult, session.remote_diag) == (5, 7)
    assert session.detection_time_us == 350 * MS


def test_6_8_7_final_is_set_in_an_answer_only() -> None:
    host = up()
    host.hear_up(final=True)
    host.hear_up(poll=True)
    answers = [packet for _, packet in host.sent if packet.final]
    host.run(SECOND)
    assert len(answers) == 1
    assert [packet for _, packet in host.sent if packet.final] == answers


def test_6_8_7_contents() -> None:
    host = up()
    host.run(50 * MS)
    assert host.last == ControlPacket(
        state=UP,
        my_discriminator=host.discriminator,
        your_discriminator=77,
        detect_mult=3,
        desired_min_tx_us=50 * MS,
        required_min_rx_us=50 * MS,
    )


# 6.8.12 Detect multiplier, 6.8.16 administrative control ---------------------------------------------------


def test_6_8_12_a_changed_multiplier_goes_out_without_a_poll() -> None:
    host = up()
    host.reload(instance(multiplier=7))
    host.run(50 * MS)
    assert (host.last.detect_mult, host.last.poll) == (7, False)


def test_6_8_16_a_session_no_longer_configured_goes_admin_down() -> None:
    host = up()
    host.reload()
    assert (host.last.state, host.last.diagnostic) == (ADMIN, Diagnostic.ADMINISTRATIVELY_DOWN)
    host.run(SECOND)
    assert [packet.state for _, packet in host.sent] == [ADMIN] * 3
    # "for at least a Detection Time after transitioning"
    assert host.sent[-1][0] - host.sent[0][0] >= 150 * MS
    assert host.transports == {}


def test_6_8_16_configured_again_it_begins_down() -> None:
    host = up()
    host.reload()
    host.run(2 * SECOND)
    host.clear()
    host.reload(instance())
    assert host.state() is DOWN
    host.run(2 * SECOND)
    assert {packet.state for _, packet in host.sent} == {DOWN}
    host.bring_up()
    assert host.state() is UP


def test_6_8_16_what_comes_in_while_admin_down_is_discarded() -> None:
    host = up()
    discriminator = host.discriminator
    host.reload()
    host.hear(control(DOWN, your_discriminator=discriminator))
    assert host.last.state is ADMIN
    assert host.drops() == {"your_discriminator": 1}


# 6.8.18 Holding down sessions -----------------------------------------------------------------------------


def test_6_8_18_a_peer_that_took_no_packets_is_spoken_to_again_after_a_detection_time() -> None:
    host = started()
    host.hear(control(DOWN, required_min_rx_us=0))
    host.clear()
    host.run(2900 * MS)
    assert host.sent == []
    host.run(3 * SECOND)
    assert host.session().intervals.remote_min_rx_us == 1
    assert len(host.sent) >= 2


# 7 Congestion: tests/unit/test_bfd_congestion.py ------------------------------------------------------------

# The fast path ---------------------------------------------------------------------------------------------


def test_repeated_packets_refresh_the_detection_time() -> None:
    host = up()
    for _ in range(20):
        host.run(140 * MS)
        host.hear_up()
        assert host.state() is UP


def test_a_repeated_packet_that_polls_is_answered_each_time() -> None:
    host = up()
    for _ in range(5):
        host.run(10 * MS)
        host.hear_up(poll=True)
    assert sum(packet.final for _, packet in host.sent) == 5


def test_a_repeated_packet_after_the_session_was_lost_is_judged_anew() -> None:
    host = up()
    host.hear_up()
    host.hear_up()
    host.run(151 * MS)
    assert host.state() is DOWN
    host.hear_up()
    # Up received in Down: nothing moves, but it is heard.
    assert host.state() is DOWN
    assert host.session().remote_discr == 77


def test_a_repeated_packet_by_another_way_is_checked() -> None:
    host = up()
    host.hear_up()
    host.run(100 * MS)
    host.hear(control(UP, your_discriminator=host.discriminator), hop_limit=100)
    host.run(60 * MS)
    assert host.state() is DOWN


# What subscribers see --------------------------------------------------------------------------------------


def test_subscribers_are_told_before_the_peer() -> None:
    host = up()
    host.run(150 * MS)
    kinds = [type(action).__name__ for action in host.actions[-4:]]
    assert kinds == ["Remember", "Publish", "SessionChanged", "SendPacket"]
    assert host.published["peer"] == Publish("peer", False, 0, True, True)


def test_the_published_detection_time_follows_the_negotiation() -> None:
    host = up()
    assert host.published["peer"] == Publish("peer", True, 150 * MS, True, True)
    host.hear_up(desired_min_tx_us=200 * MS)
    assert host.published["peer"].detection_time_us == 600 * MS


def test_variety_repeats_with_its_seed_and_only_then() -> None:
    one, two, other = Variety(5), Variety(5), Variety(6)
    series = [(one.draw(), one.number()) for _ in range(50)]
    assert series == [(two.draw(), two.number()) for _ in range(50)]
    assert series != [(other.draw(), other.number()) for _ in range(50)]


def test_encode_and_decode_agree() -> None:
    packet = control(UP, your_discriminator=5, poll=True, diagnostic=3, demand=True)
    assert decode(encode(packet)) == packet
