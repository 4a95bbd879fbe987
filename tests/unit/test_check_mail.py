"""Mail about servers: keepalived's words for each kind of checker, and who is mailed about what."""

from __future__ import annotations

import pytest

from kad.config.model.check import (
    BfdCheck,
    Checker,
    Connection,
    DnsCheck,
    HttpGet,
    MiscCheck,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)
from kad.config.model.script import ScriptCommand
from kad_check.core.actions import Health, SendMail
from kad_check.core.checker import kind_of
from kad_check.core.texts import TIMED_OUT, mail_body
from tests.support.check_host import CheckHost, only_down
from tests.support.configuration import read

ONCE, WHERE = Schedule(), Connection("192.0.2.1", 80)
SCRIPT = MiscCheck(ONCE, ScriptCommand(("/bin/true",), "/bin/true", 0, 0), timeout_us=1)
MAIL = """
global_defs {
    notification_email {
        ops@example.org
    }
    smtp_server 192.0.2.25
    %s
}
virtual_server 10.0.0.1 80 {
    delay_loop 1
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    %s
    real_server 192.0.2.11 80 {
        %s
        TCP_CHECK {
            retry 0
        }
        TCP_CHECK {
            connect_port 81
            retry 0
        }
    }
}
"""


@pytest.mark.parametrize(
    ("checker", "good", "bad"),
    [
        (TcpCheck(ONCE, WHERE), "TCP CHECK succeed on service", "TCP CHECK failed on service"),
        (UdpCheck(ONCE, WHERE), "UDP CHECK succeed on service", "UDP CHECK failed on service"),
        (PingCheck(ONCE, WHERE), "ICMP CHECK succeed on service", "ICMP CHECK failed on service"),
        (DnsCheck(ONCE, WHERE, "A", "."), "DNS_CHECK: succeed on service", "DNS_CHECK: failed on service"),
        (
            HttpGet(ONCE, WHERE, ()),
            "CHECK succeed on service",
            "CHECK failed on service : HTTP/SSL request failed",
        ),
        (SmtpCheck(ONCE, WHERE), "CHECK succeed on service", "CHECK failed on service : why"),
        (BfdCheck("b"), "BFD CHECK b succeeded on service", "BFD CHECK b failed on service"),
        (SCRIPT, "MISC CHECK succeeded on service", "MISC CHECK failed on service"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_words_are_keepaliveds(checker: Checker, good: str, bad: str) -> None:
    kind = kind_of(checker)
    assert mail_body(checker, kind, Health.UP, "") == f"=> {good} <="
    assert mail_body(checker, kind, Health.DOWN, "why") == f"=> {bad} <="


def test_a_script_that_takes_too_long() -> None:
    body = mail_body(SCRIPT, "MISC_CHECK", Health.DOWN, TIMED_OUT)
    assert body == "=> MISC CHECK timed out on service <="


def mailed(settings: str = "", vs: str = "", rs: str = "") -> list[str]:
    """Subjects while both checkers of the one server fail, one after the other."""
    host = CheckHost(read(MAIL % (settings, vs, rs)).config.check)
    host.start()
    host.run(5, lambda checker, step: True)
    host.run(5, lambda checker, step: checker.connection.port != 81)  # type: ignore[union-attr]
    host.run(5, only_down("192.0.2.11"))
    return [each.letter.subject for each in host.done if isinstance(each, SendMail)]


RS = "Realserver [192.0.2.11]:tcp:80 of virtual server [10.0.0.1]:tcp:80 - DOWN"
UP, DOWN = (f"Virtualserver [10.0.0.1]:tcp:80 - {state}" for state in ("UP", "DOWN"))


def test_servers_are_mailed_about_unless_told_otherwise() -> None:
    assert mailed() == [RS, RS]
    assert mailed("no_checker_emails") == [RS]
    assert mailed("smtp_alert off") == []
    assert mailed("smtp_alert off\nsmtp_alert_checker on") == [UP, DOWN, RS, RS]
    assert mailed(vs="smtp_alert") == [UP, DOWN, RS, RS]
    assert mailed(rs="smtp_alert off") == []
