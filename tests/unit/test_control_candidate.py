"""What may run and what may not: the rule of reloads, on real readings."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kad.config.load import Loaded, load
from kad.config.source import TextReader
from kad.control.candidate import (
    BAD_CONFIGURATION,
    FORMER_ERRORS_LIMIT,
    FORMER_LIMIT,
    NO_CONFIGURATION,
    SHOWN_LIMIT,
    Candidate,
    judge,
    remembered_errors,
    wanted_roles,
)
from kad.ipc.messages import Generation, Role
from kad.runtime.process import Options
from tests.support.configuration import InventedMachine

NAME = "keepalived.conf"
GOOD = """
instance one
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    priority 100
    virtual_ipaddress {
        192.0.2.100
    }
}
"""
OPTIONS = Options()


def read(text: str, *, has_interfaces: bool = True) -> Loaded:
    machine = InventedMachine()
    if not has_interfaces:
        machine.has_interface = lambda name: False  # type: ignore[method-assign]
    return load(NAME, reader=TextReader({NAME: text}), machine=machine)


def judged(text: str, running: Generation | None = None, **options: Any) -> Candidate:
    return judge(read(text), OPTIONS, running, **options)


def generation(text: str = GOOD) -> Generation:
    made = judged(text).generation
    assert made is not None
    return made


def test_first_load_makes_generation_one() -> None:
    candidate = judged(GOOD)
    assert candidate.refusal == ""
    made = candidate.generation
    assert made is not None
    assert (made.number, made.roles) == (1, (Role.VRRP,))
    assert made.source_digest == read(GOOD).digest
    assert "instance/VI_1" in made.slices[Role.VRRP]
    assert made.settings is not None


def test_first_load_tolerates_errors_in_the_text_and_remembers_them() -> None:
    made = generation(GOOD + "bogus 3\n")
    assert len(made.accepted_errors) == 1


def test_new_error_refuses_a_reload_and_an_old_one_does_not() -> None:
    bogus = GOOD + "bogus 3\n"
    refused = judged(bogus, generation())
    assert refused.generation is None
    assert refused.refusal.startswith("a new error in the text: keepalived.conf:")
    assert "bogus" in refused.shown
    # The same error in another place, beside a change.
    moved = "\n\n\n" + bogus.replace("priority 100", "priority 150")
    accepted = judged(moved, generation(bogus))
    assert accepted.refusal == ""
    assert accepted.generation is not None
    assert (accepted.generation.number, accepted.shown) == (2, "")


def test_findings_about_the_machine_are_shown_and_refuse_nothing() -> None:
    running = generation()
    accepted = judge(read(GOOD, has_interfaces=False), OPTIONS, running)
    assert accepted.generation is not None
    assert "the interface 'eth0' does not exist" in accepted.shown


def test_every_new_error_is_shown_within_reason() -> None:
    many = GOOD + "".join(f"bogus{number} 3\n" for number in range(SHOWN_LIMIT + 7))
    refused = judged(many, generation())
    assert refused.refusal.startswith(f"{SHOWN_LIMIT + 7} new errors in the text")
    assert refused.shown.count("unknown keyword") == SHOWN_LIMIT
    assert refused.shown.endswith("and 7 more, in the log")


def test_warnings_refuse_nothing() -> None:
    warned = judged(GOOD.replace("priority 100", "auth_type PASS\nauth_pass 123456789"), generation())
    assert warned.refusal == "" or "error" in warned.refusal


def test_force_accepts_errors_and_makes_them_old() -> None:
    forced = judged(GOOD + "bogus 3\n", generation(), force=True)
    assert forced.refusal == ""
    assert forced.generation is not None
    assert judged(GOOD + "bogus 3\n", forced.generation).refusal == ""


@pytest.mark.parametrize("force", [True, False])
def test_what_cannot_run_is_refused_even_by_force(force: bool) -> None:
    text = GOOD.replace("virtual_router_id 51", "virtual_router_id")
    refused = judged(text, generation(), force=force)
    assert refused.generation is None
    assert refused.exit_status == BAD_CONFIGURATION


def test_missing_file_has_a_status_of_its_own() -> None:
    candidate = judge(load("none.conf", reader=TextReader({})), OPTIONS, None)
    assert candidate.generation is None
    assert candidate.exit_status == NO_CONFIGURATION
    assert "none.conf" in candidate.refusal


def test_machine_without_the_interface_refuses_nothing() -> None:
    changed = read(GOOD.replace("priority 100", "priority 150"), has_interfaces=False)
    assert any(finding.machine for finding in changed.diagnostics)
    assert judge(changed, OPTIONS, generation()).refusal == ""


@pytest.mark.parametrize("force", [True, False])
def test_names_that_files_hang_on_cannot_change(force: bool) -> None:
    refused = judged(GOOD.replace("instance one", "instance two"), generation(), force=force)
    assert refused.refusal == "instance cannot change while kad runs: restart it"
    assert refused.generation is None


def test_equal_objects_are_equal_bytes() -> None:
    before = generation()
    after = judged(GOOD.replace("priority 100", "priority 150"), before).generation
    assert after is not None
    old, new = before.slices[Role.VRRP], after.slices[Role.VRRP]
    assert {name for name in old if old[name] != new[name]} == {"instance/VI_1"}


def test_dump_shows_values_and_no_secrets() -> None:
    text = GOOD.replace("priority 100", "priority 150\nauthentication {\nauth_type PASS\nauth_pass secret\n}")
    dumped = judge(read(text), Options(dump_configuration=True), None).dump
    assert "  priority = 150" in dumped
    assert any("auth_pass = ***" in line for line in dumped)
    assert "secret" not in "\n".join(dumped)
    assert judged(text).dump == ()


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        (Options(), (Role.VRRP,)),
        (Options(run_vrrp=False), ()),
        (Options(run_all=True), (Role.CHECK, Role.VRRP, Role.BFD)),
        (Options(run_all=True, run_check=False), (Role.VRRP, Role.BFD)),
    ],
)
def test_roles_wanted(options: Options, roles: tuple[Role, ...]) -> None:
    assert wanted_roles((Role.VRRP,), options) == roles


def committed(*texts: str) -> Generation:
    """The last of a daemon's generations, made of these texts one after the other."""
    running = generation(texts[0])
    for text in texts[1:]:
        made = judged(text, running).generation
        assert made is not None, text
        running = made
    return running


def test_errors_that_ran_once_may_come_back() -> None:
    """A rollback: keepalived takes it, and it ran here."""
    running = committed(GOOD + "bogus 3\n", GOOD)
    assert judged(GOOD + "bogus 3\n", running).refusal == ""
    assert "a new error" in judged(GOOD + "bogus 4\n", running).refusal
    assert "a new error" in judged(GOOD + "bogus 3\nbogus 4\n", running).refusal


def test_what_is_remembered_of_former_errors_is_bounded() -> None:
    running = generation(GOOD + "bogus 0\n")
    for number in range(1, 3 * FORMER_LIMIT):
        made = judged(GOOD + f"bogus {number}\n", running, force=True).generation
        assert made is not None
        running = made
    assert len(running.formerly_accepted) == FORMER_LIMIT + 1
    assert judged(GOOD + "bogus 0\n", running).refusal == "", "the start's"
    assert judged(GOOD + f"bogus {2 * FORMER_LIMIT}\n", running).refusal == ""
    assert judged(GOOD + "bogus 1\n", running).refusal != ""


def test_many_former_errors_are_forgotten_sooner() -> None:
    running = committed(GOOD + "bogus 0\n", GOOD)
    for _ in range(5):
        many = tuple(f"{running.number}-{each}" for each in range(FORMER_ERRORS_LIMIT // 2))
        running = replace(
            running,
            number=running.number + 1,
            accepted_errors=many,
            formerly_accepted=remembered_errors(running),
        )
    last = remembered_errors(running)
    assert sum(map(len, last)) <= FORMER_ERRORS_LIMIT
    assert last[0] == generation(GOOD + "bogus 0\n").accepted_errors and last[-1] == many


def test_the_same_errors_again_are_remembered_once() -> None:
    running = committed(*([GOOD + "bogus 3\n", GOOD] * 5))
    assert len(running.formerly_accepted) == 1


def test_nothing_to_run_is_accepted_with_a_warning_where_something_runs() -> None:
    candidate = judged("", generation(""))
    assert "nothing to run" not in candidate.shown
    running = generation(GOOD.replace("instance one", ""))
    candidate = judged("", running)
    assert candidate.refusal == "" and "nothing to run" in candidate.shown
    assert [each.code for each in candidate.diagnostics] == ["nothing-to-run"]


def test_where_nothing_runs_a_reload_is_judged_as_a_start() -> None:
    text = GOOD.replace("instance one", "")
    running = committed(text, "")
    assert judged(text + "bogus 3\n", running).refusal == ""
    text = text.replace("priority 100", "priority")
    assert judged(text, running).refusal != "", "what cannot run is refused there too"
