"""What the check engine writes to the log: keepalived's lines."""

from __future__ import annotations

from kad_check.core.texts import TIMED_OUT
from tests.support.check_host import SECOND, CheckHost, only_down
from tests.support.configuration import read
from tests.unit.test_check_engine import ONE, TWO, VS, WEIGHTS, answered, configuration, host, weighted

SCRIPT_OF_ONE = "Misc check for [[192.0.2.11]:tcp:80 VS [10.0.0.1]:tcp:80] by [/bin/chk]"


def misc_lines(retry: int, *details: str, words: str = "log_all_failures") -> list[str]:
    """What is logged of a script's ends, after a first one that is well; empty: so is this."""
    script = f'misc_path "/bin/chk --password secret"\n retry {retry}\n delay_before_retry 1\n {words}'
    made = CheckHost(read(WEIGHTS.replace("misc_path /bin/chk", script)).config.check)
    made.start()
    answered(made, True)
    for detail in details:
        made.advance(made.now_us + 7 * SECOND)
        made.answer(next(iter(made.running)), not detail, detail=detail)
    assert not [line for line in made.logged() if "secret" in line]
    found = [line for line in made.logged() if line.startswith(SCRIPT_OF_ONE)]
    return [line.removeprefix(SCRIPT_OF_ONE) for line in found]


def test_scripts_are_told_of_as_by_keepalived() -> None:
    assert misc_lines(0, "exited with status 1", "") == [
        " succeeded.",
        " failed with retry disabled (exited with status 1).",
        " succeeded.",
    ]
    assert misc_lines(0, TIMED_OUT)[1:] == [" timed out with retry disabled."]
    assert misc_lines(1, "x", "due to signal 9")[1:] == [
        " failed, will do 1 retry (x).",
        " failed after 1 retry (due to signal 9).",
    ]
    assert misc_lines(2, "x", TIMED_OUT, TIMED_OUT)[1:] == [
        " failed, will do 2 retries (x).",
        " timed out on retry 1/2.",
        " timed out after 2 retries.",
    ]
    assert misc_lines(1, "x", "x", words="")[1:] == [" failed after 1 retry (x)."]


def test_what_a_reload_changes_in_a_server_is_in_the_log() -> None:
    made = host(vs="quorum 2", two="inhibit_on_failure")
    made.run(2, only_down(ONE[0], TWO[0]))
    made.done.clear()
    made.reload(
        configuration(vs="quorum 2", one="weight 3", two="inhibit_on_failure", check="connect_port 81")
    )
    assert made.alive() == {"[192.0.2.11]:tcp:80": True, "[192.0.2.12]:tcp:80": True}
    assert made.logged() == [
        "Adding service [192.0.2.11]:tcp:80 to VS [10.0.0.1]:tcp:80",
        "Changing weight from 1 to 3 for active service [192.0.2.11]:tcp:80 of VS [10.0.0.1]:tcp:80",
        "Enabling service [192.0.2.12]:tcp:80 of VS [10.0.0.1]:tcp:80",
        "Gained quorum 2+0=2 <= 4 for VS [10.0.0.1]:tcp:80",
    ]


def test_what_a_followed_file_means_after_a_reload_is_in_the_log() -> None:
    made = weighted(load=3)
    made.done.clear()
    changed = WEIGHTS.replace("weight -2", "weight -3").replace("weight 0", "weight 1")
    made.reload(read(changed).config.check)
    assert made.table(VS) == {ONE: 1, TWO: 8}
    assert made.logged() == [
        "Changing weight from 4 to 1 for active service [192.0.2.11]:tcp:80 of VS [10.0.0.1]:tcp:80",
        "Adding service [192.0.2.12]:tcp:80 to VS [10.0.0.1]:tcp:80",
        "Changing weight from 5 to 8 for active service [192.0.2.12]:tcp:80 of VS [10.0.0.1]:tcp:80",
    ]
