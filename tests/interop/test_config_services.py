"""Load balancing and BFD, line by line beside Debian's keepalived: the same exit status and the same lines.

The texts are those of the unit tests of the grammar, with one mistake each.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.configuration import findings, read
from tests.support.keepalived import needs_keepalived
from tests.unit import test_config_bfd as bfd
from tests.unit import test_config_check as services
from tests.unit import test_config_check_checkers as checkers

pytestmark = [pytest.mark.interop, pytest.mark.root]

GLOBALS = "\nglobal_defs {\nscript_user root\nenable_script_security\n}\n"
_LINE = re.compile(r"Line (\d+)\)")


def _server(*bodies: str) -> list[str]:
    return [checkers.SERVER % ("", "10.0.0.2", body) for body in bodies]


def _within(keyword: str, first: str, lines: list[str]) -> list[str]:
    return _server(*(f"{keyword} {{\n{first}\n{each}\n}}" for each in lines))


TEXTS = [
    *services.HEADS,
    *services.GROUPS,
    *map(services.service, services.WRONG_LINES),
    *(services.service("", each) for each in services.WRONG_LINES_OF_SERVERS),
    *(f"virtual_server_group g {{\n{each}\n10.9.9.9 80\n}}" for each in services.WRONG_ENTRIES),
    *_within("TCP_CHECK", "", checkers.WRONG_LINES),
    *_within("HTTP_GET", "url {\npath /\n}", checkers.WRONG_HTTP),
    *_server(*(f"HTTP_GET {{\nurl {{\npath /\n{each}\n}}\n}}" for each in checkers.WRONG_URLS)),
    *_within("DNS_CHECK", "", checkers.WRONG_DNS),
    *_within("UDP_CHECK", "", checkers.WRONG_UDP),
    *_server(*checkers.WRONG_SCRIPTS, *checkers.WRONG_BFD, *checkers.WRONG_FILES),
    *_within("MISC_CHECK", "misc_path /bin/true", checkers.WRONG_LINES_OF_SCRIPTS),
    *_within("FILE_CHECK", "track_file load", checkers.WRONG_LINES_OF_FILES),
    *(f"bfd_instance peer {{\nneighbor_ip 10.0.0.2\n{each}\n}}" for each in bfd.WRONG_LINES),
    *bfd.DISABLED,
]


NEWER = ("# repeated", "regex", "sni_name", "multihop")
"""What 2.2.7 does not know, or does not remark on, and 2.4 does."""

ELSEWHERE = ("# family-mismatch", "# skipped")
"""Where the lines differ on purpose: kad names the address, keepalived the end of the block; and kad skips an
unknown block whole, which keepalived's braces do not survive."""


def keepalived(text: str, path: Path) -> tuple[int, set[int]]:
    """Exit status of ``keepalived -t`` and the lines it names."""
    path.write_text(text + GLOBALS)
    done = subprocess.run(
        ["unshare", "-n", "keepalived", "-t", "-f", str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, {int(number) for number in _LINE.findall(done.stdout + done.stderr)}


@pytest.mark.parametrize("text", [text for text in TEXTS if not any(each in text for each in NEWER)])
def test_both_say_the_same(text: str, tmp_path: Path) -> None:
    needs_keepalived()
    if os.geteuid():
        pytest.skip("needs root, to make a network namespace")
    status, lines = keepalived(text, tmp_path / "keepalived.conf")
    if status < 0:
        pytest.skip("this keepalived crashes on it")
    loaded = read(text)
    told = {line for line, _, each in findings(loaded) if each}
    if any(each in text for each in ELSEWHERE):
        lines = set()
    assert (loaded.exit_status, lines - told) == (status, set())
