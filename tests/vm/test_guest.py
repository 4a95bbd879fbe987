"""What needs a kernel this machine may not have, run in virtual machines: ``guest/check_*.py``.

Each guest runs pytest over one group of those files and is one test here, with the guest's own report in its
output. As many run at once as there are processors; under xdist, those of a worker run when it comes to
them. To run only some, by hand:

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
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec import Struct

from tests.support import vm

GUEST = vm.ROOT / "tests/vm/guest"
GROUPS = {
    "balancing": ("check_traffic.py", "check_synchronisation.py", "check_elsewhere.py"),
    "beside others": ("check_side_by_side.py", "check_migration.py"),
    "interfaces": ("check_interfaces.py", "check_bfd.py"),
    "kernel": ("check_ipvs_table.py", "check_many_servers.py", "check_routes.py", "check_processes.py"),
}
"""What takes about as long together, and shares nothing with the others."""
LIMIT_S = 1200
"""For each. They take about a fifth of it on an idle machine."""

_JOB = """
modprobe ip_vs
ulimit -n 8192
cd {root}
export PYTHONDONTWRITEBYTECODE=1 KAD_GUEST=1 KAD_SERVERS={servers}
timeout -k 5 -s INT {limit} {python} -m pytest --noconftest -p tests.support.namespaces -p no:cacheprovider \
    -p no:hypothesispytest -p no:xdist -o addopts= -q --durations=15 \
    --strict-markers --junitxml=/shared/report.xml {words}
"""


class Outcome(Struct, frozen=True):
    """The guest's pytest: its exit status, what it printed, and its test cases."""

    status: int
    output: str
    cases: list[Xml.Element]


def run(words: list[str]) -> Outcome:
    """A guest's pytest with these arguments. Raises RuntimeError for a guest that did not come up or end."""
    for package in vm.PACKAGES:
        # In the guest that takes ten times as long, and each time anew: it cannot write here.
        compileall.compile_dir(vm.ROOT / package, quiet=2)
    job = _JOB.format(
        root=shlex.quote(str(vm.ROOT)),
        limit=LIMIT_S,
        python=sys.executable,
        words=shlex.join(words),
        servers=int(os.environ.get("KAD_SERVERS", "200")),
    )
    with tempfile.TemporaryDirectory(prefix="kad-guest-") as directory:
        shared = Path(directory)
        status = vm.run_in_guest(job, shared, seconds=LIMIT_S + 120)
        output = (shared / ".output").read_text(errors="replace")
        report = shared / "report.xml"
        cases = list(Xml.parse(report).getroot().iter("testcase")) if report.exists() else []
        console = (shared / ".console").read_text(errors="replace")
        return Outcome(status, f"{output}\nThe kernel said:\n{console}", cases)


def _paths(group: str) -> list[str]:
    return [str(GUEST / name) for name in GROUPS[group]]


@pytest.fixture(scope="module")
def outcome_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Outcome]]:
    """Waits for a group's guest."""
    if reason := vm.reason_not_possible():
        pytest.skip(f"no virtual machine: {reason}")
    if not shutil.which("ipvsadm", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("ipvsadm is not installed (make packages)")
    started: dict[str, Future[Outcome]] = {}
    # More at once than there are processors, and none keeps the times its checks are given.
    with ThreadPoolExecutor(min(len(GROUPS), os.cpu_count() or 1)) as threads:

        def outcome(group: str) -> Outcome:
            if group not in started:
                started[group] = threads.submit(run, _paths(group))
            return started[group].result()

        if "PYTEST_XDIST_WORKER" not in os.environ:
            items = [item for item in request.session.items if item.path == request.path]
            wanted = {item.callspec.params["group"] for item in items if hasattr(item, "callspec")}
            started.update({group: threads.submit(run, _paths(group)) for group in GROUPS if group in wanted})
        yield outcome


def test_every_check_is_in_a_group() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(path.name for path in GUEST.glob("check_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_in_guest(outcome_of: Callable[[str], Outcome], group: str) -> None:
    outcome = outcome_of(group)
    for case in outcome.cases:
        print(f"{_name(case)}: {float(case.get('time') or 0):.1f} s")
    wrong = [
        _words(case)
        for case in outcome.cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert not wrong, "\n\n".join(wrong)
    skipped = [_words(case) for case in outcome.cases if case.find("skipped") is not None]
    assert not skipped, "the guest has everything: " + "\n".join(skipped)
    # Each file was run, and pytest itself found nothing to complain of.
    files = {str(case.get("classname")).rpartition(".")[2] + ".py" for case in outcome.cases}
    assert (files, outcome.status) == (set(GROUPS[group]), 0), outcome.output[-6000:]


def _name(case: Xml.Element) -> str:
    return f"{str(case.get('classname')).rpartition('.')[2]}: {case.get('name')}"


def _words(case: Xml.Element) -> str:
    parts = [part.text or part.get("message", "") for part in case]
    return "\n".join([f"{_name(case)}:", *(part for part in parts if part)])


def main() -> None:
    """By hand: the guest's output as it is."""
    files = [str(GUEST / word) if word.endswith(".py") else word for word in sys.argv[1:]]
    outcome = run(files or [path for group in GROUPS for path in _paths(group)])
    print(outcome.output)
    sys.exit(outcome.status)


if __name__ == "__main__":
    main()
