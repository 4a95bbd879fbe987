"""The check engine: who is in the pool, when, and who hears of it."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from kad.config.model.check import CheckConfiguration, UdpCheck
from kad_check.core.actions import (
    AddChecker,
    ChangeDestinations,
    Notify,
    Remember,
    RemoveChecker,
    ReplaceServices,
    StartCheck,
    WithdrawServices,
    WriteFifo,
)
from kad_check.core.engine import EngineSettings
from kad_check.core.events import (
    AddressesChanged,
    CheckDone,
    DestinationRefused,
    FileChanged,
    ServicesDone,
    SessionChanged,
    StopRequested,
    TimeReached,
    Verdict,
)
from tests.support.check_host import SECOND, CheckHost, only_down
from tests.support.configuration import SECURE, read

VS = "[10.0.0.1]:tcp:80"
ONE, TWO, SORRY = ("192.0.2.11", 80), ("192.0.2.12", 80), ("192.0.2.99", 80)

ALL_UP = only_down()


def configuration(
    *, vs: str = "", one: str = "", two: str = "", check: str = "", globals: str = "", above: str = ""
) -> CheckConfiguration:
    text = f"""
    {above}
    virtual_server 10.0.0.1 80 {{
        lvs_sched rr
        lvs_method DR
        protocol TCP
        delay_loop 6
        {vs}
        real_server 192.0.2.11 80 {{
            {one}
            TCP_CHECK {{
                warmup 0
                {check}
            }}
        }}
        real_server 192.0.2.12 80 {{
            {two}
            TCP_CHECK {{
                warmup 0
                {check}
            }}
        }}
    }}
    """
    loaded = read(text, f"{SECURE}\n{globals}")
    assert not loaded.diagnostics, loaded.diagnostics
    return loaded.config.check


def host(**words: str) -> CheckHost:
    made = CheckHost(configuration(**words))
    made.start()
    return made


def test_servers_are_up_until_a_check_says_otherwise() -> None:
    made = host()
    assert made.table(VS) == {ONE: 1, TWO: 1}
    assert "Gained quorum 1+0=1 <= 2 for VS [10.0.0.1]:tcp:80" in made.logged()


def test_with_alpha_servers_are_down_until_a_check_succeeds() -> None:
    made = host(vs="alpha")
    assert made.table(VS) == {}
    made.run(2, only_down(TWO[0]))
    assert made.table(VS) == {ONE: 1}


def test_the_first_check_comes_a_second_after_the_start() -> None:
    made = host()
    assert made.engine.deadline_us == made.now_us + SECOND


def test_the_first_failure_of_a_life_is_believed() -> None:
    made = host(check="retry 3")
    made.run(1.1, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}


def test_later_failures_are_retried_first() -> None:
    made = host(check="retry 2\n delay_before_retry 2")
    made.run(2, ALL_UP)
    started = made.now_us
    checks = []

    def judge(checker: object, step: int) -> bool:
        checks.append(made.now_us - started)
        return False

    while made.table(VS):
        made.run(0.5, judge)
    # Due 6 s after the first check (which was 1 s before ``started``), then two retries 2 s apart.
    first, *_, last = checks
    assert 4.9 * SECOND < first < 5.1 * SECOND
    assert 8.9 * SECOND < last < 9.2 * SECOND
    assert len(checks) == 6  # three of each server


def test_down_servers_are_checked_every_delay_loop_and_come_back_at_the_first_success() -> None:
    made = host(check="retry 2")
    made.run(2, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}
    before = made.engine.report().virtual_servers[0].real_servers[0].checkers[0].runs
    made.run(12, only_down(ONE[0]))
    after = made.engine.report().virtual_servers[0].real_servers[0].checkers[0].runs
    assert after - before == 2
    made.run(6.1, ALL_UP)
    assert made.table(VS) == {ONE: 1, TWO: 1}


def test_an_smtp_check_uses_its_retries_while_the_server_is_down() -> None:
    text = """
    virtual_server 10.0.0.1 80 {
        lvs_sched rr
        lvs_method DR
        protocol TCP
        delay_loop 10
        real_server 192.0.2.11 80 {
            SMTP_CHECK {
                warmup 0
                retry 1
                delay_before_retry 1
            }
        }
    }
    """
    made = CheckHost(read(text).config.check)
    made.start()
    made.run(1.5, only_down(ONE[0]))
    assert made.table(VS) == {}
    assert made.run(11, only_down(ONE[0])) == 2, "one after delay_loop, one after delay_before_retry"


def test_death_to_removal_takes_one_to_two_periods() -> None:
    made = host(vs="delay_loop 1", check="retry 1\n delay_before_retry 1")
    made.run(3.5, ALL_UP)
    died = made.now_us
    while ONE in made.table(VS):
        made.run(0.05, only_down(ONE[0]))
    assert SECOND <= made.now_us - died <= 2.1 * SECOND


def test_inhibit_on_failure_keeps_the_server_with_weight_zero() -> None:
    made = host(one="inhibit_on_failure", vs="alpha")
    assert made.table(VS) == {ONE: 0}
    made.run(2, ALL_UP)
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.run(10, only_down(ONE[0], TWO[0]))
    assert made.table(VS) == {ONE: 0}
    assert "Disabling service [192.0.2.11]:tcp:80 of VS [10.0.0.1]:tcp:80" in made.logged()
    assert "Removing service [192.0.2.12]:tcp:80 from VS [10.0.0.1]:tcp:80" in made.logged()


def test_the_sorry_server_takes_over_with_the_quorum_lost_and_leaves_with_it_won() -> None:
    made = host(vs="quorum 2\n sorry_server 192.0.2.99 80")
    made.run(2, only_down(ONE[0]))
    assert made.table(VS) == {SORRY: 1}, "the one that is alive is out as well"
    made.run(7, ALL_UP)
    assert made.table(VS) == {ONE: 1, TWO: 1}


def test_the_change_to_the_sorry_server_is_one_and_puts_before_it_removes() -> None:
    made = host(vs="sorry_server 192.0.2.99 80")
    made.run(8, only_down(ONE[0]))
    made.done.clear()
    made.run(8, only_down(ONE[0], TWO[0]))
    changes = [action for action in made.done if isinstance(action, ChangeDestinations)]
    assert [([d.key for d in c.put], [d.key for d in c.remove]) for c in changes] == [([SORRY], [TWO])]


def test_servers_that_change_while_the_sorry_server_serves_stay_out() -> None:
    made = host(vs="quorum 2\n hysteresis 0\n sorry_server 192.0.2.99 80")
    made.run(2, only_down(ONE[0], TWO[0]))
    assert made.table(VS) == {SORRY: 1}
    made.run(7, only_down(TWO[0]))
    assert made.alive() == {"[192.0.2.11]:tcp:80": True, "[192.0.2.12]:tcp:80": False}
    assert made.table(VS) == {SORRY: 1}


def test_a_sorry_server_may_be_one_of_the_real_servers() -> None:
    made = host(vs="quorum 2\n sorry_server 192.0.2.12 80")
    made.run(2, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}
    made.run(7, ALL_UP)
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.run(10, only_down(ONE[0], TWO[0]))
    assert made.table(VS) == {TWO: 1}
    made.run(10, only_down(TWO[0]))
    assert made.table(VS) == {TWO: 1}


def test_without_a_sorry_server_the_rest_goes_on_below_the_quorum() -> None:
    made = host(vs="quorum 2")
    made.run(2, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}
    assert "Lost quorum 2-0=2 > 1 for VS [10.0.0.1]:tcp:80" in made.logged()


def test_hysteresis_keeps_the_quorum_from_flapping() -> None:
    made = host(vs="weight 10\n quorum 10\n hysteresis 5")
    assert made.engine.report().virtual_servers[0].has_quorum
    made.run(2, only_down(ONE[0]))
    assert made.engine.report().virtual_servers[0].has_quorum, "10 >= 10 - 5"
    made.run(10, only_down(ONE[0], TWO[0]))
    assert not made.engine.report().virtual_servers[0].has_quorum
    made.run(10, only_down(ONE[0]))
    assert not made.engine.report().virtual_servers[0].has_quorum, "10 < 10 + 5"
    made.run(10, ALL_UP)
    assert made.engine.report().virtual_servers[0].has_quorum


SCRIPTS = 'quorum_up "/bin/q up"\n quorum_down "/bin/q down"'
NOTIFY = 'notify_up "/bin/r up"\n notify_down "/bin/r down"'


def test_scripts_and_fifo_hear_of_every_change_in_order() -> None:
    made = host(vs=SCRIPTS, one=NOTIFY, globals="lvs_notify_fifo /run/fifo")
    assert made.notified() == ["/bin/q up"], "the quorum is won at start; servers are not told of"
    made.run(2, only_down(ONE[0], TWO[0]))
    made.run(7, only_down(TWO[0]))
    assert made.notified() == ["/bin/q up", "/bin/r down", "/bin/q down", "/bin/r up", "/bin/q up"]
    assert made.fifo() == (
        b"VS [10.0.0.1]:tcp:80 UP\n"
        b"RS [192.0.2.11]:tcp:80 [10.0.0.1]:tcp:80 DOWN\n"
        b"RS [192.0.2.12]:tcp:80 [10.0.0.1]:tcp:80 DOWN\n"
        b"VS [10.0.0.1]:tcp:80 DOWN\n"
        b"RS [192.0.2.11]:tcp:80 [10.0.0.1]:tcp:80 UP\n"
        b"VS [10.0.0.1]:tcp:80 UP\n"
    )


def test_rs_init_notifies_tells_of_servers_that_are_up_from_the_start() -> None:
    made = host(one=NOTIFY, globals="rs_init_notifies\nlvs_notify_fifo /run/fifo")
    assert made.notified() == ["/bin/r up"]
    assert b"RS [192.0.2.11]:tcp:80 [10.0.0.1]:tcp:80 UP\n" in made.fifo()


def test_a_server_found_down_with_alpha_is_told_of_once() -> None:
    made = host(vs="alpha", one=NOTIFY)
    made.run(20, only_down(ONE[0]))
    assert made.notified() == ["/bin/r down"]


def test_the_journal_is_written_before_the_kernel_and_the_scripts() -> None:
    made = host(one=NOTIFY)
    made.done.clear()
    made.run(2, only_down(ONE[0]))
    kinds = [type(action) for action in made.done]
    assert kinds.index(Remember) < kinds.index(ChangeDestinations) < kinds.index(Notify)


def test_a_refused_destination_is_asked_for_again_with_the_next_success() -> None:
    made = host()
    made.feed(DestinationRefused(VS, *ONE, "no memory"))
    made.done.clear()
    made.run(2, ALL_UP)
    changes = [action for action in made.done if isinstance(action, ChangeDestinations)]
    assert [[d.key for d in change.put] for change in changes] == [[ONE]]
    assert made.engine.report().virtual_servers[0].real_servers[0].refused == ""


def asked(made: CheckHost) -> list[tuple[list[tuple[str, int]], list[tuple[str, int]]]]:
    """What was to be put and removed since the last look."""
    changes = [action for action in made.done if isinstance(action, ChangeDestinations)]
    made.done.clear()
    return [([d.key for d in change.put], [d.key for d in change.remove]) for change in changes]


def test_a_refused_removal_is_asked_for_again_with_the_next_failure_and_said_once() -> None:
    made = host(check="delay_loop 3")
    left = made.kernel[VS][ONE]
    made.run(1.1, only_down(ONE[0]))
    assert asked(made) == [([], [ONE])]
    logged: list[str] = []
    for _ in range(3):
        made.kernel[VS][ONE] = left
        made.feed(DestinationRefused(VS, *ONE, "busy"))
        logged += made.logged()
        assert made.engine.report().virtual_servers[0].real_servers[0].refused == "busy"
        made.run(3, only_down(ONE[0]))
        assert asked(made) == [([], [ONE])]
    assert logged == [f"IPVS does not remove [192.0.2.11]:tcp:80 of VS {VS}: busy"]
    made.run(7, only_down(ONE[0]))
    assert asked(made) == [], "it was not refused any more"


def test_a_refused_sorry_server_is_shown_and_asked_for_again_every_ten_seconds() -> None:
    made = host(vs="sorry_server 192.0.2.99 80\n delay_loop 3600")
    made.run(1.1, only_down(ONE[0], TWO[0]))
    assert asked(made)[-1] == ([SORRY], [TWO])
    logged: list[str] = []
    for _ in range(3):
        made.feed(DestinationRefused(VS, *SORRY, "EINVAL"))
        logged += made.logged()
        assert made.engine.report().virtual_servers[0].sorry_refused == "EINVAL"
        made.run(9, ALL_UP)
        assert asked(made) == []
        made.run(1.1, ALL_UP)
        assert asked(made) == [([SORRY], [])]
    assert logged == [f"IPVS does not take [192.0.2.99]:tcp:80 of VS {VS}: EINVAL"]
    assert made.engine.report().virtual_servers[0].sorry_refused == ""
    made.run(60, ALL_UP)
    assert asked(made) == [], "it was not refused any more"


def test_a_sorry_server_that_does_not_leave_is_removed_again() -> None:
    made = host(vs="sorry_server 192.0.2.99 80\n delay_loop 600")
    made.run(1.1, only_down(ONE[0], TWO[0]))
    left = made.kernel[VS][SORRY]
    made.run(600, ALL_UP)
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.kernel[VS][SORRY] = left
    asked(made)
    made.feed(DestinationRefused(VS, *SORRY, "busy", True))
    assert made.logged() == [], "it was told otherwise"
    made.run(10, ALL_UP)
    assert asked(made) == [([], [SORRY])]


def test_what_another_change_is_refused_for_is_said_again() -> None:
    made = host(check="delay_loop 3")
    said = []
    for refused in (only_down(ONE[0]), ALL_UP, only_down(ONE[0])):
        made.run(3, refused)
        asked(made)
        made.feed(DestinationRefused(VS, *ONE, "busy"))
        said += [line.partition(" [")[0] for line in made.logged() if line.startswith("IPVS")]
        asked(made)
    assert said == ["IPVS does not remove", "IPVS does not take", "IPVS does not remove"]


def test_a_real_server_that_is_the_sorry_server_is_not_removed_from_under_it() -> None:
    made = host(vs="quorum 2\n sorry_server 192.0.2.12 80")
    made.run(2, only_down(ONE[0]))
    made.feed(DestinationRefused(VS, *TWO, "busy"))
    report = made.engine.report().virtual_servers[0]
    assert (report.sorry_refused, report.real_servers[1].refused) == ("busy", "")
    made.run(20, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}


def test_a_check_that_could_not_be_run_changes_nothing() -> None:
    made = host()
    made.advance(made.now_us + 2 * SECOND)
    for number in list(made.running):
        del made.running[number]
        made.feed(CheckDone(number, Verdict.NOT_RUN, "no local port is free"))
    assert made.table(VS) == {ONE: 1, TWO: 1}
    assert made.engine.deadline_us == made.now_us + 6 * SECOND


def test_a_thousand_checks_never_start_at_once() -> None:
    servers = "\n".join(
        f"real_server 192.0.{n // 250}.{n % 250 + 1} 80 {{\n TCP_CHECK {{\n warmup 0\n }}\n }}"
        for n in range(1000)
    )
    text = (
        "virtual_server 10.0.0.1 80 {\n lvs_sched rr\n lvs_method DR\n protocol TCP\n delay_loop 6\n"
        f"{servers}\n}}"
    )
    made = CheckHost(read(text).config.check)
    made.start()
    groups = []
    while len(made.running) < 1000:
        made.now_us = made.engine.deadline_us or 0
        actions = made.feed(TimeReached())
        groups.append((made.now_us, sum(isinstance(action, StartCheck) for action in actions)))
    assert max(count for _, count in groups) <= 64
    assert groups[-1][0] - groups[0][0] >= 5_000 * (1000 // 64)


def test_more_checks_than_can_be_done_are_done_late_and_it_is_said_once() -> None:
    servers = "\n".join(
        f"real_server 192.0.{n // 250}.{n % 250 + 1} 80 {{\n TCP_CHECK {{\n warmup 0\n }}\n }}"
        for n in range(600)
    )
    head = "virtual_server 10.0.0.1 80 {\n lvs_sched rr\n lvs_method DR\n protocol TCP\n delay_loop 1\n"
    made = CheckHost(read(f"{head}{servers}\n}}").config.check)
    made.start()
    ran: Counter[int] = Counter()
    until_us = made.now_us + 20 * SECOND
    while made.now_us < until_us:
        made.now_us = max(made.now_us, made.engine.deadline_us or 0)
        made.feed(TimeReached())
        for number in list(made.running):
            made.now_us += 5_000
            ran[number] += 1
            made.answer(number, True)
    # 200 a second, where 600 are asked for: everybody has a turn every three seconds.
    assert len(ran) == 600 and min(ran.values()) >= 5 and max(ran.values()) <= min(ran.values()) + 1
    assert [line for line in made.logged() if "checks start" in line] == [
        "checks start 1.3 s late: there are more than a processor carries, or this machine stood still"
    ]


def test_warm_up_spreads_starts_evenly_and_the_same_each_time() -> None:
    servers = "\n".join(
        f"real_server 192.0.{n // 250}.{n % 250 + 1} 80 {{\n TCP_CHECK {{\n }}\n }}" for n in range(600)
    )
    text = (
        "virtual_server 10.0.0.1 80 {\n lvs_sched rr\n lvs_method DR\n protocol TCP\n delay_loop 60\n"
        f"{servers}\n}}"
    )

    def starts() -> list[int]:
        made = CheckHost(read(text).config.check)
        made.start()
        begun, at = made.now_us, []
        while len(made.running) < 600:
            made.now_us = made.engine.deadline_us or 0
            at += [made.now_us - begun] * sum(isinstance(a, StartCheck) for a in made.feed(TimeReached()))
        return at

    first = starts()
    assert first == starts()
    assert min(first) >= SECOND - 5_000 and max(first) < 61 * SECOND
    per_ten_seconds = [sum(low <= each / SECOND - 1 < low + 10 for each in first) for low in range(0, 60, 10)]
    assert all(60 <= count <= 140 for count in per_ten_seconds), per_ten_seconds


# Weights ----------------------------------------------------------------------------------------------------

WEIGHTS = """
track_file load {
    file /run/load
    weight -2
}
virtual_server 10.0.0.1 80 {
    lvs_sched wrr
    lvs_method DR
    protocol TCP
    delay_loop 6
    real_server 192.0.2.11 80 {
        weight 10
        MISC_CHECK {
            misc_path /bin/chk
            misc_dynamic
            warmup 0
        }
        FILE_CHECK {
            track_file load
        }
    }
    real_server 192.0.2.12 80 {
        weight 5
        FILE_CHECK {
            track_file load
            weight 0
        }
    }
}
"""


def weighted(**files: int) -> CheckHost:
    made = CheckHost(read(WEIGHTS).config.check, files=dict(files))
    made.start()
    return made


def test_a_script_with_misc_dynamic_sets_the_weight() -> None:
    made = weighted()
    assert made.table(VS) == {ONE: 10, TWO: 5}
    made.advance(made.now_us + 2 * SECOND)
    (number,) = made.running
    made.answer(number, True, weight=42)
    assert made.table(VS) == {ONE: 42, TWO: 5}
    assert "Changing weight from 10 to 42 for active service [192.0.2.11]:tcp:80 of VS [10.0.0.1]:tcp:80" in (
        made.logged()
    )


def answered(made: CheckHost, ok: bool, weight: int | None = None) -> dict[tuple[str, int], int]:
    """The table after the script's next end."""
    made.advance(made.now_us + 7 * SECOND)
    made.answer(next(iter(made.running)), ok, weight=weight)
    return made.table(VS)


def test_a_script_that_asks_for_no_weight_gives_the_configured_one_back() -> None:
    made = weighted()
    assert answered(made, True, 0)[ONE] == 0, "drained"
    assert answered(made, True)[ONE] == 10
    assert made.logged()[-1].startswith("Changing weight from 0 to 10 for active service")
    assert not [key for key in made.journal if ONE[0] in key], "nothing is left to remember"


def test_a_server_that_a_script_took_down_comes_back_with_the_configured_weight() -> None:
    made = weighted()
    assert answered(made, True, 42) == {ONE: 42, TWO: 5}
    before = len(made.logged())
    while ONE in answered(made, False):
        pass
    assert not [line for line in made.logged()[before:] if "Changing weight" in line]
    made = made.reborn()
    made.start()
    assert answered(made, True) == {ONE: 10, TWO: 5}
    assert answered(made, True, 42) == {ONE: 42, TWO: 5}, "the same status as before the failure"


def test_a_file_changes_weights_and_takes_servers_down() -> None:
    made = weighted()
    made.feed(FileChanged("load", 3))
    assert made.table(VS) == {ONE: 4}, "10 - 2 * 3; and with weight 0 anything but 0 is down"
    made.feed(FileChanged("load", 100))
    assert made.table(VS) == {ONE: 0}, "up, but without weight"
    made.feed(FileChanged("load", 1 << 31))
    assert made.table(VS) == {}, "so low that it is a failure"
    made.feed(FileChanged("load", 0))
    assert made.table(VS) == {ONE: 10, TWO: 5}


def test_what_a_file_forbids_gains_no_quorum_on_its_way_out() -> None:
    text = WEIGHTS.replace("delay_loop", "quorum 6\nsorry_server 192.0.2.99 80\ndelay_loop")
    assert "quorum" in text
    made = CheckHost(read(text).config.check)
    made.start()
    made.feed(FileChanged("load", 4))
    assert made.table(VS) == {SORRY: 1}
    made.done.clear()
    made.feed(FileChanged("load", 1 << 31))
    assert made.table(VS) == {SORRY: 1}
    assert not [action for action in made.done if isinstance(action, ChangeDestinations)]


def test_what_a_file_says_at_start_holds_from_the_start() -> None:
    made = weighted(load=1)
    assert made.table(VS) == {ONE: 8}


BFD_CHECK = """
            BFD_CHECK {
                name b
            }
"""


def with_session(one: str = BFD_CHECK, vs: str = "") -> CheckConfiguration:
    session = "bfd_instance b {\n neighbor_ip 192.0.2.11\n}"
    return configuration(one=one, vs=vs, above=session)


def test_a_bfd_session_takes_a_server_down_and_up() -> None:
    made = CheckHost(with_session())
    made.start()
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.feed(SessionChanged("b", False))
    assert made.table(VS) == {TWO: 1}
    made.feed(SessionChanged("b", True))
    assert made.table(VS) == {ONE: 1, TWO: 1}


def test_a_bfd_check_with_alpha_that_a_reload_adds_leaves_a_working_server_where_it_is() -> None:
    made = CheckHost(with_session("", "alpha"))
    made.start()
    made.run(7, ALL_UP)
    made.reload(with_session(vs="alpha"))
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.feed(SessionChanged("b", False))
    assert made.table(VS) == {TWO: 1}


def test_a_bfd_check_with_alpha_that_a_reload_adds_is_waited_for_by_a_server_that_is_down() -> None:
    made = CheckHost(with_session("", "alpha"))
    made.start()
    made.run(7, only_down(ONE[0]))
    made.reload(with_session(vs="alpha"))
    made.run(7, ALL_UP)
    assert made.table(VS) == {TWO: 1}
    made.feed(SessionChanged("b", True))
    assert made.table(VS) == {ONE: 1, TWO: 1}


def test_what_was_heard_of_a_session_that_nobody_followed_since_is_not_believed() -> None:
    made = CheckHost(with_session())
    made.start()
    made.run(2, ALL_UP)
    made.feed(SessionChanged("b", False))
    made.reload(with_session(""))
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.reload(with_session())
    assert made.table(VS) == {ONE: 1, TWO: 1}, "it has not been told of yet"


def test_what_was_heard_of_a_session_holds_for_another_server_that_follows_it() -> None:
    made = CheckHost(with_session())
    made.start()
    made.feed(SessionChanged("b", False))
    text = with_session()
    server = text.virtual_servers[0]
    one, two = server.real_servers
    moved = msgspec.structs.replace(two, checkers=one.checkers)
    follower = msgspec.structs.replace(server, real_servers=(moved,))
    made.reload(msgspec.structs.replace(text, virtual_servers=(follower,)))
    assert made.table(VS) == {}


# ha_suspend -------------------------------------------------------------------------------------------------


def test_checks_are_suspended_while_the_address_is_elsewhere() -> None:
    made = CheckHost(configuration(vs="ha_suspend"))
    made.feed(AddressesChanged(frozenset({"192.0.2.1"})))
    made.start()
    assert made.run(20, only_down(ONE[0])) == 0
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made.feed(AddressesChanged(frozenset({"192.0.2.1", "10.0.0.1"})))
    made.run(7, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}
    made.feed(AddressesChanged(frozenset()))
    made.run(20, ALL_UP)
    assert made.table(VS) == {TWO: 1}, "suspended is not failed, nor mended"


def test_a_successor_checks_nothing_before_it_knows_which_addresses_are_here() -> None:
    made = CheckHost(configuration(vs="ha_suspend"))
    made.feed(AddressesChanged(frozenset({"192.0.2.1"})))
    made.start()
    next_life = made.reborn()
    next_life.start()
    assert next_life.run(20, only_down(ONE[0])) == 0
    next_life.feed(AddressesChanged(frozenset({"192.0.2.1", "10.0.0.1"})))
    next_life.run(7, only_down(ONE[0]))
    assert next_life.table(VS) == {TWO: 1}


# Reload -----------------------------------------------------------------------------------------------------


def test_a_reload_keeps_what_is_known_of_servers_and_checkers() -> None:
    made = host(check="retry 2")
    made.run(2, only_down(ONE[0]))
    numbers = set(made.checkers)
    due_us = made.engine.deadline_us
    made.done.clear()
    made.reload(configuration(check="retry 2", vs="persistence_timeout 50"))
    assert made.table(VS) == {TWO: 1}
    assert set(made.checkers) == numbers
    assert made.engine.deadline_us == due_us
    assert not made.notified()


def test_a_checker_with_another_schedule_goes_on_one_that_asks_elsewhere_begins_anew() -> None:
    made = host()
    made.run(2, only_down(ONE[0]))
    made.done.clear()
    made.reload(configuration(check="retry 5"))
    assert not [a for a in made.done if isinstance(a, AddChecker | RemoveChecker)]
    assert made.table(VS) == {TWO: 1}
    made.reload(configuration(check="connect_port 81"))
    assert len([a for a in made.done if isinstance(a, AddChecker)]) == 2
    assert len([a for a in made.done if isinstance(a, RemoveChecker)]) == 2


def examined(check: str, vs: str = "delay_loop 10") -> CheckConfiguration:
    """Two servers whose only checker this is."""
    servers = "\n".join(f"real_server {address} 80 {{\n{check}\n}}" for address, _ in (ONE, TWO))
    text = f"""
    virtual_server 10.0.0.1 80 {{
        lvs_sched rr
        lvs_method DR
        protocol TCP
        {vs}
        {servers}
    }}
    """
    loaded = read(text, SECURE)
    assert not loaded.diagnostics, loaded.diagnostics
    return loaded.config.check


MISC = "MISC_CHECK {\n warmup 0\n misc_path /bin/false\n %s\n}"
HTTP = "HTTP_GET {\n warmup 0\n url {\n path /\n %s\n }\n %s\n}"
UDP = "UDP_CHECK {\n warmup 0\n %s\n}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (examined(MISC % ""), examined(MISC % "", "delay_loop 15")),
        (examined(MISC % ""), examined(MISC % "misc_timeout 3")),
        (examined(HTTP % ("", "")), examined(HTTP % ("", "fast_recovery"))),
        (examined(HTTP % ("", "")), examined(HTTP % ("", "http_protocol 1.1"))),
        (examined(HTTP % ("", "")), examined(HTTP % ("", ""), "virtualhost www.example")),
        (examined(HTTP % ("", "")), examined((HTTP % ("", "tls_compliant")).replace("HTTP_", "SSL_"))),
        (examined(UDP % ""), examined(UDP % "payload 0102")),
        (examined(UDP % ""), examined(UDP % "require_reply\n min_reply_length 3")),
    ],
)
def test_how_closely_a_checker_looks_may_change_and_what_it_knows_stays(
    before: CheckConfiguration, after: CheckConfiguration
) -> None:
    made = CheckHost(before)
    made.start()
    settle(made, {1: False, 2: True})
    assert made.table(VS) == {TWO: 1}
    made.advance(made.now_us + 15 * SECOND)
    running = set(made.running)
    assert running
    made.done.clear()
    made.reload(after)
    assert made.table(VS) == {TWO: 1}
    assert set(made.running) == running, "what runs goes on"
    for server, checker in zip(after.virtual_servers[0].real_servers, made.checkers.values(), strict=True):
        assert msgspec.structs.replace(checker, schedule=server.checkers[0].schedule) == server.checkers[0]
    settle(made, {1: True, 2: False})
    assert made.table(VS) == {ONE: 1}, "and is answered, and followed by others"


def settle(made: CheckHost, results: dict[int, bool]) -> None:
    """Two minutes of checks that end like this, by the checker's number."""
    end_us = made.now_us + 120 * SECOND
    while made.now_us < end_us:
        for number in list(made.running):
            made.answer(number, results[number])
        made.advance(end_us)


@pytest.mark.parametrize(
    "after",
    [
        examined(MISC.replace("false", "true") % ""),
        examined(MISC % "misc_dynamic"),
    ],
)
def test_another_script_begins_anew(after: CheckConfiguration) -> None:
    made = CheckHost(examined(MISC % ""))
    made.start()
    settle(made, {1: False, 2: True})
    made.reload(after)
    assert made.table(VS) == {ONE: 1, TWO: 1}


@pytest.mark.parametrize(
    "lines", [("virtualhost mine", ""), ("", "virtualhost mine"), ("status_code 204", "")]
)
def test_another_request_begins_anew(lines: tuple[str, str]) -> None:
    made = CheckHost(examined(HTTP % ("", "")))
    made.start()
    settle(made, {1: False, 2: True})
    made.reload(examined(HTTP % lines))
    assert made.table(VS) == {ONE: 1, TWO: 1}


def test_a_weight_that_a_script_wishes_outlives_another_interval() -> None:
    made = CheckHost(examined(MISC % "misc_dynamic"))
    made.start()
    made.advance(made.now_us + 2 * SECOND)
    for number in list(made.running):
        made.answer(number, True, weight=50)
    assert made.table(VS) == {ONE: 50, TWO: 50}
    made.reload(examined(MISC % "misc_dynamic", "delay_loop 12"))
    assert made.table(VS) == {ONE: 50, TWO: 50}


def test_of_two_that_look_alike_each_goes_on_as_itself() -> None:
    """In another order, with another interval, and with one of them gone."""
    first, second = UDP % "payload 01", UDP % "payload 02"
    made = CheckHost(examined(first + "\n" + second))
    made.start()
    settle(made, {1: True, 2: False, 3: False, 4: True})
    assert made.table(VS) == {}
    made.reload(examined(second + "\n" + first, "delay_loop 7"))
    assert {n: c.payload for n, c in made.checkers.items() if isinstance(c, UdpCheck)} == {
        1: b"\x01",
        2: b"\x02",
        3: b"\x01",
        4: b"\x02",
    }
    made.reload(examined(second, "delay_loop 8"))
    assert made.table(VS) == {TWO: 1}


def test_a_shorter_interval_holds_from_the_reload_on() -> None:
    made = host(check="delay_loop 3600")
    made.run(2, ALL_UP)
    made.reload(configuration(check="delay_loop 5"))
    made.run(5.1, only_down(ONE[0]))
    assert made.table(VS) == {TWO: 1}


def test_a_server_whose_failed_checker_was_removed_comes_up() -> None:
    made = host()
    made.run(2, only_down(ONE[0]))
    made.reload(configuration(check="connect_port 81"))
    assert made.table(VS) == {ONE: 1, TWO: 1}


def test_a_server_that_is_gone_leaves_and_is_told_of() -> None:
    made = host(one=NOTIFY)
    other = configuration(one=NOTIFY)
    server = other.virtual_servers[0]
    shorter = msgspec.structs.replace(server, real_servers=server.real_servers[1:])
    made.done.clear()
    made.reload(msgspec.structs.replace(other, virtual_servers=(shorter,)))
    assert made.table(VS) == {TWO: 1}
    assert made.notified() == ["/bin/r down"]
    assert len(made.checkers) == 1


def test_a_new_server_with_alpha_starts_down_others_start_up() -> None:
    full = configuration()
    server = full.virtual_servers[0]
    shorter = msgspec.structs.replace(server, real_servers=server.real_servers[:1])
    made = CheckHost(msgspec.structs.replace(full, virtual_servers=(shorter,)))
    made.start()
    made.reload(full)
    assert made.table(VS) == {ONE: 1, TWO: 1}
    made = CheckHost(msgspec.structs.replace(full, virtual_servers=(shorter,)))
    made.start()
    made.reload(configuration(vs="alpha"))
    assert made.table(VS) == {ONE: 1}


def test_a_reload_asks_the_same_of_the_kernel_for_a_pool_that_nothing_happened_to() -> None:
    made = host()

    def asked() -> ReplaceServices:
        (found,) = [a for a in made.reload(configuration()) if isinstance(a, ReplaceServices)]
        return found

    before = asked()
    assert asked().pools[0] is before.pools[0]
    made.run(7, only_down(ONE[0]))
    assert [destination.key for destination in asked().pools[0].destinations] == [TWO]


def test_a_reload_that_removes_the_sorry_server_puts_the_living_back() -> None:
    made = host(vs="quorum 2\n sorry_server 192.0.2.99 80")
    made.run(2, only_down(ONE[0]))
    assert made.table(VS) == {SORRY: 1}
    made.reload(configuration(vs="quorum 2"))
    assert made.table(VS) == {TWO: 1}


def test_a_service_that_is_gone_goes_and_one_that_is_new_comes() -> None:
    made = host()
    text = """
    virtual_server 10.0.0.2 443 {
        lvs_sched rr
        lvs_method DR
        protocol TCP
        real_server 192.0.2.11 443 {
            TCP_CHECK {
            }
        }
    }
    """
    made.reload(read(text).config.check)
    assert set(made.kernel) == {"[10.0.0.2]:tcp:443"}
    assert made.journal.keys() == {"started"}


def test_a_check_that_ran_while_its_checker_was_removed_is_not_missed() -> None:
    made = host()
    made.advance(made.now_us + 2 * SECOND)
    running = list(made.running)
    made.reload(configuration(check="connect_port 81"))
    for number in running:
        made.feed(CheckDone(number, Verdict.FAILURE, "refused"))
    assert made.table(VS) == {ONE: 1, TWO: 1}


# Restart ----------------------------------------------------------------------------------------------------


def test_after_a_crash_a_dead_server_stays_dead_and_no_one_is_told_again() -> None:
    made = host(vs=SCRIPTS, one=NOTIFY, check="retry 2")
    made.run(2, only_down(ONE[0]))
    next_life = made.reborn()
    actions = next_life.start()
    assert next_life.table(VS) == {TWO: 1}
    replaced = [action for action in actions if isinstance(action, ReplaceServices)]
    assert [[d.key for d in pool.destinations] for pool in replaced[0].pools] == [[TWO]]
    assert not replaced[0].first
    assert not next_life.notified()
    next_life.run(7, ALL_UP)
    assert next_life.table(VS) == {ONE: 1, TWO: 1}


def test_after_a_crash_with_alpha_a_live_server_stays_in() -> None:
    made = host(vs="alpha", check="retry 2")
    made.run(2, only_down(ONE[0]))
    next_life = made.reborn()
    next_life.start()
    assert next_life.table(VS) == {TWO: 1}


def test_after_a_crash_retries_go_on_where_they_were() -> None:
    made = host(check="retry 2\n delay_before_retry 3")
    made.run(7.5, ALL_UP)
    made.run(6, only_down(ONE[0]))
    tries = made.engine.report().virtual_servers[0].real_servers[0].checkers[0].retries
    assert tries >= 1
    next_life = made.reborn()
    next_life.start()
    assert next_life.engine.report().virtual_servers[0].real_servers[0].checkers[0].retries == tries
    next_life.run(4, only_down(ONE[0]))
    assert next_life.table(VS) == {TWO: 1}, "the third failure, not the first of three"


def test_after_a_crash_the_sorry_server_goes_on_serving() -> None:
    made = host(vs="quorum 2\n sorry_server 192.0.2.99 80\n" + SCRIPTS)
    made.run(2, only_down(ONE[0]))
    next_life = made.reborn()
    next_life.start()
    assert next_life.table(VS) == {SORRY: 1}
    assert not next_life.notified()
    next_life.run(7, ALL_UP)
    assert next_life.table(VS) == {ONE: 1, TWO: 1}


def test_a_notification_that_did_not_end_is_given_again() -> None:
    made = host(one=NOTIFY)
    made.answer_scripts = False
    made.run(2, only_down(ONE[0]))
    assert made.notified() == ["/bin/r down"]
    next_life = made.reborn()
    next_life.start()
    assert next_life.notified() == ["/bin/r down"]
    last_life = next_life.reborn()
    last_life.start()
    assert not last_life.notified(), "it ended in the life before"


@pytest.mark.parametrize("extra", ["", "weight 2"])
def test_servers_of_a_group_are_named_after_its_new_protocol(extra: str) -> None:
    text = """
    virtual_server_group G {
        10.0.0.1 53
    }
    virtual_server group G {
        lvs_sched rr
        lvs_method DR
        protocol TCP
        real_server 192.0.2.11 53 {
        }
    }
    """
    made = CheckHost(read(text).config.check)
    made.start()
    assert made.alive() == {"[192.0.2.11]:tcp:53": True}
    made.reload(read(text.replace("TCP", "UDP").replace("11 53 {", "11 53 {\n" + extra)).config.check)
    assert made.alive() == {"[192.0.2.11]:udp:53": True}


def test_dynamic_weights_survive_a_crash() -> None:
    made = weighted()
    made.advance(made.now_us + 2 * SECOND)
    made.answer(next(iter(made.running)), True, weight=42)
    next_life = made.reborn()
    next_life.start()
    assert next_life.table(VS) == {ONE: 42, TWO: 5}


# The end ----------------------------------------------------------------------------------------------------


def test_at_the_end_everything_goes_and_nobody_hears_of_it() -> None:
    made = host(one=NOTIFY, vs=SCRIPTS)
    made.done.clear()
    made.feed(StopRequested())
    assert made.stopped and not made.kernel and not made.journal
    assert not made.notified()


def test_with_omega_they_hear_of_it() -> None:
    made = host(one=NOTIFY, vs=SCRIPTS + "\n omega", globals="lvs_notify_fifo /run/fifo")
    made.done.clear()
    made.feed(StopRequested())
    assert made.stopped and not made.kernel
    assert made.notified() == ["/bin/r down", "/bin/q down"]
    assert [a.data for a in made.done if isinstance(a, WriteFifo)][-1] == b"VS [10.0.0.1]:tcp:80 DOWN\n"


def test_the_table_is_left_alone_when_the_command_line_says_so() -> None:
    made = CheckHost(configuration(), EngineSettings(keep_ipvs_at_stop=True))
    made.start()
    made.feed(StopRequested())
    assert made.stopped and made.table(VS) == {ONE: 1, TWO: 1}


def test_a_kernel_that_does_not_answer_does_not_keep_us() -> None:
    made = host()
    actions = made.engine.handle(StopRequested(), made.now_us)
    assert any(isinstance(action, WithdrawServices) for action in actions)
    made.now_us = made.engine.deadline_us or 0
    made.feed(TimeReached())
    assert made.stopped
    assert not made.engine.handle(ServicesDone(99), made.now_us)


@pytest.mark.parametrize("seconds", [0.5, 3, 9])
def test_nothing_is_checked_while_stopping(seconds: float) -> None:
    made = host()
    made.run(seconds, ALL_UP)
    made.feed(StopRequested())
    made.done.clear()
    made.run(20, ALL_UP)
    assert not [action for action in made.done if isinstance(action, StartCheck)]
