"""Virtual servers as kadctl shows them."""

from __future__ import annotations

import msgspec

from kad import ctl
from kad.control.status import Clocks, DaemonStatus, services_of
from kad.dumps.service_data import check_text
from kad.ipc.messages import Role, StatusReport
from kad.ipc.reports import CheckReport
from kad_check.core.events import DestinationRefused
from tests.support.check_host import CheckHost, only_down
from tests.support.configuration import read

TEXT = """
virtual_server 10.0.0.1 80 {
    lvs_sched rr
    lvs_method DR
    protocol TCP
    delay_loop 6
    quorum 2
    sorry_server 192.0.2.99 80
    real_server 192.0.2.11 80 {
        TCP_CHECK {
            warmup 0
        }
    }
    real_server 192.0.2.12 80 {
        TCP_CHECK {
            warmup 0
        }
    }
}
"""
CLOCKS = Clocks(0, 0)


def shown(report: CheckReport) -> str:
    body = StatusReport(Role.CHECK, 1, 1, 1, 1, msgspec.msgpack.encode(report))
    services, ipvs = services_of(body, CLOCKS)
    status = DaemonStatus(
        "1", 1, "/run", "/c", 1, True, True, "", "IDLE", None, (), (), {}, {}, services, ipvs
    )
    return ctl.render(status, 2_000.0)


def test_a_server_that_is_down_says_why_and_who_serves_instead() -> None:
    host = CheckHost(read(TEXT).config.check)
    host.start()
    host.run(2, only_down("192.0.2.12"))
    text = shown(host.engine.report())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    at = next(n for n, line in enumerate(lines) if line.startswith("[10.0.0.1]:tcp:80"))
    assert "NO QUORUM" in lines[at] and "sorry server [192.0.2.99]:tcp:80 serves" in lines[at]
    assert lines[at + 1].startswith("[192.0.2.12]:tcp:80 DOWN") and lines[at + 1].endswith(
        "TCP_CHECK: refused"
    )
    assert lines[at + 2].startswith("[192.0.2.11]:tcp:80 UP")
    host.feed(DestinationRefused("[10.0.0.1]:tcp:80", "192.0.2.99", 80, "EINVAL"))
    assert "sorry server [192.0.2.99]:tcp:80 was refused (IPVS: EINVAL)" in shown(host.engine.report())


def test_labels_are_shown_and_a_reload_that_changes_them_asks_nothing_of_the_kernel() -> None:
    labelled = TEXT.replace("quorum 2", "quorum 2\nsnmp_name shop").replace(
        "TCP_CHECK", "snmp_name A\nTCP_CHECK", 1
    )
    host = CheckHost(read(labelled).config.check)
    host.start()
    host.run(2, only_down(""))
    kernel, told = host.kernel, host.fifo() + "".join(host.logged()).encode()
    lines = [" ".join(line.split()) for line in shown(host.engine.report()).splitlines()]
    ends = [line.rpartition("labelled ")[2] for line in lines if "labelled" in line]
    assert ends == ["shop", "A"]
    dump = check_text(host.engine.report())
    assert dump.count("snmp_name = ") == 2 and "   snmp_name = A\n" in dump
    host.reload(read(labelled.replace("snmp_name A", "snmp_name B")).config.check)
    assert "labelled B" in shown(host.engine.report())
    assert (host.kernel, host.fifo() + "".join(host.logged()).encode()) == (kernel, told)


def test_a_kernel_without_ipvs_is_said() -> None:
    host = CheckHost(read(TEXT).config.check)
    host.start()
    report = msgspec.structs.replace(host.engine.report(), ipvs="this kernel has none")
    assert "IPVS: this kernel has none" in shown(report)


def test_what_is_no_report_shows_nothing() -> None:
    assert services_of(None, CLOCKS) == ((), "")
    assert services_of(StatusReport(Role.CHECK, 1, 1, 1, 1, b"\xc1"), CLOCKS) == ((), "")
