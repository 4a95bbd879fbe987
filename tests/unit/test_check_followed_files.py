"""Files of FILE_CHECKs over reloads: every name has the number of the file that it names now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.config.model.track import TrackFile
from kad_check.core.events import FileChanged
from kad_check.io.followed_files import FollowedFiles


class Followed:
    """What each name was last told to hold."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.told: dict[str, int] = {}
        self.loop = asyncio.new_event_loop()
        self._files = FollowedFiles(self.loop, self._take, lambda _: None)

    def write(self, **values: int) -> None:
        for name, value in values.items():
            (self.place / name).write_text(f"{value}\n")

    def follow(self, **files: str) -> None:
        """Names, and the file each names."""
        self._files.follow(tuple(TrackFile(name, str(self.place / file)) for name, file in files.items()))

    def close(self) -> None:
        self._files.close()
        self.loop.close()

    def _take(self, event: FileChanged) -> None:
        self.told[event.name] = event.value


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    made = Followed(tmp_path)
    made.write(one=1, two=2)
    yield made
    made.close()


def test_each_name_is_told_its_number(followed: Followed) -> None:
    followed.follow(A="one", B="two", C="two")
    assert followed.told == {"A": 1, "B": 2, "C": 2}


def test_a_new_name_of_a_file_that_is_followed_is_told(followed: Followed) -> None:
    followed.follow(A="one")
    followed.follow(A="one", B="one")
    assert followed.told == {"A": 1, "B": 1}


def test_a_name_that_gets_the_file_of_another_is_told(followed: Followed) -> None:
    followed.follow(A="one", B="two")
    followed.follow(A="two", B="two")
    assert followed.told == {"A": 2, "B": 2}


def test_names_that_change_places_are_told(followed: Followed) -> None:
    followed.follow(A="one", B="two")
    followed.follow(A="two", B="one")
    assert followed.told == {"A": 2, "B": 1}


def test_what_stays_is_not_told_again(followed: Followed) -> None:
    followed.follow(A="one", B="two")
    followed.told.clear()
    followed.follow(A="one", B="two")
    assert not followed.told
