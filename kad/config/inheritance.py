"""Checkers with all they inherit: from the real server, the virtual server, and a checker's own defaults."""

from __future__ import annotations

from typing import Any

from kad.config.grammar.endpoint import Endpoint
from kad.config.model.check import (
    DEFAULT_CONNECT_TIMEOUT_US,
    DEFAULT_DELAY_BEFORE_RETRY_US,
    DEFAULT_DELAY_LOOP_US,
    DEFAULT_DNS_RETRY,
    DEFAULT_HTTP_DELAY_BEFORE_RETRY_US,
    DEFAULT_MISC_RETRY,
    DEFAULT_RETRY,
    BfdCheck,
    Checker,
    Connection,
    DnsCheck,
    FileCheck,
    HttpGet,
    MiscCheck,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
    Url,
)
from kad.config.schema import Frame, Reading

CONNECTION_FIELDS = (
    "connect_address",
    "connect_port",
    "bind_address",
    "bind_port",
    "bind_interface",
    "connect_timeout_us",
    "fwmark",
)


def checkers_of(reading: Reading, server: Frame, endpoint: Endpoint) -> list[Checker]:
    """Every checker of a real server that is at ``endpoint``, in the order of the file."""
    log_all = bool(reading.globals.get("checker_log_all_failures"))
    found: list[Checker] = []
    for frame in server.fields.get("checkers", []):
        found += _checkers(frame, endpoint, log_all)
    return found


def _checkers(frame: Frame, endpoint: Endpoint, log_all: bool) -> list[Checker]:
    """One, except for an SMTP_CHECK with hosts."""
    keyword = frame.block.path.rpartition("/")[2]
    match keyword:
        case "TCP_CHECK":
            return [TcpCheck(_schedule(frame, log_all), _connection(frame, endpoint))]
        case "PING_CHECK":
            return [PingCheck(_schedule(frame, log_all), _connection(frame, endpoint))]
        case "HTTP_GET" | "SSL_GET":
            return [_http_get(frame, endpoint, log_all, keyword == "SSL_GET")]
        case "SMTP_CHECK":
            return _smtp_checks(frame, endpoint, log_all)
        case "DNS_CHECK":
            return [_dns_check(frame, endpoint, log_all)]
        case "UDP_CHECK":
            return [_udp_check(frame, endpoint, log_all)]
        case "MISC_CHECK":
            return [_misc_check(frame, log_all)]
        case "BFD_CHECK":
            return [BfdCheck(frame.fields["bfd_instance"], bool(frame.inherited("alpha", False)))]
        case "FILE_CHECK":
            return [FileCheck(frame.fields["track_file"], **_given(frame, "weight", "reverse"))]
    raise AssertionError(f"no checker is called {keyword}")


def _given(frame: Frame, *fields: str) -> dict[str, Any]:
    """What the block itself says, so that the model's defaults fill the rest."""
    return {name: frame.fields[name] for name in fields if name in frame.fields}


def _schedule(
    frame: Frame,
    log_all: bool,
    retry: int = DEFAULT_RETRY,
    delay_before_retry_us: int | None = DEFAULT_DELAY_BEFORE_RETRY_US,
) -> Schedule:
    """``delay_before_retry_us`` None: as delay_loop."""
    delay_loop_us = frame.inherited("delay_loop_us", DEFAULT_DELAY_LOOP_US)
    if delay_before_retry_us is None:
        delay_before_retry_us = delay_loop_us
    return Schedule(
        delay_loop_us=delay_loop_us,
        warmup_us=frame.inherited("warmup_us", delay_loop_us),
        retry=frame.inherited("retry", retry),
        delay_before_retry_us=frame.inherited("delay_before_retry_us", delay_before_retry_us),
        alpha=frame.inherited("alpha", False),
        log_all_failures=frame.inherited("log_all_failures", False) or log_all,
    )


def _connection(frame: Frame, endpoint: Endpoint) -> Connection:
    fields = frame.fields
    return Connection(
        fields.get("connect_address", endpoint.address),
        fields.get("connect_port", endpoint.port),
        timeout_us=frame.inherited("connect_timeout_us", DEFAULT_CONNECT_TIMEOUT_US),
        **_given(frame, "bind_address", "bind_port", "bind_interface", "fwmark"),
    )


def _http_get(frame: Frame, endpoint: Endpoint, log_all: bool, ssl: bool) -> HttpGet:
    return HttpGet(
        _schedule(frame, log_all, delay_before_retry_us=DEFAULT_HTTP_DELAY_BEFORE_RETRY_US),
        _connection(frame, endpoint),
        tuple(_url(url, ssl) for url in frame.fields["urls"]),
        ssl=ssl,
        protocol=frame.fields.get("http_protocol", "1.0"),
        **_given(frame, "fast_recovery"),
    )


def _url(frame: Frame, ssl: bool) -> Url:
    given = _given(frame, *_URL_FIELDS)
    if "status_codes" in frame.fields:
        given["status_codes"] = _ranges(frame.fields["status_codes"])
    return Url(
        frame.fields["path"],
        virtualhost=frame.inherited("virtualhost", ""),
        virtualhost_is_inherited=_inherits_virtualhost(frame),
        server_name=_server_name(frame) if ssl else "",
        tls_compliant=ssl and bool(frame.inherited("tls_compliant", False)),
        **given,
    )


def _inherits_virtualhost(url: Frame) -> bool:
    checker = url.parent
    assert checker is not None
    own = "virtualhost" in url.fields or "virtualhost" in checker.fields
    return not own and bool(url.inherited("virtualhost", ""))


_URL_FIELDS = (
    "digest",
    "regex",
    "regex_no_match",
    "regex_options",
    "regex_min_offset",
    "regex_max_offset",
    "regex_stack",
)


def _server_name(url: Frame) -> str:
    """sni_name, else the virtualhost of the request: keepalived passes over the real server's here."""
    checker = url.parent
    assert checker is not None and checker.parent is not None and checker.parent.parent is not None
    if not checker.fields.get("enable_sni"):
        return ""
    if "sni_name" in checker.fields:
        name = checker.fields["sni_name"]
    else:
        sources = (url, checker, checker.parent, checker.parent.parent)
        name = next((each.fields["virtualhost"] for each in sources if "virtualhost" in each.fields), "")
    assert isinstance(name, str)
    return name


def _ranges(codes: set[int]) -> tuple[tuple[int, int], ...]:
    """A set of numbers as ascending ranges."""
    found: list[tuple[int, int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1] = found[-1][0], code
        else:
            found.append((code, code))
    return tuple(found)


def _smtp_checks(frame: Frame, endpoint: Endpoint, log_all: bool) -> list[Checker]:
    """The block's own target unless only hosts say what to connect to, then one for each host."""
    hosts = frame.fields.get("hosts", [])
    own = any(name in frame.fields for name in CONNECTION_FIELDS)
    targets = [frame, *hosts] if own or not hosts else hosts
    helo = _given(frame, "helo_name")
    return [SmtpCheck(_schedule(each, log_all), _connection(each, endpoint), **helo) for each in targets]


def _dns_check(frame: Frame, endpoint: Endpoint, log_all: bool) -> DnsCheck:
    return DnsCheck(
        _schedule(frame, log_all, DEFAULT_DNS_RETRY, None),
        _connection(frame, endpoint),
        **_given(frame, "query_type", "name"),
    )


def _udp_check(frame: Frame, endpoint: Endpoint, log_all: bool) -> UdpCheck:
    payload, _ = frame.fields.get("payload", (b"", b""))
    reply, mask = frame.fields.get("reply", (b"", b""))
    return UdpCheck(
        _schedule(frame, log_all),
        _connection(frame, endpoint),
        payload=payload,
        reply=reply,
        reply_mask=mask,
        **_given(frame, "require_reply", "min_reply_length", "max_reply_length"),
    )


def _misc_check(frame: Frame, log_all: bool) -> MiscCheck:
    assert frame.parent is not None and frame.parent.parent is not None
    loop_us = frame.parent.parent.fields.get("delay_loop_us", DEFAULT_DELAY_LOOP_US)
    return MiscCheck(
        _schedule(frame, log_all, DEFAULT_MISC_RETRY),
        frame.fields["script"],
        timeout_us=frame.fields.get("timeout_us") or loop_us,
        **_given(frame, "dynamic"),
    )
