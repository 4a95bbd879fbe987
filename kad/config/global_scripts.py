"""The scripts of global_defs: looked up, and judged as to who could have changed them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from kad.config.model.globals import Globals
from kad.config.model.script import ScriptCommand
from kad.config.schema import Reading
from kad.config.scripts import Vetting
from kad.errors import ExitStatus

READERS = ("notify_fifo_script", "vrrp_notify_fifo_script", "lvs_notify_fifo_script")
"""Whether those are secure is said with the scripts of instances and of servers."""
OF_THE_DAEMON = ("startup_script", "shutdown_script")


def vetted_globals(reading: Reading, settings: Globals) -> Globals:
    """With the commands that will really be executed, and without those that cannot run or must not.

    keepalived only logs the loss of one: the status is not changed.
    """
    vetting = Vetting(reading)
    settings = _vetted(reading, vetting, settings, OF_THE_DAEMON)
    vetting.complain("start and shutdown scripts")
    return _vetted(reading, vetting, settings, READERS)


def _vetted(reading: Reading, vetting: Vetting, settings: Globals, names: Sequence[str]) -> Globals:
    changed: dict[str, ScriptCommand | None] = {}
    for name in names:
        command: ScriptCommand | None = getattr(settings, name)
        if command is None:
            continue
        verdict = vetting.judge(command, None, reading.global_places.get(name))
        changed[name] = verdict.command
        if verdict.command is None:
            reading.error(
                "script-unusable",
                f"'{name}' will not run {command.argv[0]}: {verdict.problem}",
                None,
                reading.global_places.get(name),
                1,
                machine=True,
                status=ExitStatus.OK,
            )
    return replace(settings, **changed)
