"""PCRE2 patterns for Python's ``re``: the few spellings that differ are translated. Pure.

Not translated, and refused: recursion, callouts, conditions on anything but a group, branch resets, verbs,
the escapes K, X, C, G, g, p, c, o and V, options that are set in the middle or taken back, and look-behinds
whose branches are of different lengths. Options about speed, names or captures change nothing about whether
there is a match and are accepted without effect; so is ``ungreedy``.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

_FLAGS = {"caseless": re.I, "multiline": re.M, "dotall": re.S, "extended": re.X}
_TEXT = ("utf", "ucp")
"""With these the body is text; without, bytes."""

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7f",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t-\\r",
    "upper": "A-Z",
    "word": "0-9A-Z_a-z",
    "xdigit": "0-9A-Fa-f",
}
_ESCAPES = {
    "z": "\\Z",
    "Z": "(?=\\n?\\Z)",
    "h": "[ \\t]",
    "H": "[^ \\t]",
    "N": "[^\\n]",
    "R": "(?:\\r\\n|[\\n-\\r])",
    "e": "\\x1b",
}
_REFUSED = set("KXCGgpP")
_TOKEN = re.compile(
    r"""\\Q(?P<quoted>.*?)(?:\\E|$)
    | \\k(?:<(?P<k1>\w+)>|'(?P<k2>\w+)'|\{(?P<k3>\w+)\})
    | \\x\{(?P<code>[0-9A-Fa-f]{1,6})\}
    | \\(?P<escape>.)
    | \(\?(?:<(?P<n1>[A-Za-z_]\w*)>|'(?P<n2>[A-Za-z_]\w*)')
    | \[:(?P<inverted>\^?)(?P<posix>[a-z]+):\]
    | (?P<bracket>\[\^?\]?)
    | (?P<closing>\])
    | (?P<dollar>\$)
    | (?P<bad>\(\?(?:R|\||[0-9+&]|P>|C|\((?:R|DEFINE|\?)) | \(\*)
    """,
    re.X | re.S,
)


def compile_pattern(text: str, options: tuple[str, ...]) -> re.Pattern[Any]:
    """For bytes, or for text with the options utf or ucp. Raises ValueError, saying why."""
    as_text = any(option in _TEXT for option in options)
    flags: int = re.ASCII if as_text and "ucp" not in options else 0
    for option in options:
        flags |= _FLAGS.get(option, 0)
    translated = translate(text, end_only="dollar_endonly" in options and "multiline" not in options)
    try:
        with warnings.catch_warnings():
            # What Python says of "[a--b]" is nothing for whoever runs kad.
            warnings.simplefilter("ignore")
            return re.compile(translated if as_text else translated.encode(), flags)
    except (re.error, OverflowError, RecursionError, UnicodeError) as error:
        raise ValueError(f"the pattern cannot be used: {error}") from None


def translate(text: str, *, end_only: bool = False) -> str:
    """PCRE2's spelling in Python's; ``end_only``: $ is the very end. Raises ValueError."""
    parts: list[str] = []
    at, in_class = 0, False
    for found in _TOKEN.finditer(text):
        if found.start() < at:
            continue
        parts.append(text[at : found.start()])
        at = found.end()
        kind = found.lastgroup
        if kind == "bracket":
            if in_class:
                # Within a class it is a character; what follows it may mean something again.
                parts.append("\\[")
                at = found.start() + 1
                continue
            in_class = True
            parts.append(found[0])
        elif kind == "closing":
            in_class = False
            parts.append("]")
        else:
            parts.append(_translated(found, in_class, end_only))
    parts.append(text[at:])
    return "".join(parts)


def _translated(found: re.Match[str], in_class: bool, end_only: bool) -> str:
    groups = found.groupdict()
    if groups["quoted"] is not None:
        return re.escape(groups["quoted"])
    if groups["escape"] is not None:
        return _escape(groups["escape"], found[0], in_class)
    if groups["code"] is not None:
        return _code(int(groups["code"], 16))
    if groups["posix"] is not None:
        return _posix(groups["posix"], groups["inverted"], in_class, found[0])
    if in_class:
        return found[0]
    if groups["dollar"] is not None:
        return "\\Z" if end_only else "$"
    if groups["bad"] is not None:
        raise ValueError(f"the pattern cannot be used: '{found[0]}' is not supported")
    name = groups["k1"] or groups["k2"] or groups["k3"]
    if name is not None:
        return f"(?P={name})"
    return f"(?P<{groups['n1'] or groups['n2']}>"


def _escape(letter: str, written: str, in_class: bool) -> str:
    if letter in _REFUSED:
        raise ValueError(f"the pattern cannot be used: '{written}' is not supported")
    if not in_class:
        return _ESCAPES.get(letter, written)
    return {"h": " \\t", "e": "\\x1b"}.get(letter, written)


def _code(code: int) -> str:
    if code > 0x10FFFF:
        raise ValueError("the pattern cannot be used: a code point beyond Unicode")
    return f"\\x{code:02x}" if code < 0x100 else re.escape(chr(code))


def _posix(name: str, inverted: str, in_class: bool, written: str) -> str:
    if not in_class:
        return written
    if inverted or name not in _CLASSES:
        raise ValueError(f"the pattern cannot be used: '{written}' is not supported")
    return _CLASSES[name]
