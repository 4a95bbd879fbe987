"""Directories that are one under several names: the kernel has one watch for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kad.track.io import files
from kad.track.io.files import FileWatch

S = 10.0


class Watched:
    """Two names of one directory. Links stand for a bind mount: they are not resolved here."""

    def __init__(self, place: Path) -> None:
        (place / "one").mkdir()
        (place / "other").symlink_to("one")
        self.one, self.other = str(place / "one" / "A"), str(place / "other" / "B")
        self.told: dict[str, int] = {}
        self.loop = asyncio.new_event_loop()
        self.watch = FileWatch(self.loop, self.told.__setitem__, lambda _: None)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.002)

        try:
            self.loop.run_until_complete(asyncio.wait_for(wait(), S))
        except TimeoutError:
            pytest.fail(f"{what}, told {self.told}")

    def close(self) -> None:
        self.watch.close()
        self.loop.close()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(files, "places", lambda path: (path,))
    made = Watched(tmp_path)
    yield made
    made.close()


def test_a_change_is_told_to_the_files_of_each_name(watched: Watched) -> None:
    watched.watch.watch([watched.one, watched.other])
    Path(watched.one).write_text("5")
    watched.until(lambda: watched.told[watched.one] == 5, "the first name's file")
    Path(watched.other).write_text("7")
    watched.until(lambda: watched.told[watched.other] == 7, "the other name's file")


def test_the_watch_stays_while_one_name_is_left(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.watch.watch([watched.one, watched.other])
    # Taken away and set again, what happened in between would be missed.
    monkeypatch.setattr(files, "_inotify_rm_watch", lambda *_: pytest.fail("the watch was taken away"))
    watched.watch.watch([watched.one])
    Path(watched.one).write_text("5")
    watched.until(lambda: watched.told[watched.one] == 5, "the file that is left")


def test_a_directory_of_two_names_that_vanishes_and_returns(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RETRY_S", 0.01)
    watched.watch.watch([watched.one, watched.other])
    directory = Path(watched.one).parent
    directory.rmdir()
    directory.mkdir()
    Path(watched.one).write_text("5")
    Path(watched.other).write_text("7")
    both = {watched.one: 5, watched.other: 7}
    watched.until(lambda: watched.told == both, "both are found again")
    Path(watched.one).write_text("6")
    watched.until(lambda: watched.told == both | {watched.one: 6}, "and followed again")
