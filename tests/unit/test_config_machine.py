"""Scripts on a real file system: found, reachable, runnable, and who could have changed them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kad.config import machine
from kad.config.machine import FoundScript, LocalMachine
from kad.config.model.script import ScriptCommand
from kad.filesystem import filesystem_of, is_unfit

NOBODY = 65534
MACHINE = LocalMachine()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of other users are needed: run as root")


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Makes a script below a directory that anybody may search."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/tmp"):
            directory.chmod(0o755)

    def make(name: str = "run.sh", text: str = "#!/bin/sh\n", mode: int = 0o755) -> str:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return make


def look(path: str, uid: int = 0, gid: int = 0, *, keep_links: bool = False) -> FoundScript:
    return MACHINE.script(ScriptCommand((path, "argument"), "", uid, gid), keep_links=keep_links)


def test_a_script_is_found_with_its_arguments(script: Callable[..., str]) -> None:
    path = script()
    found = look(path, NOBODY, NOBODY)
    assert found.command is not None and found.executable and not found.insecure
    assert (found.command.argv, found.command.executable) == ((path, "argument"), path)
    assert not found.command.through_shell


def test_a_link_is_resolved_unless_links_are_kept(script: Callable[..., str], tmp_path: Path) -> None:
    path = script()
    link = tmp_path / "link"
    link.symlink_to(path)
    resolved, kept = look(str(link)), look(str(link), keep_links=True)
    assert resolved.command is not None and kept.command is not None
    assert (resolved.command.argv[0], resolved.command.executable) == (str(link), path)
    assert kept.command.executable == str(link)


def test_what_is_missing_or_not_executable_is_told(script: Callable[..., str], tmp_path: Path) -> None:
    assert look(str(tmp_path / "nothing")).command is None
    assert look("no-such-command-anywhere").command is None
    assert not look(script(mode=0o644)).executable
    assert not look(str(tmp_path)).executable


def test_a_plain_name_is_searched_in_path() -> None:
    found = look("sh")
    assert found.command is not None
    assert found.command.argv[0].endswith("/sh")


def test_a_text_without_interpreter_needs_a_shell(script: Callable[..., str]) -> None:
    found = look(script(text="echo hello\n"))
    assert found.command is not None and found.command.through_shell


def test_a_script_on_a_filesystem_that_may_hang_needs_a_shell(
    script: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold whoever starts it: the shell hangs alone. So would an interpreter that lies there."""
    path = script()
    remote = tmp_path / "remote"
    remote.mkdir()
    there = remote / "script"
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    by_interpreter = script("interpreted", text=f"#! {there} -x\nwords\n")
    link = tmp_path / "link"
    link.symlink_to(there)
    for kind, needs_shell in (("nfs4", True), ("fuse.sshfs", True), ("ext4", False)):
        monkeypatch.setattr(machine, "mounts", lambda kind=kind: [("/", "ext4"), (str(remote), kind)])
        for each in (str(there), by_interpreter, str(link)):
            for keep_links in (False, True):
                found = LocalMachine().script(ScriptCommand((each, "a")), keep_links=keep_links)
                assert found.command is not None and found.command.through_shell is needs_shell, (kind, each)
        found = LocalMachine().script(ScriptCommand((path, "a")), keep_links=False)
        assert found.command is not None and not found.command.through_shell


def test_what_a_path_lies_on_is_told_by_the_deepest_and_latest_mount() -> None:
    among = [("/", "ext4"), ("/a", "nfs"), ("/a/b", "tmpfs"), ("/a/b", "autofs"), ("/a/b", "cifs")]
    paths = ("/", "/ab", "/a", "/a/c", "/a/b", "/a/b/c/d", "/a/../x", "/a/bc")
    found = [filesystem_of(path, among) for path in paths]
    assert found == ["ext4", "ext4", "nfs", "nfs", "cifs", "cifs", "ext4", "nfs"]
    assert filesystem_of("/proc/self/status") == "proc" and is_unfit("proc")


@needs_root
def test_a_user_needs_permission_to_run_and_to_reach_it(script: Callable[..., str], tmp_path: Path) -> None:
    path = script(mode=0o700)
    assert look(path).executable
    assert not look(path, NOBODY, NOBODY).executable
    os.chmod(path, 0o755)
    tmp_path.chmod(0o700)
    assert look(path, NOBODY, NOBODY).command is None


@needs_root
@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: os.chmod(path, 0o757), "everybody"),
        (lambda path: (os.chown(path, 0, 1000), os.chmod(path, 0o775)), "group"),
        (lambda path: os.chown(path, 1000, 0), "root"),
        (lambda path: os.chmod(os.path.dirname(path), 0o777), "everybody"),
    ],
)
def test_what_others_can_change_is_not_run_as_root(
    script: Callable[..., str], prepare: Callable[[str], object], reason: str
) -> None:
    path = script()
    assert not look(path).insecure
    prepare(path)
    assert reason in look(path).insecure
    assert not look(path, NOBODY, NOBODY).insecure


def test_interfaces_users_and_groups() -> None:
    assert MACHINE.has_interface("lo")
    assert not MACHINE.has_interface("no-such-if")
    assert not MACHINE.has_interface("lo:1")
    assert not MACHINE.has_interface("much-too-long-for-an-interface\0")
    root = MACHINE.user_named("root")
    assert root is not None and (root.uid, root.gid) == (0, 0)
    assert MACHINE.user_named("no-such-user-here") is None
    assert MACHINE.group_named("root") == 0
    assert MACHINE.group_named("no-such-group-here") is None
    assert 0 in MACHINE.groups_of(root)


def test_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret\n")
    path.chmod(0o600)
    assert MACHINE.secret(str(path)) == ("secret", "")
    path.chmod(0o644)
    content, complaint = MACHINE.secret(str(path))
    assert content == "secret" and "open to" in complaint
    path.write_bytes(b"x" * 1000)
    assert MACHINE.secret(str(path))[0] is None
    assert MACHINE.secret(str(tmp_path / "missing"))[0] is None


def test_users_and_groups_may_be_numbers() -> None:
    root = MACHINE.user_named("0")
    assert root is not None and (root.name, root.uid) == ("root", 0)
    assert MACHINE.group_named("0") == 0
    assert MACHINE.user_named("4000000000") is None
    assert MACHINE.group_named("²") is None
