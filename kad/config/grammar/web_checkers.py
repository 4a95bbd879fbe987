"""Rows of HTTP_GET and SSL_GET, and of the requests they make."""

from __future__ import annotations

from kad.config.grammar.connection import (
    CONNECTION_ROWS,
    PERIOD_LIMIT_US,
    SUFFERED,
    VIRTUALHOST,
    close_plain,
    knows_server,
    schedule_rows,
)
from kad.config.grammar.hexadecimal import read_hex
from kad.config.model.check import HttpGet, Url
from kad.config.numbers import whole_number
from kad.config.pattern import compile_pattern
from kad.config.schema import CHECK, CLOSING, NOTHING, Block, Frame, Kind, Reading, Repeat, Row, acting, opens
from kad.config.script_words import Unbalanced, split_regex
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, boolean, flag, integer, word

REGEX_OPTIONS = (
    "allow_empty_class",
    "alt_bsux",
    "auto_callout",
    "caseless",
    "dollar_endonly",
    "dotall",
    "dupnames",
    "extended",
    "firstline",
    "match_unset_backref",
    "multiline",
    "never_ucp",
    "never_utf",
    "no_auto_capture",
    "no_auto_possess",
    "no_dotstar_anchor",
    "no_start_optimize",
    "ucp",
    "ungreedy",
    "utf",
    "never_backslash_c",
    "alt_circumflex",
    "alt_verbnames",
    "use_offset_limit",
)


def _digest(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "digest")
        return NOTHING
    text = statement.texts[1]
    found = read_hex(text) if len(text) == 32 else None
    if found is None or " " in text:
        reading.error(
            "bad-digest",
            f"'{text}' is not an MD5 digest; it is ignored",
            frame,
            statement,
            1,
            remedy="32 hexadecimal digits",
        )
        return NOTHING
    if "digest" in frame.fields:
        reading.error("repeated", "a second digest is ignored", frame, statement, 0)
        return NOTHING
    return found[0]


def _status_code(reading: Reading, frame: Frame, statement: Statement) -> object:
    """Adds to a set; each wrong word is said, the others count."""
    codes: set[int] = frame.fields.get("status_codes", set())
    for index, each in enumerate(statement.texts[1:], 1):
        low_text, dash, high_text = each.partition("-")
        low = _code(low_text)
        high = _code(high_text) if dash else low
        if low is None or high is None or low > high:
            reading.error(
                "bad-status-code",
                f"'{each}' is neither an HTTP status nor a range; it is ignored",
                frame,
                statement,
                index,
                remedy="100 to 599, or FIRST-LAST",
            )
        else:
            codes.update(range(low, high + 1))
    return codes or NOTHING


def _code(text: str) -> int | None:
    return whole_number(text, 599, 100)


def _regex(reading: Reading, frame: Frame, statement: Statement) -> object:
    words = split_regex(statement.raw)
    if isinstance(words, Unbalanced):
        reading.error("unmatched-quote", f"'regex': {words.what}; it is ignored", frame, statement, 1)
        return NOTHING
    if len(words) != 1:
        reading.error(
            "bad-regex",
            "'regex' lacks its pattern" if not words else "'regex' takes one pattern; the line is ignored",
            frame,
            statement,
            0,
            remedy='regex "PATTERN"',
        )
        return NOTHING
    return words[0]


def _regex_options(reading: Reading, frame: Frame, statement: Statement) -> object:
    given = list(frame.fields.get("regex_options", ()))
    for index, each in enumerate(statement.texts[1:], 1):
        if each in REGEX_OPTIONS:
            if each not in given:
                given.append(each)
        else:
            reading.error(
                "bad-choice",
                f"no regex option '{each}'; it is ignored",
                frame,
                statement,
                index,
                remedy="one of " + ", ".join(REGEX_OPTIONS),
                status=SUFFERED,
            )
    return tuple(given)


_LARGEST_OFFSET = 10**18 - 1


def _lenient_numbers(count: int, what: str) -> Kind:
    """Whole numbers whose mistakes keepalived only logs."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        texts = statement.texts[1:]
        values = tuple(
            number for text in texts if (number := whole_number(text, _LARGEST_OFFSET)) is not None
        )
        if len(values) == len(texts) == count:
            return values[0] if count == 1 else values
        keyword = statement.texts[0]
        reading.error(
            "bad-number",
            f"'{keyword}' is ignored: it takes {'a number' if count == 1 else f'{count} numbers'}",
            frame,
            statement,
            0,
            remedy=f"{keyword} {what}",
            status=SUFFERED,
        )
        return NOTHING

    return Kind(what, read, "bytes", "0")


def _stack(reading: Reading, frame: Frame, statement: Statement) -> object:
    value = _STACK_READ(reading, frame, statement)
    if isinstance(value, tuple) and value[0] > value[1]:
        reading.error(
            "bad-range",
            f"'regex_stack' starts with {value[0]}, more than its maximum {value[1]}; it is ignored",
            frame,
            statement,
            1,
            status=SUFFERED,
        )
        return NOTHING
    return value


_STACK = _lenient_numbers(2, "START MAXIMUM")
assert _STACK.read is not None
_STACK_READ = _STACK.read
_REGEX_FIELDS = ("regex_options", "regex_no_match", "regex_min_offset", "regex_max_offset", "regex_stack")


def _close_url(reading: Reading, frame: Frame) -> object:
    fields = frame.fields
    if "path" not in fields:
        reading.error(
            "no-path", "this url has no path; it is ignored", frame, frame.statement, CLOSING, remedy="path /"
        )
        return NOTHING
    if "regex" not in fields:
        _drop(reading, frame, [name for name in _REGEX_FIELDS if name in fields], "there is no regex")
        return frame
    _try_pattern(reading, frame)
    if fields.get("regex_min_offset", 0) > fields.get("regex_max_offset", PERIOD_LIMIT_US):
        offsets = ["regex_min_offset", "regex_max_offset"]
        _drop(reading, frame, offsets, "the minimum exceeds the maximum")
    return frame


def _try_pattern(reading: Reading, frame: Frame) -> None:
    """What PCRE2 can do and Python cannot: keepalived would run this check."""
    try:
        compile_pattern(frame.fields["regex"], frame.fields.get("regex_options", ()))
    except ValueError as error:
        reading.warning(
            "unusable-regex",
            f"this check will say nothing about its server: {error}",
            frame,
            frame.place("regex"),
            1,
            remedy="a pattern that Python's re understands",
            status=SUFFERED,
        )


def _drop(reading: Reading, frame: Frame, fields: list[str], reason: str) -> None:
    for name in fields:
        reading.error(
            "no-effect", f"'{name}' is ignored: {reason}", frame, frame.place(name), 0, status=SUFFERED
        )
        del frame.fields[name]


def _tls_only_in_ssl(reading: Reading, frame: Frame, statement: Statement) -> object:
    reading.error(
        "unknown-keyword",
        f"'{statement.texts[0]}' is for SSL_GET; it has no effect here",
        frame,
        statement,
        0,
        remedy="SSL_GET instead of HTTP_GET, or remove the line",
    )
    return NOTHING


def _tls_row(keyword: str, default: str) -> Row:
    kind = boolean() if keyword == "SSL_GET" else Kind("boolean", _tls_only_in_ssl)
    return Row(
        "tls_compliant", kind, "Close each TLS session with a close_notify (SSL_GET only).", default=default
    )


def _url_block(keyword: str) -> Block:
    return Block(
        f"virtual_server/real_server/{keyword}/url",
        acting(
            (
                Row(
                    "path",
                    word("path"),
                    "What is requested.",
                    default="required",
                    repeat=Repeat.LAST_SAID,
                ),
                Row(
                    "digest",
                    Kind("MD5 digest", _digest, takes=1),
                    "MD5 that the body must have, as genhash prints it.",
                    default="not compared",
                ),
                Row(
                    "status_code",
                    Kind("code / first-last …", _status_code, low="100", high="599"),
                    "Status codes that count as success.",
                    "status_codes",
                    default="200-299",
                ),
                Row(
                    "virtualhost",
                    VIRTUALHOST,
                    "Host header of the request.",
                    default="the checker's",
                    repeat=Repeat.LAST_SAID,
                ),
                Row(
                    "regex",
                    Kind("pattern", _regex),
                    "PCRE2 pattern that the body must match.",
                    repeat=Repeat.LAST_SAID,
                ),
                Row("regex_no_match", flag(), "The body must not match the pattern."),
                Row("regex_options", Kind("option …", _regex_options), "PCRE2 options of the pattern."),
                Row(
                    "regex_min_offset",
                    _lenient_numbers(1, "OFFSET"),
                    "Matches may not start before this byte of the body.",
                ),
                Row(
                    "regex_max_offset",
                    _lenient_numbers(1, "OFFSET"),
                    "Matches may not start after this byte of the body.",
                ),
                Row(
                    "regex_stack",
                    Kind("START MAXIMUM", _stack, "bytes"),
                    "Of no effect: kad's matcher needs no memory of its own.",
                ),
                _tls_row(keyword, "the checker's"),
            )
        ),
        close=_close_url,
        model=Url,
        roles=CHECK,
    )


def _http_protocol(reading: Reading, frame: Frame, statement: Statement) -> object:
    given = statement.texts[1] if len(statement.texts) > 1 else ""
    value = {"1.0": "1.0", "1.0C": "1.0C", "1.0c": "1.0C", "1.1": "1.1"}.get(given)
    if value is not None:
        return value
    reading.error(
        "bad-choice",
        f"'http_protocol' cannot be '{given}'; the line is ignored"
        if given
        else "'http_protocol' lacks its version",
        frame,
        statement,
        1,
        remedy="1.0, 1.0C or 1.1",
    )
    return NOTHING


def _sni_name(reading: Reading, frame: Frame, statement: Statement) -> object:
    """Bare, it asks for SNI with the name of the request; with a name, for that name."""
    if len(statement.texts) < 2 and "sni_name" in frame.fields:
        name = frame.fields["sni_name"]
        reading.error(
            "repeated", f"'sni_name' is ignored: it is '{name}' already", frame, statement, 0, remedy=""
        )
        return NOTHING
    frame.fields["enable_sni"] = True
    return statement.texts[1] if len(statement.texts) > 1 else NOTHING


def _close_http(reading: Reading, frame: Frame) -> object:
    if frame.fields.get("urls"):
        return close_plain(reading, frame)
    assert frame.statement is not None
    reading.error(
        "no-url",
        f"this {frame.statement.texts[0]} requests nothing; it is ignored",
        frame,
        frame.statement,
        CLOSING,
        remedy="url { path / }",
    )
    return NOTHING


def _http_block(keyword: str) -> Block:
    return Block(
        f"virtual_server/real_server/{keyword}",
        acting(CONNECTION_ROWS
        + schedule_rows(delay_before_retry="3 s")
        + (
            Row(
                "nb_get_retry",
                integer(0, UNSIGNED_MAX),
                "How many failures in a row are tolerated.",
                "retry",
                alias_of="retry",
                deprecated="retry",
            ),
            Row(
                "virtualhost",
                VIRTUALHOST,
                "Host header of the requests.",
                default="the real server's, else the virtual server's",
                repeat=Repeat.LAST_SAID,
            ),
            Row("http_protocol", Kind("1.0 / 1.0C / 1.1", _http_protocol, takes=1),
                "Version in the request line.", default="1.0"),
            Row("enable_sni", boolean(), "Name the host as TLS begins (SSL_GET).", default="off"),
            Row(
                "sni_name",
                Kind("[host name]", _sni_name, takes=1),
                "The host named when the TLS session begins (SSL_GET); enables SNI.",
                default="the virtualhost",
                repeat=Repeat.LAST_SAID,
            ),
            Row("fast_recovery", boolean(), "No pause between URLs while the server is coming up."),
            _tls_row(keyword, "off"),
            Row("url", opens(_url_block(keyword)), "A request, and what is expected of its answer.", "urls",
                default="required", repeat=Repeat.ADD),
        )),
        open=knows_server,
        close=_close_http,
        model=HttpGet,
        roles=CHECK,
    )  # fmt: skip


HTTP_GET = _http_block("HTTP_GET")
SSL_GET = _http_block("SSL_GET")
