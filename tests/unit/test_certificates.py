"""The files of an SSL block, as ``kad -t`` looks at them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kad.certificates import WITHOUT_KEY
from kad.config.machine import LocalMachine, SslProblem
from kad.config.model.check import SslContext
from tests.support.servers import certificate


def problem(certificate: Path | str, key: Path | str = "", ca: Path | str = "") -> SslProblem | None:
    return LocalMachine().ssl_problem(SslContext("", str(ca), str(certificate), str(key)))


def test_what_can_be_used_and_what_cannot(tmp_path: Path) -> None:
    cert, key = certificate()
    both, rubbish = tmp_path / "both", tmp_path / "rubbish"
    both.write_text(Path(cert).read_text() + Path(key).read_text())
    rubbish.write_text("rubbish")
    assert problem(cert, key, cert) is None
    assert problem(both) is None
    assert problem(cert) == SslProblem(WITHOUT_KEY, usable=True)
    assert problem("") is None
    for wrong in ((rubbish,), (tmp_path / "none",), (cert, rubbish), (cert, key, rubbish), (key, key)):
        found = problem(*wrong)
        assert found is not None and not found.usable and "cannot be used" in found.text, wrong


def test_nobody_waits_for_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert problem(tmp_path / "pipe") is None


@pytest.mark.parametrize("block", ["", "SSL {\nca /none\n}\n"])
def test_openssl_is_loaded_only_where_there_is_such_a_block(tmp_path: Path, block: str) -> None:
    file = tmp_path / "kad.conf"
    file.write_text(block + "global_defs {\n}\n")
    program = (
        "import sys; from kad.cli import main; main(['-t', '-f', sys.argv[1]]); print('ssl' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split()[-1] == str(bool(block)), done
    assert ("cannot be used" in done.stdout + done.stderr) is bool(block)
