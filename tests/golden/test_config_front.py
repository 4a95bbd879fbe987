"""Configurations and the trees and findings they give, written out.

After a meant change: ``KAD_GOLDEN=write pytest tests/golden/test_config_front.py``, then read the diff.
"""

import os
from pathlib import Path

import pytest

from kad.config.diagnostics import render
from kad.config.text import ConfigurationText, read_tree
from kad.config.tree import Statement

HERE = Path(__file__).parent / "front"
CONFIGURATIONS = sorted(HERE.glob("*.conf"))


def tree_text(statements: list[Statement], indent: str = "") -> str:
    """A line a statement: place, words, block."""
    lines = []
    for statement in statements:
        span = statement.span
        words = " ".join(repr(text) for text in statement.texts)
        block = "" if statement.block is None else " {"
        lines.append(f"{Path(span.file).name}:{span.line}:{span.column:<3}{indent} {words}{block}\n")
        if statement.block is not None:
            lines.append(tree_text(statement.block, indent + "    "))
            closing = statement.closing
            place = "" if closing is None else f"{Path(closing.file).name}:{closing.line}:{closing.column:<3}"
            lines.append(f"{place}{indent} {'}' if closing else 'never closed'}\n")
    return "".join(lines)


def written(result: ConfigurationText) -> str:
    findings = "\n".join(render(diagnostic) for diagnostic in result.diagnostics)
    text = tree_text(result.statements) + ("\n" + findings + "\n" if findings else "")
    return text.replace(str(HERE) + "/", "").encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_front(path: Path) -> None:
    result = read_tree(str(path), config_id="node1", environment={"COLOUR": "blue"}, seed=1)
    expected = path.with_suffix(".tree")
    if os.environ.get("KAD_GOLDEN") == "write":
        expected.write_text(written(result))
    assert written(result) == expected.read_text()


def test_there_are_configurations() -> None:
    assert len(CONFIGURATIONS) >= 9
