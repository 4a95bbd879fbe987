"""What needs a kernel this machine may not have, run in one virtual machine: ``guest/check_*.py``.

The guest runs pytest over those files; here each of them is one test, with the guest's own report in its
output. To run only some, by hand:

    .venv/bin/python -m tests.vm.test_guest check_ipvs_table.py -k timeouts
"""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import sys
import tempfile
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest

from tests.support import vm

ROOT = Path(__file__).resolve().parents[2]
GUEST = ROOT / "tests/vm/guest"
PACKAGES = ("kad", "kad_vrrp", "kad_check", "kad_bfd", "tests")
FILES = sorted(path.name for path in GUEST.glob("check_*.py"))
LIMIT_S = 1200
"""For all of them. They take about a fifth of it on an idle machine."""

_JOB = """
modprobe ip_vs
ulimit -n 8192
cd {root}
export PYTHONDONTWRITEBYTECODE=1 KAD_GUEST=1 KAD_SERVERS={servers}
timeout -k 5 -s INT {limit} {python} -m pytest -p no:cacheprovider -p no:hypothesispytest -o addopts= \
    -o faulthandler_timeout=240 -q --durations=15 --strict-markers --junitxml=/shared/report.xml {words}
"""


def run(words: list[str], shared: Path, limit: int) -> int:
    """The guest's pytest with these arguments; its exit status."""
    for package in PACKAGES:
        # In the guest that takes ten times as long, and each time anew: it cannot write here.
        compileall.compile_dir(ROOT / package, quiet=2)
    job = _JOB.format(
        root=shlex.quote(str(ROOT)),
        limit=limit,
        python=sys.executable,
        words=shlex.join(words),
        servers=int(os.environ.get("KAD_SERVERS", "500")),
    )
    return vm.run_in_guest(job, shared, seconds=limit + 60)


class Report:
    """What came out: test cases by file, and everything that was printed."""

    def __init__(self, shared: Path, status: int) -> None:
        self.status = status
        self.output = (shared / ".output").read_text(errors="replace")
        self.cases: dict[str, list[Xml.Element]] = {name: [] for name in FILES}
        report = shared / "report.xml"
        if not report.exists():
            return
        for case in Xml.parse(report).getroot().iter("testcase"):
            name = case.get("classname", "").rpartition(".")[2] + ".py"
            self.cases.setdefault(name, []).append(case)


@pytest.fixture(scope="module")
def report() -> Report:
    if reason := vm.reason_not_possible():
        pytest.skip(f"no virtual machine: {reason}")
    if not shutil.which("ipvsadm", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("ipvsadm is not installed (make packages)")
    with tempfile.TemporaryDirectory(prefix="kad-guest-") as directory:
        status = run([str(GUEST / name) for name in FILES], Path(directory), LIMIT_S)
        return Report(Path(directory), status)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_in_guest(report: Report, name: str) -> None:
    cases = report.cases[name]
    if not cases:
        pytest.fail(f"{name} was not run; the guest said:\n{report.output[-6000:]}")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    for case in cases:
        print(f"{case.get('name')}: {float(case.get('time') or 0):.1f} s")
    assert not failed, "\n\n".join(_words(case) for case in failed)
    assert not skipped, "the guest has everything: " + "\n".join(_words(case) for case in skipped)


def _words(case: Xml.Element) -> str:
    parts = [f"{case.get('name')}:"]
    parts += [part.text or part.get("message", "") for part in case if part.text or part.get("message")]
    return "\n".join(parts)


def main() -> None:
    """By hand: the guest's output as it is; what it left stays in the directory named."""
    files = [str(GUEST / word) if word.endswith(".py") else word for word in sys.argv[1:]]
    shared = Path(tempfile.mkdtemp(prefix="kad-guest-"))
    status = run(files or [str(GUEST / name) for name in FILES], shared, LIMIT_S)
    print((shared / ".output").read_text(errors="replace"))
    sys.exit(status)


if __name__ == "__main__":
    main()
