"""What the parts of one check engine share: settings, news, serial numbers, the list of actions. Pure."""

from __future__ import annotations

from msgspec import Struct

from kad.config.model.check import CheckSettings
from kad_check.core.actions import Action, Log, LogLevel


class EngineSettings(Struct, frozen=True):
    """What the command line says to the engine."""

    keep_ipvs_at_stop: bool = False
    """-I"""


class Context:
    """Owned by the engine; parts write actions through it."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.globals = CheckSettings()
        """global_defs of the generation that runs."""
        self.generation = 0
        self.addresses: frozenset[str] | None = None
        """This machine's; None until it is told."""
        self.files: dict[str, int] = {}
        """The number each followed file holds."""
        self.sessions: dict[str, bool] = {}
        """BFD sessions heard of: up or not."""
        self.actions: list[Action] = []
        self.serial = 0

    def next_serial(self) -> int:
        """Numbers of answers that are waited for, unique within this life."""
        self.serial += 1
        return self.serial

    def emit(self, action: Action) -> None:
        self.actions.append(action)

    def log(self, text: str, level: LogLevel = LogLevel.INFO) -> None:
        self.actions.append(Log(level, text))

    @property
    def has_fifo(self) -> bool:
        return self.globals.notify_fifo is not None or self.globals.lvs_notify_fifo is not None

    @property
    def has_mail(self) -> bool:
        return self.globals.mail.is_wanted
