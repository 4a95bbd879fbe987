"""What the supervisor survives when it loads roles and makes processes."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from kad.ipc.messages import Role
from kad.runtime.journal import Journal
from kad.runtime.process import ChildContext, Options
from kad.supervisor.spare import Spare
from kad.supervisor.spawn import Mains, Unloadable

HALF_FILES = {
    "cut": "def main(context:\n",
    "garbled": "x = 1\x00\n",
    "older": "main_of_another_version = print\n",
    "mixed": "from kad.errors import SomethingOfANewerVersion\n",
    "failing": "raise ValueError('of two versions')\n",
}


@pytest.mark.parametrize("kind", HALF_FILES)
def test_a_file_that_is_just_being_replaced_hurts_only_who_needs_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"half_{kind}.py").write_text(HALF_FILES[kind])
    monkeypatch.syspath_prepend(tmp_path)
    mains = Mains({Role.CONTROL: "colorsys:rgb_to_yiq", Role.VRRP: f"half_{kind}:main"})
    while mains.load_one():
        pass
    while mains.complete():
        pass
    assert mains[Role.CONTROL].__module__ == "colorsys"
    with pytest.raises(Unloadable, match=f"half_{kind}"):
        mains[Role.VRRP]


def test_without_a_descriptor_there_is_no_spare_and_that_is_all(tmp_path: Path) -> None:
    context = ChildContext(
        role=Role.VRRP,
        incarnation=1,
        options=Options(),
        run_directory=str(tmp_path),
        journal=Journal.create(),
        generation=None,
        supervisor_pid=os.getpid(),
    )
    spare = Spare()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        spare.make(lambda _: 0, context, [], 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert spare.pid == 0
    assert not spare.is_due(1, 0)
