"""Kinds of values: how the words of a statement become an integer, a duration, an address …

Numbers follow keepalived's rules: base 10, trailing characters after digits are said and (outside ``-t``)
tolerated, decimals beyond the precision are dropped with rounding by the first one dropped.
Durations become integer microseconds.
"""

from __future__ import annotations

import re
from typing import Any

from kad.addresses import parse_address
from kad.config.diagnostics import nearest_known
from kad.config.encoding import as_bytes
from kad.config.schema import NOTHING, Frame, Kind, Read, Reading, Row
from kad.config.tree import Statement
from kad.errors import ExitStatus
from kad.units import US_PER_SECOND

UNSIGNED_MAX = 4294967295
INT_MAX = 2147483647
_INTEGER = re.compile(r"\s*([+-]?\d+)", re.ASCII)
_DECIMAL = re.compile(r"\+?(\d*)(?:\.(\d*))?", re.ASCII)
"""As many digits as a line holds, which is some hundreds: zeros in front are no reason to stop."""
_POWERS = tuple(10**places for places in range(10))
_BOOLEANS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def number_of(
    reading: Reading, frame: Frame, statement: Statement, index: int, low: int, high: int
) -> int | None:
    """Word ``index`` as an integer of [low, high]; None after reporting. The word must be there."""
    text = statement.texts[index]
    if text.isascii() and text.isdigit() and len(text) < 20:
        value, tail = int(text), ""
    else:
        found = _INTEGER.match(text)
        if found is None:
            _bad_number(reading, frame, statement, index, f"'{text}' is not a number", low, high)
            return None
        value, tail = int(found[1]), text[found.end() :]
    if not low <= value <= high:
        _bad_number(reading, frame, statement, index, f"{text} is outside {low} to {high}", low, high)
        return None
    if tail:
        reading.warning(
            "number-tail",
            f"'{tail}' after the number is ignored: {value} is used",
            frame,
            statement,
            index,
            remedy=f"write {value}",
        )
    return value


def _bad_number(
    reading: Reading, frame: Frame, statement: Statement, index: int, what: str, low: object, high: object
) -> None:
    keyword = statement.texts[0]
    reading.error(
        "bad-number",
        f"'{keyword}': {what}; the line is ignored",
        frame,
        statement,
        index,
        remedy=f"a number from {low} to {high}",
    )


def decimal_of(
    reading: Reading,
    frame: Frame,
    statement: Statement,
    index: int,
    low: int,
    high: int,
    places: int,
) -> int | None:
    """Word ``index`` as a decimal scaled by 10**places, as low and high are; None after reporting."""
    text = statement.texts[index]
    if text.isascii() and text.isdigit() and len(text) < 16:
        plain: int = int(text) * _POWERS[places]
        if low <= plain <= high:
            return plain
    found = _DECIMAL.match(text)
    whole, fraction = (found[1], found[2]) if found else ("", None)
    limits = _scaled(low, places), _scaled(high, places)
    if found is None or not (whole or fraction):
        _bad_number(reading, frame, statement, index, f"'{text}' is not a number", *limits)
        return None
    fraction = fraction or ""
    value = int((whole or "0") + fraction[:places].ljust(places, "0"))
    if len(fraction) > places:
        value += fraction[places] >= "5"
        reading.warning(
            "too-precise",
            f"{text} has more than {places} decimal places: {_scaled(value, places)} is used",
            frame,
            statement,
            index,
        )
    if not low <= value <= high:
        what = f"{text} is outside {limits[0]} to {limits[1]}"
        _bad_number(reading, frame, statement, index, what, *limits)
        return None
    if found.end() < len(text):
        reading.warning(
            "number-tail",
            f"'{text[found.end() :]}' after the number is ignored: {_scaled(value, places)} is used",
            frame,
            statement,
            index,
        )
    return value


def _scaled(value: int, places: int) -> str:
    """``value`` / 10**places as text without needless zeros."""
    whole, rest = divmod(value, 10**places)
    return f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".") if rest else str(whole)


def integer(
    low: int,
    high: int,
    *,
    unit: str = "",
    scale: int = 1,
    bare: int | None = None,
    least: int | None = None,
    most: int | None = None,
    soft: bool = False,
) -> Kind:
    """A whole number. ``scale`` multiplies it (seconds to microseconds); ``bare`` is the value without one.

    ``soft``: without a number the line is only ignored, not fatal (keepalived differs from word to word).

    ``least``, ``most``: a smaller or greater value within the limits becomes this one, and that is reported.
    keepalived takes what is greater as it stands, so its status is not touched.
    """

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            if bare is not None:
                return bare * scale
            reading.missing(frame, statement, "number", soft=soft)
            return NOTHING
        value = number_of(reading, frame, statement, 1, low, high)
        if value is None:
            return NOTHING
        if least is not None and value < least:
            keyword = statement.texts[0]
            reading.warning("too-small", f"'{keyword}' is at least {least}: it is used", frame, statement, 1)
            value = least
        if most is not None and value > most:
            keyword = statement.texts[0]
            told = f"'{keyword}' is at most {most}: it is used"
            reading.warning("too-great", told, frame, statement, 1, status=ExitStatus.OK)
            value = most
        return value * scale

    text = "integer" if bare is None else "[integer]"
    return Kind(text, read, unit, str(low), str(high), takes=1)


def decimal(
    low: int, high: int, *, places: int = 6, unit: str = "s", scale: int = 1, zero: int | None = None
) -> Kind:
    """A decimal, stored as an integer of 10**-places, times ``scale``: with the defaults, microseconds.

    ``low`` and ``high`` are in the stored precision before scaling. ``zero`` is used instead of 0, said.
    """

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, "number")
            return NOTHING
        value = decimal_of(reading, frame, statement, 1, low, high, places)
        if value is None:
            return NOTHING
        if value == 0 and zero is not None:
            used = _scaled(zero, places)
            reading.warning(
                "zero", f"'{statement.texts[0]}' cannot be 0: {used} is used", frame, statement, 1
            )
            value = zero
        return value * scale

    return Kind("decimal", read, unit, _scaled(low, places), _scaled(high, places), takes=1)


def seconds(low: int, high: int, *, least: int | None = None, soft: bool = False) -> Kind:
    """Whole seconds, stored as microseconds."""
    return integer(low, high, unit="s", scale=US_PER_SECOND, least=least, soft=soft)


def _set(value: object) -> Read:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) > 1 and _BOOLEANS.get(statement.texts[1]) is False:
            keyword = statement.texts[0]
            reading.warning(
                "flag-value",
                f"'{keyword}' takes no value: '{statement.texts[1]}' after it changes nothing",
                frame,
                statement,
                1,
                remedy=f"remove the line if '{keyword}' is not wanted",
                status=ExitStatus.OK,
            )
        return value

    return read


_AT_MOST = ("no word", "one word", "at most two words")


def ignored_words(reading: Reading, frame: Frame, statement: Statement, takes: int) -> None:
    """More words than mean something; keepalived says nothing of them. Many write ``alpha 1``: no mistake.

    They are not quoted: after ``auth_pass`` they may be the rest of a password.
    """
    text = statement.texts[takes + 1]
    if takes == 0 and (text in _BOOLEANS or text == "1"):
        return
    reading.warning(
        "extra-words",
        f"'{statement.texts[0]}' takes {_AT_MOST[takes]}; what stands after that is ignored",
        frame,
        statement,
        takes + 1,
        remedy="remove it, make it one word in quotes, a line of its own, or a comment (# …)",
        status=ExitStatus.OK,
    )


def flag(value: bool = True) -> Kind:
    """Present or not; a word after it that seems to switch it off does not, and that is said."""
    return Kind("flag", _set(value), takes=0)


def boolean() -> Kind:
    """A flag that may be followed by on/off/true/false/yes/no."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            return True
        value = _BOOLEANS.get(statement.texts[1])
        if value is None:
            reading.error(
                "bad-boolean",
                f"'{statement.texts[0]}': '{statement.texts[1]}' is not a truth value; ignored",
                frame,
                statement,
                1,
                remedy="on, off, true, false, yes or no",
            )
            return NOTHING
        return value

    return Kind("boolean", read, takes=1)


def word(what: str = "value", *, longest: int = 0, soft: bool = False) -> Kind:
    """One word. ``longest`` > 0: a longer one is refused. ``soft``: see :func:`integer`."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, what, soft=soft)
            return NOTHING
        text = statement.texts[1]
        if longest and len(as_bytes(text)) > longest:
            reading.error(
                "too-long", f"'{text}' is longer than {longest} characters; ignored", frame, statement, 1
            )
            return NOTHING
        return text

    return Kind(what, read, high=f"{longest} characters" if longest else "", takes=1)


def optional_word(what: str, bare: object) -> Kind:
    """One word, or ``bare`` without one."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        return statement.texts[1] if len(statement.texts) > 1 else bare

    return Kind(f"[{what}]", read, takes=1)


def words(what: str) -> Kind:
    """Every word after the keyword, at least one, as a tuple."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, what)
            return NOTHING
        return tuple(statement.texts[1:])

    return Kind(what, read)


def choice(*allowed: str, fold: bool = False) -> Kind:
    """One of the words listed; ``fold``: upper and lower case are the same."""
    known = {each.lower() if fold else each: each for each in allowed}

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement)
            return NOTHING
        text = statement.texts[1]
        value = known.get(text.lower() if fold else text)
        if value is None:
            reading.error(
                "bad-choice",
                f"'{statement.texts[0]}' cannot be '{text}'; the line is ignored",
                frame,
                statement,
                1,
                remedy="one of " + ", ".join(allowed),
            )
            return NOTHING
        return value

    return Kind(" / ".join(allowed), read, takes=1)


def address(what: str = "address") -> Kind:
    """One IPv4 or IPv6 address, as canonical text."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, what)
            return NOTHING
        value = parse_address(statement.texts[1])
        if value is None:
            reading.error(
                "bad-address",
                f"'{statement.texts[0]}': '{statement.texts[1]}' is not an address; ignored",
                frame,
                statement,
                1,
            )
            return NOTHING
        return value

    return Kind(what, read, takes=1)


def read_options(
    reading: Reading,
    frame: Frame,
    statement: Statement,
    start: int,
    options: dict[str, Row],
) -> dict[str, Any]:
    """The options of a line from word ``start`` on: field -> value. Unknown words are reported, skipped."""
    found: dict[str, Any] = {}
    words = statement.texts
    index = start
    while index < len(words):
        row = options.get(words[index])
        if row is None or row.kind.take is None:
            unknown_option(reading, frame, statement, index, options)
            index += 1
            continue
        if not row.acts and not frame.dormant:
            reading.dormant.setdefault((frame.block.path, row.name), statement)
        value, index = row.kind.take(reading, frame, statement, index)
        if value is not NOTHING:
            found[row.target] = value
    return found


def unknown_option(
    reading: Reading, frame: Frame, statement: Statement, index: int, options: dict[str, Row]
) -> None:
    text = statement.texts[index]
    near = nearest_known(text, tuple(options))
    reading.error(
        "unknown-option",
        f"unknown option '{text}'; it is ignored",
        frame,
        statement,
        index,
        remedy=f"did you mean '{near}'?" if near else "",
    )


def option_text(reading: Reading, frame: Frame, statement: Statement, index: int) -> str | None:
    """The word after the option at ``index``; None after reporting that there is none."""
    if index + 1 < len(statement.texts):
        return statement.texts[index + 1]
    reading.error("missing-value", f"'{statement.texts[index]}' lacks its value", frame, statement, index)
    return None


def option_word(what: str = "value", *, longest: int = 0) -> Kind:
    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        text = option_text(reading, frame, statement, index)
        if text is not None and longest and len(as_bytes(text)) > longest:
            reading.error(
                "too-long", f"'{text}' is longer than {longest} characters", frame, statement, index + 1
            )
            text = None
        return (NOTHING if text is None else text), index + 2

    return Kind(what, take=take, high=f"{longest} characters" if longest else "")


def option_integer(low: int, high: int, *, unit: str = "") -> Kind:
    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        if option_text(reading, frame, statement, index) is None:
            return NOTHING, index + 1
        value = number_of(reading, frame, statement, index + 1, low, high)
        return (NOTHING if value is None else value), index + 2

    return Kind("integer", take=take, unit=unit, low=str(low), high=str(high))


def option_flag() -> Kind:
    return Kind("flag", take=lambda reading, frame, statement, index: (True, index + 1))
