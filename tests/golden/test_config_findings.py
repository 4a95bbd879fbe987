"""What people are told about their configurations, word by word.

After a change on purpose: python -m tests.golden.test_config_findings writes the expectations anew.
"""

from pathlib import Path

import pytest

from kad.config.diagnostics import render
from kad.config.load import load
from kad.config.source import TextReader
from tests.support.configuration import InventedMachine

HERE = Path(__file__).parent / "config"
FILES = sorted(HERE.glob("*.conf"))


def told(path: Path) -> str:
    reader = TextReader({path.name: path.read_text()})
    loaded = load(path.name, reader=reader, machine=InventedMachine(), config_id="node")
    lines = [render(each) for each in loaded.findings]
    return "\n".join([*lines, f"exit status {loaded.exit_status}"]) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_findings_are_worded_as_expected(path: Path) -> None:
    assert told(path) == path.with_suffix(".findings").read_text()


if __name__ == "__main__":
    for each in FILES:
        each.with_suffix(".findings").write_text(told(each))
