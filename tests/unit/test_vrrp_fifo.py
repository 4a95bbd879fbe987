"""Lines for the FIFOs: when the engine asks for them, and that a crash loses none."""

from __future__ import annotations

from typing import Any

from kad.config.model.globals import Fifo
from kad.config.model.vrrp import NotifyScripts, VrrpSettings
from kad_vrrp.core.actions import Notify, PriorityChanged, Remember, WriteFifo
from kad_vrrp.core.events import StopRequested
from kad_vrrp.core.record import decode
from tests.support.vrrp_host import NOTIFY, instance
from tests.support.vrrp_playbook import Playbook

WITH_FIFO = VrrpSettings(vrrp_notify_fifo=Fifo("/run/pipe"))


def book(**fields: Any) -> Playbook:
    fields.setdefault("notify", NotifyScripts())
    made = Playbook(instance(priority=150, **fields))
    made.settings = WITH_FIFO
    return made


def lines(made: Playbook) -> list[bytes]:
    """What was written since the last look."""
    found = [each.line for each in made.actions if isinstance(each, Notify | WriteFifo) and each.line]
    made.actions.clear()
    return found


def test_every_transition_is_a_line_without_scripts() -> None:
    made = book().start()
    made.run_for(4_000_000)
    made.tell(StopRequested())
    assert lines(made) == [
        b'INSTANCE "VI_1" BACKUP 150\n',
        b'INSTANCE "VI_1" MASTER 150\n',
        b'INSTANCE "VI_1" STOP 150\n',
    ]


def test_a_line_is_owed_until_it_is_written() -> None:
    made = book().start()
    kinds = [each for each in made.actions if isinstance(each, Notify | Remember)]
    written = next(n for n, each in enumerate(kinds) if isinstance(each, Notify))
    before, after = kinds[written - 1], kinds[written + 1]
    assert isinstance(before, Remember) and isinstance(after, Remember)
    owed = [decode(each.record) for each in (before, after)]
    assert [len(record.owed) for record in owed if record is not None] == [1, 0]


def test_a_line_and_a_script_go_together() -> None:
    made = book(notify=NOTIFY).start()
    (notify,) = (each for each in made.actions if isinstance(each, Notify))
    assert notify.line == b'INSTANCE "VI_1" BACKUP 150\n'
    assert notify.commands


def test_without_a_pipe_there_are_no_lines() -> None:
    made = Playbook(instance(priority=150, notify=NOTIFY)).start()
    assert lines(made) == []


def test_a_lower_master_is_an_event() -> None:
    made = book().start_as_master()
    made.hear(50)
    assert lines(made) == [b'INSTANCE "VI_1" MASTER_RX_LOWER_PRI 150\n']


def test_a_reload_tells_states_again_when_asked_to() -> None:
    made = book().start_as_master()
    made.tell_configuration()
    assert lines(made) == []
    made.settings = VrrpSettings(vrrp_notify_fifo=Fifo("/run/pipe"), fifo_write_states_on_reload=True)
    made.generation += 1
    made.tell_configuration()
    assert lines(made) == [b'INSTANCE "VI_1" MASTER 150\n']


def test_a_reload_that_changes_the_priority_says_so_when_asked_to() -> None:
    made = book(notify_priority_changes=True).start_as_master()
    made.configs = (instance(priority=120, notify_priority_changes=True),)
    made.tell_configuration()
    changes = [each for each in made.actions if isinstance(each, PriorityChanged)]
    assert [(each.state, each.priority) for each in changes] == [("MASTER", 120)]
