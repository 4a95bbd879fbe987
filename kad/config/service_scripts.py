"""The scripts of virtual servers: looked up, and judged as to who could have changed them."""

from __future__ import annotations

from kad.config.model.script import ScriptCommand
from kad.config.schema import Frame, Reading
from kad.config.scripts import Vetting
from kad.errors import ExitStatus

NOTIFY_FIELDS = ("quorum_up", "quorum_down", "notify_up", "notify_down")


class ServiceScripts:
    """Replaces the commands of frames by what will really be executed, or removes them."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.vetting = Vetting(reading)

    def vet(self, service: Frame, servers: list[Frame]) -> None:
        """The notify scripts of a service and its servers, and the checkers that are scripts."""
        for frame in (service, *servers):
            for field in NOTIFY_FIELDS:
                if field in frame.fields:
                    self._replace(frame, field, field)
        for server in servers:
            checkers = server.fields.get("checkers", [])
            server.fields["checkers"] = [each for each in checkers if self._may_check(each)]

    def finish(self) -> None:
        """The complaint about scripts without enable_script_security."""
        for name in ("notify_fifo_script", "lvs_notify_fifo_script"):
            command = self.reading.globals.get(name)
            if isinstance(command, ScriptCommand):
                self.vetting.judge(command, None, self.reading.global_places.get(name))
        self.vetting.complain("check scripts")

    def _may_check(self, checker: Frame) -> bool:
        return "script" not in checker.fields or self._replace(checker, "script", "argv")

    def _replace(self, frame: Frame, field: str, place: str) -> bool:
        """False: it cannot run, and is removed; keepalived only logs that."""
        command = frame.fields[field]
        verdict = self.vetting.judge(command, frame, frame.place(place))
        if verdict.command is not None:
            frame.fields[field] = verdict.command
            return True
        self.reading.error(
            "script-unusable",
            f"{command.argv[0]} is not run: {verdict.problem}",
            frame,
            frame.place(place),
            1,
            status=ExitStatus.OK,
            machine=True,
        )
        del frame.fields[field]
        return False
