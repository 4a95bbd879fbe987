"""The same lines to Debian's keepalived and kad: conditions, definitions, loops, braces give the same text.

Each line ends with a double quote that has no partner, which makes keepalived 2.2 print it as it stands
after all of that. Left out of the generated lines is what kad does differently on purpose: ``\\#`` with a
substitution on the same line, references to what is not defined, definitions that contain themselves.
"""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kad.config.lexer import decomment
from kad.config.preprocess import Budget, Preprocessor
from tests.support.keepalived import is_newer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("keepalived") is None, reason="keepalived is not installed"),
    pytest.mark.skipif(is_newer(), reason="keepalived 2.3 prints such a line as it was before all of that"),
]

ATOMS = [
    *("$A", "${A}", "$B", "${B}", "$C", "$D ", "${L}", "$x", "${x}", "${y} ", "$E", "${E} ", "$F", "$"),
    *(
        "a",
        "b",
        "7",
        " ",
        " ",
        "\t",
        ",",
        ")",
        "(",
        "\\",
        "\\a",
        "'",
        "=",
        "~",
        "{",
        "}",
        '"q"',
        '"{"',
        '"#"',
    ),
    *("@foo", "@bar ", "${_INSTANCE}", "${_HASH}", "${_BANG}", "#", "!"),
]
PREFIXES = [
    *(
        "",
        "",
        "",
        "@foo ",
        "@bar ",
        "@^foo ",
        "@^bar\t",
        "~SEQ(x,1,2) ",
        "~SEQ(x,2) ~SEQ(y,1,3,5) ",
        "~SEQx(x,9,11)",
    ),
    *("~LST(x,1,b) ", "~LST({x,y},{1,2},{3}) ", "~SEQ( x , 3,1 )", "~SEQ(x,$N) ", "~SEQ(x,0)", "~SEQ(x,-2)"),
    *("~SEQ(x,0x2,010,020) ", "~SEQ(x,1,-1,3) ", "@bar ~SEQ(x,2) @bar "),
]
LEFT_OUT = re.compile(r"\\[#!]|\$\{(?!(?:[ABLxyE]|_INSTANCE|_HASH|_BANG)\})")
DEFINITIONS = ["$x=8", "$y=9", "$A=1", "$B=$A", "$C=${B}2", "$D=a $A b", "$E=", "$F=~SEQ(x,2) f"]
DEFINITIONS += ["$N=2", "$L=x{y"]


def generated(seed: int) -> list[str]:
    choose = random.Random(seed)
    lines = [*DEFINITIONS]
    for number in range(150):
        body = "#\\#"
        while LEFT_OUT.search(body):
            body = "".join(choose.choice(ATOMS) for _ in range(choose.randint(0, 7)))
        lines.append(f'{choose.choice(PREFIXES)}kw{number} {body} "')
    return lines


def keepalived_lines(path: Path) -> dict[int, list[str]]:
    """What the parent process of keepalived read: its lines with an unmatched quote, by line number."""
    command = ["keepalived", "-t", "-i", "bar", "-f", str(path)]
    output = subprocess.run(command, capture_output=True, timeout=60, check=False)
    text = (output.stdout + output.stderr).decode("utf-8", "replace")
    found: dict[int, list[str]] = {}
    for line in text.split("\n"):
        match = re.match(r"\(Line (\d+)\) (.*)", line)
        if match is None:
            break  # the other processes read the same again
        if match[2].startswith("Unmatched quote: '"):
            found.setdefault(int(match[1]), []).append(match[2][18:-1])
    return found


def kad_lines(lines: list[str]) -> dict[int, list[str]]:
    preprocessor = Preprocessor(lambda *_: None, Budget(), config_id="bar")
    found: dict[int, list[str]] = {}
    for number, line in enumerate(lines, 1):
        text = decomment(line)[0]
        if not text:
            continue
        for piece in preprocessor.lines(text, 0):
            if piece.text.count('"') % 2:
                found.setdefault(number, []).append(piece.text)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_same_lines_come_out(tmp_path: Path, seed: int) -> None:
    lines = generated(seed)
    path = tmp_path / "k.conf"
    path.write_text("\n".join(lines) + "\n")
    theirs, ours = keepalived_lines(path), kad_lines(lines)
    assert len(theirs) > 50
    different = {
        lines[number - 1]: (theirs.get(number), ours.get(number))
        for number in {*theirs, *ours}
        if theirs.get(number) != ours.get(number)
    }
    assert different == {}


NODES = ("lb1", "lb1.example.com", "LB1", "lb2", "example")
IDENTITIES = (
    "".join(f"@{name} here {name}\n@^{name} elsewhere {name}\n" for name in NODES) + "instance-${_INSTANCE}\n"
)


@pytest.mark.parametrize("options", [[], ["-i", "lb2"]], ids=["host name", "option"])
@pytest.mark.root
def test_the_same_lines_are_for_this_host(tmp_path: Path, options: list[str]) -> None:
    """Every line is one nobody knows, so that whoever reads it complains of it."""
    path = tmp_path / "k.conf"
    path.write_text(IDENTITIES)

    def complained(*program: str) -> list[str]:
        script = 'hostname lb1.example.com && exec "$@"'
        command = ["unshare", "--uts", "sh", "-c", script, "sh", *program, "-t", *options, "-f", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return re.findall(r"nknown keyword '(here|elsewhere|instance-\w*)", done.stdout + done.stderr)

    theirs = complained("keepalived")
    count = theirs.index(f"instance-{'lb2' if options else 'lb1'}") + 1
    assert count == len(NODES) + 1
    # The other processes read the same again.
    assert complained(str(Path(sys.executable).parent / "kad"), "--offline") == theirs[:count]
