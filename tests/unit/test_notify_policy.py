"""Order and arguments of notifications."""

import pytest

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import NotifyScripts
from kad.notify.policy import NotifyState, group_commands, instance_commands, lower_priority_commands


def script(*argv: str) -> ScriptCommand:
    return ScriptCommand(argv=argv, executable=argv[0], uid=7)


ALL = NotifyScripts(
    master=script("/m"),
    backup=script("/b", "x y"),
    fault=script("/f"),
    stop=script("/s"),
    deleted=script("/d"),
    any_state=script("/n", "first"),
    master_rx_lower_pri=script("/low", "er"),
)


@pytest.mark.parametrize(
    ("state", "own"),
    [
        (NotifyState.MASTER, ("/m",)),
        (NotifyState.BACKUP, ("/b", "x y")),
        (NotifyState.FAULT, ("/f",)),
        (NotifyState.STOP, ("/s",)),
    ],
)
def test_script_of_the_state_comes_first_then_notify_with_appended_words(
    state: NotifyState, own: tuple[str, ...]
) -> None:
    commands = instance_commands(ALL, "VI 1", state, 254)
    assert [command.argv for command in commands] == [
        own,
        ("/n", "first", "INSTANCE", "VI 1", state.value, "254"),
    ]
    assert {command.uid for command in commands} == {7}


def test_a_group_has_priority_zero() -> None:
    commands = group_commands(ALL, "G", NotifyState.BACKUP)
    assert commands[1].argv == ("/n", "first", "GROUP", "G", "BACKUP", "0")


def test_deleted_is_told_as_fault_unless_asked_for() -> None:
    fault = instance_commands(ALL, "V", NotifyState.DELETED, 100)
    assert [c.argv for c in fault] == [("/f",), ("/n", "first", "INSTANCE", "V", "FAULT", "100")]
    deleted = instance_commands(ALL, "V", NotifyState.DELETED, 100, notify_deleted=True)
    assert [c.argv for c in deleted] == [("/d",), ("/n", "first", "INSTANCE", "V", "DELETED", "100")]


def test_lower_priority_script_gets_nothing_appended() -> None:
    assert [c.argv for c in lower_priority_commands(ALL)] == [("/low", "er")]


def test_nothing_configured_is_nothing_to_run() -> None:
    nothing = NotifyScripts()
    assert instance_commands(nothing, "V", NotifyState.MASTER, 1) == ()
    assert group_commands(nothing, "G", NotifyState.MASTER) == ()
    assert lower_priority_commands(nothing) == ()


def test_only_notify_configured() -> None:
    only = NotifyScripts(any_state=script("/n"))
    commands = instance_commands(only, "V", NotifyState.FAULT, 0)
    assert [c.argv for c in commands] == [("/n", "INSTANCE", "V", "FAULT", "0")]
