"""Every MUST, MUST NOT and REQUIRED of RFC 5880, 5881 and 5883: the tests that hold us to it, or why it does
not concern us. The words are ours; how many there are of them in each section is counted from the RFCs.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent

COUNTED = {
    "5880": {
        "4.1": 1, "4.2": 2, "4.3": 2, "4.4": 2, "6.1": 3, "6.3": 2, "6.5": 3, "6.6": 3, "6.7": 1, "6.7.2": 10,
        "6.7.3": 19, "6.7.4": 20, "6.8.1": 14, "6.8.3": 9, "6.8.4": 2, "6.8.5": 1, "6.8.6": 19, "6.8.7": 13,
        "6.8.8": 2, "6.8.9": 3, "6.8.14": 1, "6.8.15": 1, "6.8.16": 1, "6.8.17": 1, "6.8.18": 1, "7": 2,
        "9": 1,
    },
    "5881": {"2": 4, "3": 2, "4": 8, "5": 3, "6": 7},
    "5883": {"3": 1, "4.3": 2, "5": 1},
}  # fmt: skip

NOT_AUTHENTICATED = "authentication is in no session's configuration"
NO_ECHO = "echo is never sent, and none is asked for"
BASE, PACKET, HOPS = "test_bfd_rfc5880", "test_bfd_packet", "test_bfd_rfc5881"
DEMUX, CONGESTION = "test_bfd_demux", "test_bfd_congestion"

Obligation = tuple[str, int, str, str, tuple[str, ...]]
"""Section; how many of its MUSTs; what they ask for; the tests' file, or empty; the tests, or why none."""

RFC_5880: tuple[Obligation, ...] = (
    ("4.1", 1, "the multipoint bit is zero, sent and received", PACKET, (
        "test_4_1_what_is_sent_has_version_1_the_length_and_no_multipoint_bit",
        "test_the_multipoint_bit_must_not_be_set",
    )),
    ("4.2", 2, "a simple password", "", (NOT_AUTHENTICATED,)),
    ("4.3", 2, "keyed MD5", "", (NOT_AUTHENTICATED,)),
    ("4.4", 2, "keyed SHA1", "", (NOT_AUTHENTICATED,)),
    ("6.1", 1, "an active system sends whatever it has heard", BASE, (
        "test_6_1_an_active_system_sends_whether_or_not_it_has_received_anything",
    )),
    ("6.1", 1, "a passive one is silent until it has heard its peer", BASE, (
        "test_6_1_a_passive_system_does_not_begin_sending",
        "test_6_1_a_passive_system_answers_once_it_has_received_a_packet",
    )),
    ("6.1", 1, "one of two is active", HOPS, ("test_rfc5881_3_both_sides_are_active_unless_told_otherwise",)),
    ("6.3", 2, "each session has a discriminator of its own", BASE, (
        "test_6_8_1_local_discriminators_are_nonzero_unique_and_unpredictable",
    )),
    ("6.5", 1, "Poll and Final never together", BASE, ("test_6_5_poll_and_final_are_never_both_set",)),
    ("6.5", 2, "polls go with the periodic packets, and there are no more of those", BASE, (
        "test_6_5_no_additional_packets_are_sent_for_a_poll",
    )),
    ("6.6", 2, "Demand only while both are Up, and polled when it changes", BASE, (
        "test_6_8_7_the_demand_bit_is_never_set",
    )),
    ("6.6", 1, "with demand mode active, other contents begin a poll sequence", BASE, (
        "test_6_6_whatever_changes_while_the_peer_demands_begins_a_poll_sequence",
        "test_6_6_the_same_contents_begin_no_poll_sequence",
    )),
    ("6.7", 1, "who supports authentication supports SHA1", "", (NOT_AUTHENTICATED,)),
    ("6.7.2", 10, "a simple password", "", (NOT_AUTHENTICATED,)),
    ("6.7.3", 19, "keyed MD5", "", (NOT_AUTHENTICATED,)),
    ("6.7.4", 20, "keyed SHA1", "", (NOT_AUTHENTICATED,)),
    ("6.8.1", 1, "what the peer said is kept for a detection time, in any state", BASE, (
        "test_6_8_1_what_the_peer_asked_for_is_kept_for_a_detection_time_though_the_session_is_down",
        "test_6_8_1_and_in_state_down_as_well",
    )),
    ("6.8.1", 7, "initial values: states, their discriminator, diagnostic, intervals, demand", BASE, (
        "test_6_8_1_initial_values",
    )),
    ("6.8.1", 1, "our discriminator is unique and not zero", BASE, (
        "test_6_8_1_local_discriminators_are_nonzero_unique_and_unpredictable",
    )),
    ("6.8.1", 1, "theirs is zero after a detection time", BASE, (
        "test_6_8_1_the_remote_discriminator_is_forgotten_after_a_detection_time",
        "test_6_8_1_and_in_state_down_as_well",
    )),
    ("6.8.1", 1, "the multiplier is not zero", BASE, ("test_6_8_1_the_multiplier_is_never_zero",)),
    ("6.8.1", 3, "sequence numbers of authentication", "", (NOT_AUTHENTICATED,)),
    ("6.8.3", 1, "a changed interval begins a poll sequence", BASE, (
        "test_6_8_3_a_changed_interval_starts_a_poll_sequence",
        "test_6_5_becoming_up_polls_since_the_interval_changed",
    )),
    ("6.8.3", 1, "an increased one to send at is not used before its end", BASE, (
        "test_6_8_3_an_increased_interval_is_not_used_before_the_poll_ends",
    )),
    ("6.8.3", 1, "a reduced one to receive at is not used before its end", BASE, (
        "test_6_8_3_a_reduced_receive_interval_does_not_shorten_detection_before_the_poll_ends",
    )),
    ("6.8.3", 1, "a second at least while not Up", BASE, (
        "test_6_8_3_not_up_the_desired_interval_is_a_second_at_least",
        "test_6_8_3_down_again_the_interval_is_slow_again",
    )),
    ("6.8.3", 2, "a reduced interval of the peer counts at once, from the last packet on", BASE, (
        "test_6_8_3_packets_follow_a_changed_interval_of_the_peer_at_once",
    )),
    ("6.8.3", 1, "every other change counts at once", BASE, (
        "test_6_8_2_a_changed_interval_of_the_peer_counts_at_once",
        "test_6_8_3_a_reduced_interval_is_used_at_once",
        "test_6_8_3_an_increased_receive_interval_lengthens_detection_at_once",
    )),
    ("6.8.3", 2, "one poll sequence after the other can be told apart", BASE, (
        "test_6_5_two_changes_before_the_first_poll_are_one_sequence",
        "test_6_5_a_change_during_a_poll_needs_another_sequence",
        "test_6_8_3_another_poll_sequence_waits_for_a_packet_without_final",
    )),
    ("6.8.4", 1, "a detection time of silence in Init or Up is Down, with its diagnostic", BASE, (
        "test_6_8_4_detection_time",
        "test_6_8_4_expiry_in_init_is_down_too",
    )),
    ("6.8.4", 1, "the same while we demand", "", ("we never demand",)),
    ("6.8.5", 1, "a failure of echo", "", (NO_ECHO,)),
    ("6.8.6", 2, "the checks are made in this order, and the first that fails is the last", PACKET, (
        "test_the_checks_are_made_in_order",
        "test_the_checks_that_need_a_session_are_made_in_order",
    )),
    ("6.8.6", 6, "version, both lengths, multiplier, multipoint, their discriminator", PACKET, (
        "test_the_version_must_be_1",
        "test_the_length_must_be_24_at_least",
        "test_the_length_must_be_26_at_least_with_authentication",
        "test_the_length_must_not_exceed_the_payload",
        "test_the_detect_multiplier_must_not_be_zero",
        "test_the_multipoint_bit_must_not_be_set",
        "test_my_discriminator_must_not_be_zero",
    )),
    ("6.8.6", 1, "our discriminator selects the session", DEMUX, (
        "test_6_3_the_discriminator_selects_whatever_the_rest_says",
    )),
    ("6.8.6", 2, "one that names none, or is zero in Init or Up, is dropped", PACKET, (
        "test_your_discriminator_must_name_a_session",
        "test_your_discriminator_may_be_zero_only_in_down_and_admin_down",
    )),
    ("6.8.6", 1, "without it, other fields select the session", DEMUX, (
        "test_6_3_the_first_packet_is_selected_by_addresses",
    )),
    ("6.8.6", 1, "authentication where none is in use is dropped", PACKET, (
        "test_authentication_is_dropped_since_none_is_in_use",
    )),
    ("6.8.6", 2, "authentication where it is in use", "", (NOT_AUTHENTICATED,)),
    ("6.8.6", 1, "echo ends when the peer wants none", BASE, ("test_6_8_6_echo_is_not_used",)),
    ("6.8.6", 1, "Final ends our poll sequence", BASE, ("test_6_5_poll_ends_with_the_first_final",)),
    ("6.8.6", 1, "periodic packets cease while the peer demands", BASE, (
        "test_6_6_periodic_packets_cease_while_the_peer_demands",
    )),
    ("6.8.6", 1, "and go on while it does not", BASE, (
        "test_6_6_packets_go_on_once_the_peer_no_longer_demands",
        "test_6_6_demand_is_not_active_unless_both_are_up",
    )),
    ("6.8.7", 1, "no faster than the slower of both wants", BASE, (
        "test_6_8_2_the_slower_side_decides_how_fast_we_send",
    )),
    ("6.8.7", 2, "each interval is reduced by up to a quarter, by chance", BASE, (
        "test_6_8_7_packets_are_jittered_by_up_to_a_quarter",
        "test_6_8_7_jitter_for_any_interval",
    )),
    ("6.8.7", 2, "with a multiplier of 1: 75 to 90 %", BASE, (
        "test_6_8_7_with_a_multiplier_of_one_at_most_nine_tenths",
    )),
    ("6.8.7", 1, "the interval follows what it is made of", BASE, (
        "test_6_8_2_a_changed_interval_of_the_peer_counts_at_once",
        "test_6_8_3_a_reduced_interval_is_used_at_once",
    )),
    ("6.8.7", 1, "a passive system that knows no peer is silent", BASE, (
        "test_6_1_and_6_8_7_a_passive_system_that_knows_the_peer_no_longer_is_silent_again",
    )),
    ("6.8.7", 1, "no periodic packets to a peer that takes none", BASE, (
        "test_6_8_7_no_periodic_packets_when_the_peer_can_take_none",
    )),
    ("6.8.7", 1, "nor while it demands, but for a poll sequence", BASE, (
        "test_6_6_periodic_packets_cease_while_the_peer_demands",
        "test_6_6_a_poll_sequence_is_sent_even_so",
    )),
    ("6.8.7", 1, "Poll is answered with Final, at once, whatever else holds", BASE, (
        "test_6_8_7_a_poll_is_answered_at_once_whatever_the_timer_says",
        "test_6_8_7_a_poll_is_answered_in_every_state",
        "test_6_8_7_a_poll_is_answered_when_the_peer_demands_or_takes_no_packets",
        "test_6_8_7_final_is_set_in_an_answer_only",
    )),
    ("6.8.7", 1, "a limit to that is within what we advertise", BASE, (
        "test_6_8_7_polls_are_not_answered_more_often_than_the_limit",
        "test_6_8_7_we_advertise_no_shorter_interval_than_polls_are_answered_at",
    )),
    ("6.8.7", 1, "the Demand bit", BASE, ("test_6_8_7_the_demand_bit_is_never_set",)),
    ("6.8.7", 1, "every field's contents", BASE, ("test_6_8_7_contents",)),
    ("6.8.8", 2, "echo packets received", "", (NO_ECHO,)),
    ("6.8.9", 3, "echo packets sent", "", (NO_ECHO,)),
    ("6.8.14", 1, "periodic packets begin again once the peer no longer demands", BASE, (
        "test_6_6_packets_go_on_once_the_peer_no_longer_demands",
    )),
    ("6.8.15", 1, "a reset of the forwarding plane", "", ("Linux forwards, and does not reset that way",)),
    ("6.8.16", 1, "down and up again by the administrator", BASE, (
        "test_6_8_16_a_session_no_longer_configured_goes_admin_down",
        "test_6_8_16_configured_again_it_begins_down",
    )),
    ("6.8.17", 1, "the failure of a concatenated path", "", ("nothing is concatenated",)),
    ("6.8.18", 1, "state is kept for a detection time", BASE, (
        "test_6_8_18_a_peer_that_took_no_packets_is_spoken_to_again_after_a_detection_time",
    )),
    ("7", 2, "across hops, congestion is noticed and given way to", CONGESTION, (
        "test_7_a_multihop_session_lost_again_soon_asks_for_half_the_packets",
        "test_7_and_with_every_further_loss_up_to_the_pace_of_a_session_that_is_down",
    )),
    ("9", 1, "over one hop, the greatest TTL is sent and no other believed", HOPS, (
        "test_rfc5881_5_what_is_sent_has_a_ttl_of_255",
        "test_rfc5881_5_a_ttl_other_than_255_is_dropped",
    )),
)  # fmt: skip

RFC_5881: tuple[Obligation, ...] = (
    ("2", 1, "each session between two systems has a path of its own", HOPS, (
        "test_rfc5883_4_1_two_sessions_between_the_same_systems_differ_in_an_address",
    )),
    ("2", 1, "IPv4 and IPv6 have a session each", HOPS, (
        "test_rfc5881_2_each_protocol_has_a_session_of_its_own",
    )),
    ("2", 2, "ingress filters and echo", "", (NO_ECHO,)),
    ("3", 1, "both sides are active", HOPS, ("test_rfc5881_3_both_sides_are_active_unless_told_otherwise",)),
    ("3", 1, "neighbour, interface and protocol select the session of a first packet", HOPS, (
        "test_rfc5881_3_the_first_packet_goes_to_the_session_of_neighbour_interface_and_protocol",
    )),
    ("4", 1, "port 3784", HOPS, ("test_rfc5881_4_control_packets_go_to_port_3784",)),
    ("4", 2, "a source port of the session's own, from 49152 up", HOPS, (
        "test_rfc5881_4_the_source_port_is_in_the_range_and_one_for_the_session",
    )),
    ("4", 1, "sessions are told apart as RFC 5880 has it", DEMUX, (
        "test_6_3_the_discriminator_selects_whatever_the_rest_says",
    )),
    ("4", 4, "echo packets", "", (NO_ECHO,)),
    ("5", 1, "TTL 255 is sent", HOPS, ("test_rfc5881_5_what_is_sent_has_a_ttl_of_255",)),
    ("5", 1, "and no other believed", HOPS, (
        "test_rfc5881_5_a_ttl_other_than_255_is_dropped",
        "test_rfc5881_5_over_ipv6_a_hop_limit_of_64_passes_unless_told_otherwise",
    )),
    ("5", 1, "the same with authentication", "", (NOT_AUTHENTICATED,)),
    ("6", 1, "packets go over the path they protect", HOPS, (
        "test_rfc5881_6_a_session_with_an_interface_sends_through_it_alone",
    )),
    ("6", 1, "addresses of the subnet", "", ("source_ip says which, or the kernel chooses the route's",)),
    ("6", 5, "whom we speak to does not follow whom we hear (the other half is a listed difference)", HOPS, (
        "test_rfc5881_6_the_destination_is_the_configured_address_for_good",
    )),
)  # fmt: skip

RFC_5883: tuple[Obligation, ...] = (
    ("3", 1, "no echo over several hops", HOPS, ("test_rfc5883_3_echo_is_not_used_over_several_hops",)),
    ("4.3", 2, "one end of a one-way link is active, the other passive", BASE, (
        "test_6_1_an_active_system_sends_whether_or_not_it_has_received_anything",
        "test_6_1_a_passive_system_does_not_begin_sending",
    )),
    ("5", 1, "port 4784", HOPS, ("test_rfc5883_5_control_packets_go_to_port_4784",)),
)  # fmt: skip

ALL = {"5880": RFC_5880, "5881": RFC_5881, "5883": RFC_5883}


def test_every_obligation_is_accounted_for() -> None:
    for document, rows in ALL.items():
        found: Counter[str] = Counter()
        for section, count, *_ in rows:
            found[section] += count
        assert dict(found) == COUNTED[document], document


def test_the_tests_named_are_there() -> None:
    for rows in ALL.values():
        for section, _, what, file, tests in rows:
            assert tests, (section, what)
            if file:
                tree = ast.parse((HERE / f"{file}.py").read_text())
                defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
                assert set(tests) <= defined, (section, what, set(tests) - defined)
