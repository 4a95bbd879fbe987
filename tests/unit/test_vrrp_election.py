"""Who becomes master and who gives way: each rule of RFC 9568 §6.4 and of keepalived, by itself."""

import itertools

import pytest
from msgspec.structs import replace

from kad.config.model.vrrp import AuthType, UnicastPeer, VrrpSettings, WantedState
from kad_vrrp.core.actions import SendAdvert
from kad_vrrp.core.advertiser import Adverts
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.events import TimeReached
from tests.support.vrrp_host import SECOND, instance
from tests.support.vrrp_playbook import Playbook

GROUP = "224.0.0.18"


def deadline_after(book: Playbook) -> int:
    deadline_us = book.engine.deadline_us
    assert deadline_us is not None
    return deadline_us - book.now_us


# Start -------------------------------------------------------------------------------------------------


def test_start_as_backup_removes_every_address_then_notifies() -> None:
    book = Playbook(instance()).start()
    assert book.lines() == ["INIT -> BACKUP", "remove 10.0.0.100 10.0.0.101", "notify BACKUP 100"]
    assert deadline_after(book) == 3_609_375


def test_wanting_master_below_255_waits_like_any_backup() -> None:
    book = Playbook(instance(wanted_state=WantedState.MASTER, priority=254)).start()
    assert book.lines()[0] == "INIT -> BACKUP"
    assert deadline_after(book) == 3 * SECOND + 7_812


def test_becoming_master_advert_then_addresses_then_announcements_then_scripts() -> None:
    book = Playbook(instance()).start()
    book.lines()
    book.run_for(3_609_375)
    assert book.lines() == [
        "BACKUP -> MASTER",
        f"advert 100 to {GROUP}",
        "add 10.0.0.100 10.0.0.101",
        "announce 10",
        "notify MASTER 100",
    ]


def test_owner_wanting_master_is_master_at_once() -> None:
    book = Playbook(instance(priority=255, wanted_state=WantedState.MASTER)).start()
    assert book.lines()[:2] == ["INIT -> MASTER", f"advert 255 to {GROUP}"]
    assert book.state() == "MASTER"


def test_the_record_is_written_before_anything_it_is_about() -> None:
    book = Playbook(instance()).start()
    book.lines()
    book.run_for(3_609_375)
    told = book.lines(everything=True)
    assert told[0] == "remember MASTER owing [MASTER]"
    assert told[-1] == "remember MASTER owing []"


def test_startup_delay_ignores_adverts_and_then_waits_the_whole_interval() -> None:
    book = Playbook(instance()).start(EngineSettings(startup_delay_us=5 * SECOND))
    assert deadline_after(book) == 5 * SECOND + 3_609_375
    book.hear(200)
    assert book.engine.report().instances[0].drops == {"not_listening": 1}
    owner = Playbook(instance(priority=255, wanted_state=WantedState.MASTER))
    owner.start(EngineSettings(startup_delay_us=5 * SECOND))
    assert owner.lines() == []
    owner.run_for(5 * SECOND)
    assert owner.lines()[0] == "INIT -> MASTER"


def test_adverts_keep_an_absolute_schedule() -> None:
    book = Playbook(instance()).start_as_master()
    born_us = book.now_us
    for late_us in (0, 300, 90_000, 0, 400_000, 0):
        deadline_us = book.engine.deadline_us
        assert deadline_us is not None
        book.now_us = deadline_us + late_us
        book.tell(TimeReached())
        if (deadline_us - born_us) % SECOND == 0:
            assert book.lines()[0] == f"advert 100 to {GROUP}"
    assert (book.engine.deadline_us or 0) <= book.now_us + SECOND
    assert ((book.engine.deadline_us or 0) - born_us) % SECOND == 0


def test_an_advert_leaves_a_little_early_when_awake_anyway() -> None:
    fast = instance("FAST", virtual_router_id=1)
    slow = instance("SLOW", virtual_router_id=2, virtual_addresses=())
    book = Playbook(fast).start_as_master()
    born_us = book.now_us
    book.run_for(SECOND + 5_000 - 609_375)
    book.reload(fast, slow)
    book.run_for(3_609_375)
    assert book.now_us == born_us + 4 * SECOND + 5_000
    assert book.state("SLOW") == "MASTER"
    for second in range(5, 8):
        book.lines()
        book.run_until(born_us + second * SECOND)
        assert [each.instance for each in book.actions if isinstance(each, SendAdvert)] == ["FAST", "SLOW"]


# BACKUP ------------------------------------------------------------------------------------------------


def test_hearing_the_master_starts_the_wait_anew() -> None:
    book = Playbook(instance()).start()
    for _ in range(20):
        book.run_for(SECOND)
        book.hear(150)
        assert deadline_after(book) <= 3_609_375
    assert book.state() == "BACKUP"
    book.run_for(3_609_374)
    assert book.state() == "BACKUP"
    book.run_for(1)
    assert book.state() == "MASTER"


def test_priority_zero_shortens_the_wait_to_the_skew_time() -> None:
    book = Playbook(instance()).start()
    book.hear(150)
    book.hear(0)
    assert deadline_after(book) == 609_375


def test_repeated_goodbyes_cannot_keep_the_network_without_master() -> None:
    book = Playbook(instance()).start()
    book.hear(150)
    for _ in range(100):
        book.hear(0)
        book.run_for(10_000)
    assert book.state() == "MASTER"


def test_a_lower_priority_is_preempted_when_our_wait_ends() -> None:
    book = Playbook(instance()).start()
    book.run_for(SECOND)
    for _ in range(10):
        book.hear(50)
    assert deadline_after(book) == 2_609_375
    book.run_for(2_609_375)
    assert book.state() == "MASTER"
    assert "preempting 10.0.0.2 of lower priority 50" in book.engine.report().instances[0].reason


def test_nopreempt_leaves_a_lower_master_alone() -> None:
    book = Playbook(instance(nopreempt=True)).start()
    for _ in range(10):
        book.run_for(SECOND)
        book.hear(50)
    assert book.state() == "BACKUP"


def test_no_preemption_while_the_engine_was_told_so() -> None:
    book = Playbook(instance())
    book.start(EngineSettings(no_preempt_until_us=book.now_us + 20 * SECOND))
    for _ in range(10):
        book.run_for(SECOND)
        book.hear(50)
    assert book.state() == "BACKUP"
    for _ in range(15):
        book.run_for(SECOND)
        book.hear(50)
    assert book.state() == "MASTER"


def test_preempt_delay_begins_with_the_first_lower_advert() -> None:
    book = Playbook(instance(preempt_delay_us=5 * SECOND)).start()
    for second in range(20):  # noqa: B007
        book.hear(50)
        if book.state() == "MASTER":
            break
        book.run_for(SECOND)
    # Heard at 0; from 5 s on lower adverts are not accepted; the last accepted one was at 4 s.
    assert 7 <= second <= 9


@pytest.mark.parametrize(
    ("before", "after", "first"), [(1000, 10, 12), (10, 20, 22), (1000, 0, 6), (0, 9, 12)]
)
def test_a_reload_that_changes_a_preempt_delay_counts_what_has_passed(
    before: int, after: int, first: int
) -> None:
    ours, lower = instance(preempt_delay_us=before * SECOND), instance(priority=50)
    book = Playbook(ours).start()
    for second in range(40):
        book.hear(50, config=lower)
        if book.state() == "MASTER":
            break
        if second == 2:
            book.reload(replace(ours, preempt_delay_us=after * SECOND))
        book.run_for(SECOND)
    assert first <= second <= first + 3


def test_preempt_delay_does_not_slow_a_takeover_from_silence() -> None:
    book = Playbook(instance(preempt_delay_us=500 * SECOND)).start()
    book.hear(50)
    book.run_for(3_609_375)
    assert book.state() == "MASTER"


def test_preempt_delay_is_cancelled_by_a_higher_master() -> None:
    book = Playbook(instance(preempt_delay_us=3 * SECOND)).start()
    for second in range(12):
        book.hear(50 if second % 3 else 150)
        book.run_for(SECOND)
    assert book.state() == "BACKUP"


def test_version_3_learns_the_interval_of_the_master_and_forgets_it_as_master() -> None:
    slow = instance(advert_int_us=2 * SECOND)
    book = Playbook(instance()).start()
    book.hear(150, config=slow)
    assert deadline_after(book) == 3 * 2 * SECOND + 2 * 609_375
    book.run_for(8 * SECOND)
    assert book.state() == "MASTER"
    assert book.engine.report().instances[0].master_adver_us == SECOND


def test_version_2_does_not_believe_another_interval() -> None:
    ours = instance(version=2)
    book = Playbook(ours).start()
    book.run_for(SECOND)
    book.hear(150, config=replace(ours, advert_int_us=2 * SECOND))
    assert deadline_after(book) == 2_609_375
    report = book.engine.report().instances[0]
    assert report.counters["advert_interval_err"] == 1


def test_down_timer_adverts_counts_the_missed_adverts() -> None:
    book = Playbook(instance(down_timer_adverts=1)).start()
    assert deadline_after(book) == 1_609_375


def test_two_backups_of_equal_priority_both_listen_to_either() -> None:
    book = Playbook(instance()).start()
    book.run_for(3 * SECOND)
    book.hear(100, "10.0.0.9")
    assert deadline_after(book) == 3_609_375


# MASTER ------------------------------------------------------------------------------------------------


def test_a_higher_priority_makes_the_master_give_way_without_farewell() -> None:
    book = Playbook(instance()).start_as_master()
    book.hear(150)
    assert book.lines() == ["MASTER -> BACKUP", "remove 10.0.0.100 10.0.0.101", "notify BACKUP 100"]
    assert book.addresses == []
    assert deadline_after(book) == 3_609_375


def test_higher_prio_send_advert_sends_one_before_giving_way() -> None:
    book = Playbook(instance(higher_prio_send_advert=True)).start_as_master()
    book.hear(150)
    assert book.lines()[:2] == [f"advert 100 to {GROUP}", "MASTER -> BACKUP"]


@pytest.mark.parametrize(("source", "state"), [("10.0.0.2", "BACKUP"), ("10.0.0.0", "MASTER")])
def test_equal_priorities_are_settled_by_the_address(source: str, state: str) -> None:
    book = Playbook(instance()).start_as_master()
    book.hear(100, source)
    assert book.state() == state


def test_our_own_address_with_our_priority_changes_nothing() -> None:
    book = Playbook(instance()).start_as_master()
    for _ in range(3):
        book.hear(100, "10.0.0.1")
    assert len([line for line in book.lines(everything=True) if "with our IP address" in line]) == 1
    assert book.state() == "MASTER"


def test_a_lower_master_is_answered_with_an_advert_and_announcements() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(500_000)
    book.hear(50)
    assert book.lines() == [f"advert 100 to {GROUP}", "announce 10"]
    assert deadline_after(book) == SECOND
    assert book.engine.report().instances[0].counters["advert_sent"] == 2


def test_lower_prio_no_advert_only_announces_and_leaves_the_schedule_alone() -> None:
    book = Playbook(instance(lower_prio_no_advert=True)).start_as_master()
    book.run_for(500_000)
    book.hear(50)
    assert book.lines() == ["announce 10"]
    assert deadline_after(book) == 500_000


def test_priority_zero_is_answered_with_an_advert() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(500_000)
    book.hear(0)
    assert book.lines() == [f"advert 100 to {GROUP}"]


def test_provoked_adverts_and_announcements_are_bounded_however_many_provoke_them() -> None:
    book = Playbook(instance()).start_as_master()
    for number in range(10_000):
        book.hear(50 if number % 2 else 0)
        book.run_for(100)
    lines = book.lines()
    assert 2 <= len([line for line in lines if line.startswith("advert")]) <= 8
    assert len([line for line in lines if line.startswith("announce")]) <= 6
    assert book.state() == "MASTER"


@pytest.mark.parametrize("damage", ["checksum", "ttl", "length"])
@pytest.mark.parametrize("gap_us", [1_000, 50_000])
def test_bad_adverts_neither_delay_nor_suppress_a_masters_adverts(damage: str, gap_us: int) -> None:
    book = Playbook(instance()).start_as_master()
    sent_at = []
    book.on_advert = lambda advert: sent_at.append(book.now_us)
    sample = Playbook(instance()).start_as_master()
    sample.run_for(SECOND)
    packet = bytearray(next(a.data for a in sample.actions if isinstance(a, SendAdvert)))
    packet[12:16] = bytes((10, 0, 0, 2))
    if damage == "checksum":
        packet[26] ^= 0xFF
    elif damage == "ttl":
        packet[8] = 64
    else:
        packet += bytes(40)
    for _ in range(3 * SECOND // gap_us):
        book.run_for(gap_us)
        book.hear_bytes(bytes(packet))
    assert len(sent_at) == 3
    assert all(later - earlier == SECOND for earlier, later in itertools.pairwise(sent_at))
    assert sum(book.engine.report().instances[0].drops.values()) == 3 * SECOND // gap_us
    assert len([line for line in book.lines(everything=True) if "dropped packet" in line]) == 1


def test_timer_expired_backup_gives_way_when_far_too_late() -> None:
    book = Playbook(instance(timer_expired_backup=90)).start_as_master()
    book.now_us += 3 * SECOND + 166 * SECOND // 256
    book.tell(TimeReached())
    assert book.state() == "BACKUP"
    patient = Playbook(instance()).start_as_master()
    patient.now_us += 60 * SECOND
    patient.tell(TimeReached())
    assert patient.state() == "MASTER"


def test_timer_expired_backup_leaves_it_to_the_router_that_is_heard_first() -> None:
    """Packets that came meanwhile are read before the timer that is overdue."""
    book = Playbook(instance(timer_expired_backup=90, nopreempt=True, priority=150)).start_as_master()
    book.now_us += 3 * SECOND + 166 * SECOND // 256
    book.hear(90)
    assert book.state() == "BACKUP"
    assert [line for line in book.lines() if line.startswith("advert")] == []
    for _ in range(10):
        book.run_for(SECOND)
        book.hear(90)
    assert book.state() == "BACKUP"


def test_after_a_long_silence_speak_listen_then_announce() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(6 * SECOND)
    book.lines()
    book.now_us += 3 * SECOND
    book.tell(TimeReached())
    assert book.lines() == [f"advert 100 to {GROUP}"]
    book.run_for(999_999)
    assert book.lines() == []
    book.run_for(1)
    assert sorted(book.lines()) == [f"advert 100 to {GROUP}", "announce 10"]


def test_after_a_long_silence_a_higher_master_spares_the_hosts_the_announcement() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(6 * SECOND)
    book.lines()
    book.now_us += 3 * SECOND
    book.tell(TimeReached())
    book.hear(150)
    book.run_for(3 * SECOND)
    assert not [line for line in book.lines() if line.startswith("announce")]


# Address owners ----------------------------------------------------------------------------------------


def owner(**changes: object) -> Playbook:
    return Playbook(instance(priority=255, wanted_state=WantedState.MASTER, **changes)).start()


def test_two_owners_the_lower_address_yields() -> None:
    book = owner()
    book.hear(255, "10.0.0.2")
    assert book.state() == "BACKUP"


def test_two_owners_the_higher_address_steps_down_when_the_other_does_not() -> None:
    book = owner()
    for _ in range(40):
        book.run_for(100_000)
        if book.state() == "MASTER":
            book.hear(255, "10.0.0.0")
    report = book.engine.report().instances[0]
    assert (report.state, report.effective_priority) == ("BACKUP", 254)
    book.run_for(4 * SECOND)
    report = book.engine.report().instances[0]
    assert (report.state, report.effective_priority) == ("MASTER", 255)


def test_an_owner_that_stepped_down_is_owner_again_when_another_master_is_heard() -> None:
    book = owner()
    for _ in range(40):
        book.run_for(100_000)
        if book.state() == "MASTER":
            book.hear(255, "10.0.0.0")
    book.hear(255, "10.0.0.0")
    assert book.engine.report().instances[0].effective_priority == 254
    book.hear(120, "10.0.0.3")
    assert book.engine.report().instances[0].effective_priority == 255


def test_two_owners_the_higher_address_stays_when_the_other_yields() -> None:
    book = owner()
    book.run_for(500_000)
    book.hear(255, "10.0.0.0")
    book.run_for(10 * SECOND)
    assert (book.state(), book.engine.report().instances[0].effective_priority) == ("MASTER", 255)


def test_owner_ignores_adverts_when_told_to() -> None:
    book = owner(owner_ignore_adverts=True)
    book.hear(255, "10.0.0.2")
    assert book.state() == "MASTER"
    assert book.engine.report().instances[0].drops == {"owner": 1}


# Which instance, which counters ------------------------------------------------------------------------


def test_a_difference_in_addresses_is_said_once_and_believed() -> None:
    book = Playbook(instance()).start()
    for _ in range(5):
        book.hear(150, config=instance(virtual_addresses=()))
    assert len([line for line in book.lines(everything=True) if "differ from ours" in line]) == 1
    assert book.engine.report().instances[0].counters["addr_list_err"] == 5
    assert deadline_after(book) == 3_609_375


def test_skip_check_adv_addr_looks_only_at_a_new_master() -> None:
    book = Playbook(instance(skip_check_adv_addr=True)).start()
    for source in ("10.0.0.2", "10.0.0.2", "10.0.0.3"):
        book.hear(150, source, config=instance(virtual_addresses=()))
    assert book.engine.report().instances[0].counters["addr_list_err"] == 2


def test_an_unknown_vrid_is_counted_by_nobodys_instance() -> None:
    book = Playbook(instance())
    book.settings = VrrpSettings(log_unknown_vrids=True)
    book.start()
    for _ in range(3):
        book.hear(150, config=instance(virtual_router_id=77))
    assert book.engine.report().drops == {"unknown_vrid": 3}
    assert len([line for line in book.lines(everything=True) if "unknown VRID 77" in line]) == 1


def test_every_unknown_vrid_is_named_once_while_a_configuration_says_so() -> None:
    book = Playbook(instance()).start()

    def named() -> list[str]:
        book.lines()
        for vrid in (60, 61, 60):
            book.hear(150, config=instance(virtual_router_id=vrid))
        return [line.split()[3] for line in book.lines(everything=True) if "unknown VRID" in line]

    assert named() == []
    book.settings = VrrpSettings(log_unknown_vrids=True)
    book.reload(instance())
    assert named() == ["60", "61"]
    assert named() == []
    book.settings = VrrpSettings()
    book.reload(instance())
    book.hear(150, config=instance(virtual_router_id=62))
    assert not [line for line in book.lines(everything=True) if "unknown" in line]


def test_instances_with_one_vrid_are_told_apart_by_their_peers() -> None:
    def unicast(name: str, peer: str) -> object:
        return instance(name, unicast=True, unicast_peers=(UnicastPeer(peer),), source_address="10.0.0.1")

    one, two = unicast("ONE", "10.0.0.2"), unicast("TWO", "10.0.0.3")
    book = Playbook(one, two).start()  # type: ignore[arg-type]
    book.hear(150, "10.0.0.3", config=two)  # type: ignore[arg-type]
    received = {each.name: each.counters["advert_rcvd"] for each in book.engine.report().instances}
    assert received == {"ONE": 0, "TWO": 1}


def test_counters_have_keepaliveds_names_and_count() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(2 * SECOND)
    book.hear(0)
    book.hear(150)
    counters = book.engine.report().instances[0].counters
    assert list(counters)[:4] == ["advert_rcvd", "advert_sent", "become_master", "release_master"]
    assert counters["advert_rcvd"] == 2
    assert counters["pri_zero_rcvd"] == 1
    assert (counters["become_master"], counters["release_master"]) == (1, 1)


def test_an_unchanged_packet_is_recognised_and_a_changed_one_is_not() -> None:
    book = Playbook(instance()).start()
    book.hear(150)
    book.run_for(SECOND)
    book.hear(150)
    assert deadline_after(book) == 3_609_375
    assert book.engine.report().instances[0].counters["advert_rcvd"] == 2
    book.hear(0)
    assert deadline_after(book) == 609_375


@pytest.mark.parametrize(
    ("position", "value", "reason"), [(8, 64, "ttl"), (3, 35, "ip_length"), (9, 51, "ah_header")]
)
def test_a_familiar_payload_under_another_header_is_judged_anew(
    position: int, value: int, reason: str
) -> None:
    book = Playbook(instance()).start()
    packet = bytearray(Adverts(instance(), "10.0.0.2", 1, old_checksum=False).of(150)[0].data)
    book.hear_bytes(bytes(packet))
    packet[4:6] = b"\x12\x34"
    book.hear_bytes(bytes(packet))
    assert book.engine.report().instances[0].drops == {}
    packet[position] = value
    book.run_for(SECOND)
    book.hear_bytes(bytes(packet))
    assert book.engine.report().instances[0].drops == {reason: 1}
    assert deadline_after(book) == 2_609_375


def test_a_complaint_is_made_again_after_a_change_of_state() -> None:
    book = Playbook(instance()).start()

    def complaints() -> int:
        book.hear(200, config=instance(auth_type=AuthType.PASS, version=2))
        return len([line for line in book.lines(everything=True) if "dropped packet" in line])

    assert [complaints(), complaints()] == [1, 0]
    book.run_for(4 * SECOND)
    assert [complaints(), complaints()] == [1, 0]


def test_the_queue_of_deadlines_stays_small_whatever_packets_come() -> None:
    book = Playbook(instance()).start()
    for number in range(5_000):
        book.hear(150 if number % 2 else 0)
        book.run_for(200)
    assert len(book.engine._deadlines) <= 20
