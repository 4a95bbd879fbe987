"""Scripts that run as somebody else; needs root."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from kad.config.model.script import ScriptCommand
from kad.notify.runner import ScriptRunner

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user"),
]

OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33: no program can set them, and make (by posix_spawn) may have left them ignored."""
LOOK = "cd /; { id -u; id -g; id -G; grep -E 'Sig(Blk|Ign)' /proc/self/status; ls -l /proc/$$/fd; } > "


def look_as(uid: int, gid: int, groups: tuple[int, ...], out: Path) -> list[str]:
    command = ScriptCommand(
        argv=("sh", "-c", f"{LOOK}{out}"), executable="/bin/sh", uid=uid, gid=gid, groups=groups
    )
    ended: list[tuple[int | None, ...]] = []

    async def body() -> None:
        runner = ScriptRunner(
            asyncio.get_running_loop(), lambda _i, _s, statuses: ended.append(statuses), print, os.environ
        )
        runner.submit("V", 1, (command,))
        limit = time.monotonic() + 20
        while not ended:
            assert time.monotonic() < limit
            await asyncio.sleep(0.005)

    asyncio.run(body())
    assert ended == [(0,)]
    return out.read_text().splitlines()


@pytest.fixture
def everyones(tmp_path: Path) -> Path:
    """A place that any user can write to, below directories that any user can pass."""
    place = Path("/tmp", f"kad-notify-{os.getpid()}-{tmp_path.name}")
    place.mkdir()
    place.chmod(0o777)
    return place


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "shown"),
    [
        (65534, 65534, (), "65534"),
        (1, 12, (13, 20), "12 13 20"),
        (0, 12, (), "12"),
        (0, 0, (), None),
    ],
)
def test_user_group_and_supplementary_groups(
    everyones: Path, uid: int, gid: int, groups: tuple[int, ...], shown: str | None
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        seen = look_as(uid, gid, groups, everyones / "out")
    finally:
        signal.signal(signal.SIGHUP, before)
        for file in everyones.iterdir():
            file.unlink()
        everyones.rmdir()
    assert seen[:2] == [str(uid), str(gid)]
    if shown is not None:
        assert seen[2] == shown
    masks = [int(line.split()[1], 16) & ~OF_THE_C_LIBRARY for line in seen if line.startswith("Sig")]
    assert masks == [0, 0], "defaults, even for what this process ignores"
    targets = {line.rpartition(" -> ")[2] for line in seen if " -> " in line}
    assert targets - {f"{everyones}/out"} == {"/dev/null"}
