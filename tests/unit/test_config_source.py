"""Files, patterns and what may be read."""

import os
import time
from pathlib import Path

import pytest

from kad.config.source import (
    MAX_BRACE_ALTERNATIVES,
    Digest,
    DiskReader,
    Found,
    TextReader,
    Unreadable,
    expand_braces,
)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.conf", ["a.conf"]),
        ("{a,b}.conf", ["a.conf", "b.conf"]),
        ("x{a,b{1,2}}y", ["xay", "xb1y", "xb2y"]),
        ("{a,b}{1,2}", ["a1", "a2", "b1", "b2"]),
        ("{a", ["{a"]),
        ("a}", ["a}"]),
        ("{,x}", ["", "x"]),
    ],
)
def test_expand_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_braces_are_bounded() -> None:
    started = time.monotonic()
    assert len(expand_braces("{a,b}" * 200)) <= MAX_BRACE_ALTERNATIVES
    assert len(expand_braces("{" * 500 + "}" * 500)) <= MAX_BRACE_ALTERNATIVES
    assert time.monotonic() - started < 5


def test_find_sorts_and_tells_what_is_missing(tmp_path: Path) -> None:
    for name in ("b.conf", "a.conf", "c.txt", ".hidden.conf"):
        (tmp_path / name).write_text("")
    reader, here = DiskReader(), str(tmp_path)
    assert reader.find("*.conf", here) == Found((f"{here}/a.conf", f"{here}/b.conf"), wildcard=True)
    assert reader.find("{b,z,a}.conf", here) == Found(
        (f"{here}/b.conf", f"{here}/a.conf"), (f"{here}/z.conf",), braces=True
    )
    assert reader.find("*.none", here) == Found(wildcard=True)
    assert reader.find("no/*.conf", here) == Found(missing=(f"{here}/no/*.conf",), wildcard=True)
    assert reader.find(f"{here}/a.conf", "/elsewhere").paths == (f"{here}/a.conf",)
    assert reader.find("none", here).missing == (f"{here}/none",)
    assert reader.find("a\0b", here).paths == ()


def test_a_directory_named_like_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "[x]"
    directory.mkdir()
    (directory / "a.conf").write_text("")
    assert DiskReader().find("*.conf", str(directory)).paths == (f"{directory}/a.conf",)


def test_read_gives_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "k.conf"
    file.write_bytes(b"a\xff\0b")
    assert DiskReader().read(str(file), 100) == b"a\xff\0b"
    assert DiskReader().read(str(file), 2) == b"a\xff\0"


def test_only_plain_files_without_executable_bit_are_read(tmp_path: Path) -> None:
    executable = tmp_path / "x.conf"
    executable.write_text("a")
    executable.chmod(0o654)
    os.mkfifo(tmp_path / "fifo")
    descriptors = len(os.listdir("/proc/self/fd"))
    reasons = {
        name: DiskReader().read(str(tmp_path / name), 100) for name in ("x.conf", "fifo", "", "none", "a/b")
    }
    assert all(isinstance(reason, Unreadable) for reason in reasons.values())
    assert reasons["x.conf"] == Unreadable("is executable, which a configuration file must not be")
    assert reasons["fifo"] == Unreadable("is not a regular file")
    assert reasons[""] == Unreadable("is a directory")
    assert reasons["none"] == Unreadable("does not exist")
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_directory_is_absolute_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert DiskReader().directory(str(tmp_path / "link" / "k.conf")) == str(tmp_path / "real")
    assert DiskReader().directory("k.conf") == os.path.realpath(".")


def test_text_reader() -> None:
    reader = TextReader({"k.conf": "é", "d/e.conf": b"x"})
    assert reader.find("e.conf", "d").paths == ("d/e.conf",)
    assert reader.find("e.conf", "").missing == ("e.conf",)
    assert reader.read("k.conf", 100) == "é".encode()
    assert isinstance(reader.read("none", 100), Unreadable)


def test_digest_depends_on_names_contents_and_order() -> None:
    def digest(*files: tuple[str, bytes]) -> str:
        result = Digest()
        for name, data in files:
            result.add(name, data)
        return result.hexdigest()

    variants = [
        digest(("a", b"x"), ("b", b"y")),
        digest(("b", b"y"), ("a", b"x")),
        digest(("a", b"xb"), ("", b"y")),
        digest(("a", b"x")),
        digest(("ax", b"")),
        digest(),
    ]
    assert len(set(variants)) == len(variants)
    assert digest(("a", b"x")) == digest(("a", b"x"))
