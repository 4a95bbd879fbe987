"""Settings of the kernel that are held for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from kad.runtime.journal import Area, Records
from kad_vrrp.io import sysctls
from kad_vrrp.io.sysctls import Sysctls

ROOM = Area(slots=1, slot_size=256)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctls, "ROOT", tmp_path)
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(b"0\n")
    return tmp_path


def test_what_the_journal_has_no_room_for_is_told_of_and_set(settings: Path) -> None:
    records, said = Records(memoryview(bytearray(ROOM.size)), ROOM), []
    held = Sysctls(records, str, said.append)
    held.hold("one", 1)
    assert (records.load(), said) == ({"one": b"0\n1"}, [])
    held.hold("other", 1)
    assert said == ["no room in the journal: after a crash other would stay as it is set now"]
    assert (settings / "other").read_bytes() == b"1"
    held.release("other")
    assert (settings / "other").read_bytes() == b"0"
