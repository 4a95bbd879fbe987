"""Names and sentences as keepalived writes them, since people's scripts look for them. Pure."""

from __future__ import annotations

from kad.config.model.check import (
    BfdCheck,
    Checker,
    MiscCheck,
    RealServer,
    SmtpCheck,
    SorryServer,
    Url,
    VirtualServer,
)
from kad.config.model.check import protocol_name as protocol_of
from kad_check.core.actions import Health


def server_name(server: RealServer | SorryServer, pool: VirtualServer) -> str:
    """A real or sorry server, as on the FIFO and in the log."""
    return f"[{server.address}]:{protocol_of(pool.protocol)}:{server.port}"


_SUCCESS = {
    "TCP_CHECK": "TCP connection to {server} success.",
    "HTTP_GET": "Remote Web server {server} succeed on service.",
    "SSL_GET": "Remote Web server {server} succeed on service.",
    "SMTP_CHECK": "Remote SMTP server {server} succeed on service.",
    "DNS_CHECK": "DNS_CHECK ({server}) success.",
    "UDP_CHECK": "UDP connection to {server} success.",
    "PING_CHECK": "ICMP connection to {server} success.",
    "MISC_CHECK": "Misc check for [{server} VS {pool}] by [{script}] succeeded.",
    "BFD_CHECK": "BFD check of [{session}] RS({server}) is UP",
    "FILE_CHECK": "FILE_CHECK ({server}) success.",
}
_FAILURE = {
    "HTTP_GET": "HTTP_CHECK on service {server} failed",
    "SSL_GET": "SSL_CHECK on service {server} failed",
    "PING_CHECK": "ICMP CHECK on service {server} of {pool} failed",
    "BFD_CHECK": "BFD check of [{session}] RS({server}) is DOWN",
}
TIMED_OUT = "timeout"
"""What is said of a script that takes too long."""

_MAIL_NAME = {
    "TCP_CHECK": "TCP CHECK",
    "UDP_CHECK": "UDP CHECK",
    "PING_CHECK": "ICMP CHECK",
    "DNS_CHECK": "DNS_CHECK:",
    "FILE_CHECK": "FILE CHECK",
}


def verdict_line(
    checker: Checker, kind: str, server: str, pool: str, health: Health, *, detail: str, retries: int
) -> str:
    """A checker's new opinion of its server. ``retries``: failures that came before this one."""
    names = {
        "server": server,
        "pool": pool,
        # Without its arguments: a password may be among them.
        "script": checker.script.argv[0] if isinstance(checker, MiscCheck) else "",
        "session": getattr(checker, "bfd_instance", ""),
    }
    if health is Health.UP:
        return _SUCCESS[kind].format(**names)
    if isinstance(checker, MiscCheck):
        allowed = checker.schedule.retry
        how_often = f" after {_retries(allowed)}" if allowed else " with retry disabled"
        return _script_failed(checker, server, pool, detail, how_often)
    said = _FAILURE.get(kind, kind + " on service {server} failed").format(**names)
    if isinstance(checker, BfdCheck):
        return said  # without a full stop
    after = f" after {retries} retries" if retries else ""
    return f"{said}{after}: {detail}." if detail else f"{said}{after}."


def url_line(url: Url, server: str) -> str:
    """An answer that was right, while the server is down. It names what was looked at last."""
    what = "Regex match" if url.regex else "MD5 digest" if url.digest else "HTTP status code"
    return f"{what} success to {server} url({url.path})"


def attempt_line(checker: Checker, kind: str, server: str, pool: str, *, detail: str, failures: int) -> str:
    """A failure that is no verdict yet. ``failures``: those in a row, with this one."""
    if not isinstance(checker, MiscCheck):
        return f"{kind} on service {server} failed: {detail}."
    allowed = checker.schedule.retry
    how_often = f", will do {_retries(allowed)}" if failures == 1 else f" on retry {failures - 1}/{allowed}"
    return _script_failed(checker, server, pool, detail, how_often)


def _script_failed(checker: MiscCheck, server: str, pool: str, detail: str, how_often: str) -> str:
    said = f"Misc check for [{server} VS {pool}] by [{checker.script.argv[0]}]"
    if detail == TIMED_OUT:
        return f"{said} timed out{how_often}."
    return f"{said} failed{how_often} ({detail})."


def _retries(count: int) -> str:
    return "1 retry" if count == 1 else f"{count} retries"


def mail_body(checker: Checker, kind: str, health: Health, detail: str) -> str:
    """keepalived's words; its FILE_CHECK has none."""
    verb = "succeed" if health is Health.UP else "failed"
    if isinstance(checker, BfdCheck):
        how = "succeeded" if health is Health.UP else verb
        return f"=> BFD CHECK {checker.bfd_instance} {how} on service <="
    if isinstance(checker, MiscCheck):
        how = "timed out" if detail == TIMED_OUT else verb
        return f"=> MISC CHECK {'succeeded' if health is Health.UP else how} on service <="
    if kind in _MAIL_NAME:
        return f"=> {_MAIL_NAME[kind]} {verb} on service <="
    if health is Health.UP:
        return "=> CHECK succeed on service <="
    if isinstance(checker, SmtpCheck):
        return f"=> CHECK failed on service : {detail} <="
    return "=> CHECK failed on service : HTTP/SSL request failed <="
