"""The rules of CONTRIBUTING.md that a program can check, as tests."""

import ast
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("kad", "kad_vrrp", "kad_check", "kad_bfd")
TABLES = {"kad/config/grammar"}
POLLING = ROOT / "tests/support/namespaces.py"  # the one place that pauses between two looks
LONGEST_FUNCTION = 70
LONGEST_FILE = 500


def tracked(*suffixes: str) -> list[pathlib.Path]:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    found = [ROOT / name for name in names if name.endswith(suffixes)]
    return [path for path in found if path.exists()] or sorted(
        path for suffix in suffixes for path in ROOT.glob(f"[a-z]*/**/*{suffix}")
    )


def sources() -> Iterator[pathlib.Path]:
    for path in tracked(".py"):
        if path.relative_to(ROOT).parts[0] in PACKAGES:
            yield path


def functions(path: pathlib.Path) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def test_there_is_something_to_check() -> None:
    assert len(list(sources())) > 20


def test_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{line} {name} ({length} lines)"
        for path in sources()
        for name, line, length in functions(path)
        if length > LONGEST_FUNCTION
    ]
    assert not long, long


def test_no_file_is_too_long() -> None:
    long = [
        str(path.relative_to(ROOT))
        for path in sources()
        if str(path.parent.relative_to(ROOT)) not in TABLES and path.read_text().count("\n") > LONGEST_FILE
    ]
    assert not long, long


def test_functions_are_short_on_the_whole() -> None:
    lengths = sorted(length for path in sources() for _, _, length in functions(path))
    assert lengths[len(lengths) // 2] <= 12


# Spelled in pieces so that this file does not find itself.
BANNED = {
    "a fixed sleep": re.compile(r"\btime\." + r"sleep\("),
    "a fixed sleep in disguise": re.compile(
        r"(wait_until|poll)\(lambda: " + r"False|remains\(lambda: " + r"True"
    ),
    "a swallowed exception": re.compile(r"except (Base)?Exception:\s*" + r"pass"),
    "work left undone": re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b"),
}


@pytest.mark.parametrize("what", BANNED)
def test_nothing_banned_is_written(what: str) -> None:
    pattern = BANNED[what]
    hits = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(".py", ".md", ".toml", ".conf")
        if path != POLLING
        for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1)
        if pattern.search(line)
    ]
    assert not hits, hits


def test_only_the_clock_reads_the_clock() -> None:
    importers = [
        str(path.relative_to(ROOT))
        for path in sources()
        if re.search(r"^\s*(import time\b|from time import)", path.read_text(), re.MULTILINE)
    ]
    assert importers in ([], ["kad/runtime/clock.py"]), importers


def test_vague_module_names_are_not_used() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "misc"}
    assert not [path for path in sources() if path.stem in vague]
