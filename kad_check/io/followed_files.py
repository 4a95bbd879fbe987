"""What the files of FILE_CHECKs hold, told by the name of the track_file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kad.config.model.track import TrackFile
from kad.track.io.files import FileWatch, initialise
from kad_check.core.events import FileChanged


class FollowedFiles:
    """``feed`` gets each file's number when it is first followed, and at every change."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[FileChanged], None],
        report: Callable[[str], None],
    ) -> None:
        self._feed = feed
        self._report = report
        self._watch = FileWatch(loop, self._changed, report)
        self._files: tuple[TrackFile, ...] = ()
        self._values: dict[str, int] = {}
        """What each path held when it was last told."""
        self._initialised: set[str] = set()

    def follow(self, files: tuple[TrackFile, ...]) -> None:
        """Exactly these from now on."""
        for file in files:
            self._initialise(file)
        known = {(file.name, file.path) for file in self._files}
        paths = {file.path for file in self._files}
        self._files = files
        self._watch.watch([file.path for file in files])
        for file in files:
            if (file.name, file.path) not in known and file.path in paths:
                # The path was followed already, for another file: it is not told again.
                self._feed(FileChanged(file.name, self._values.get(file.path, 0)))

    def close(self) -> None:
        self._watch.close()

    def _initialise(self, file: TrackFile) -> None:
        """Once in this life of the process."""
        if file.initial_value is None or file.name in self._initialised:
            return
        self._initialised.add(file.name)
        problem = initialise(file.path, file.initial_value, overwrite=file.overwrite)
        if problem:
            self._report(problem)

    def _changed(self, path: str, value: int) -> None:
        self._values[path] = value
        for file in self._files:
            if file.path == path:
                self._feed(FileChanged(file.name, value))
