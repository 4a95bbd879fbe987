"""The family's pid files: taken when a role is first wanted, written at each birth, removed at the end."""

from __future__ import annotations

from kad.errors import in_words
from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.pidfile import PidFile, PidFileInUse, pid_file_path
from kad.runtime.process import Options


class PidFiles:
    """``own`` is the daemon's, which it has had since before it had children."""

    def __init__(self, options: Options, own: PidFile) -> None:
        self._options = options
        self._own = own
        self._files: dict[Role, PidFile] = {}

    def take(self, roles: tuple[Role, ...]) -> None:
        """Lock the files of these roles, all or none. Raises PidFileInUse, OSError."""
        fresh: dict[Role, PidFile] = {}
        try:
            for role in roles:
                if role not in self._files:
                    fresh[role] = PidFile.acquire(pid_file_path(self._options, role))
        except BaseException:
            for file in fresh.values():
                file.remove()
            raise
        self._files |= fresh

    def descriptors(self, role: Role) -> list[int]:
        """What a child of this role keeps open, so that its file stays locked as long as it lives."""
        return [self._files[role].descriptor] if role in self._files else []

    def write(self, role: Role, pid: int) -> None:
        if role in self._files:
            try:
                self._files[role].write(pid)
            except (OSError, PidFileInUse) as error:
                logs.warning(f"pid file of {role}: {in_words(error)}")

    def remove(self, role: Role) -> None:
        if role in self._files:
            self._files.pop(role).remove()

    def remove_own(self) -> None:
        self._own.remove()
