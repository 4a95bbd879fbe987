"""The second word grammar: values that are a command line or a regular expression.

keepalived reads such a statement twice more from its raw line: first it splits the line into words, where
single and double quotes group and a backslash keeps the next character from being a quote or a blank, but
nothing is removed except the quotes; then the second word, the value, is split again, now with escapes.
So ``notify "/bin/x 'a b'" root`` gives the command ``/bin/x``, ``a b`` and the user ``root``.
"""

import re

from msgspec import Struct

from kad.config.encoding import as_bytes, as_text
from kad.config.lexer import WHITE_SPACE

_STOP = {
    "": re.compile(f"[{WHITE_SPACE}'\"\\\\]"),
    '"': re.compile(r'["\\]'),
    "'": re.compile(r"['\\]"),
}
_ESCAPE = re.compile(r"x([0-9a-fA-F]{1,2})|c(.)|([0-7]{1,3})|(.)", re.DOTALL)
_CONTROL = {
    "a": "\a",
    "b": "\b",
    "E": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


class Unbalanced(Struct, frozen=True):
    """A value that cannot be split: what is missing, and where the open quote or the escape stands."""

    what: str
    position: int


def split_quoted(text: str, *, escapes: bool) -> list[str] | Unbalanced:
    """Words between white space; quotes of both kinds group and are removed, parts that touch are one word.

    With ``escapes``, within quotes too, ``\\n`` and the like become characters (an escape above 255 keeps its
    low eight bits); without them a backslash stays, and so does what follows it, quote or blank or not.
    """
    words: list[str] = []
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in WHITE_SPACE:
            position += 1
        if position == end:
            return words
        word = _word(text, position, escapes)
        if isinstance(word, Unbalanced):
            return word
        words.append(word[0])
        position = word[1]


def _word(text: str, position: int, escapes: bool) -> tuple[str, int] | Unbalanced:
    """One word from ``position`` on, and where it ends."""
    parts: list[str] = []
    quote, quote_position = "", 0
    while position < len(text):
        stop = _STOP[quote].search(text, position)
        if stop is None:
            if quote:
                break
            parts.append(text[position:])
            return _joined(parts), len(text)
        parts.append(text[position : stop.start()])
        position = stop.start()
        character = text[position]
        if character == "\\":
            if position + 1 == len(text):
                return Unbalanced("nothing follows the backslash", position)
            if escapes:
                escaped, position = _escape(text, position + 1)
                parts.append(escaped)
            else:
                parts.append(text[position : position + 2])
                position += 2
        elif quote:
            quote, position = "", position + 1
        elif character in "'\"":
            quote, quote_position, position = character, position, position + 1
        else:
            break
    if quote:
        return Unbalanced(f"the quote {quote} is not closed", quote_position)
    return _joined(parts), position


def _joined(parts: list[str]) -> str:
    """An escaped NUL ends the word, since no argument of a program can contain one."""
    return "".join(parts).partition("\0")[0]


def _escape(text: str, position: int) -> tuple[str, int]:
    """The character of an escape whose text begins after the backslash, and where it ends."""
    match = _ESCAPE.match(text, position)
    assert match is not None
    hexadecimal, control, octal, other = match.groups()
    if hexadecimal is not None:
        return _byte(int(hexadecimal, 16)), match.end()
    if control is not None:
        return _byte(ord(control) & 0x1F), match.end()
    if octal is not None:
        return _byte(int(octal, 8) & 0xFF), match.end()
    return _CONTROL.get(other, other), match.end()


def _byte(value: int) -> str:
    """A byte as files are read: those that are not ASCII are surrogate escapes."""
    return chr(value) if value < 0x80 else chr(0xDC00 + value)


class ScriptWords(Struct, frozen=True):
    """A statement with a script value: the command line as argv, and the words after it (user, group …)."""

    arguments: list[str]
    rest: list[str]


def split_script(raw: str) -> ScriptWords | Unbalanced:
    """The value of a script keyword from the raw text after the keyword.

    ``arguments`` is empty when there is no value, or an empty one.
    """
    words = split_quoted(raw, escapes=False)
    if isinstance(words, Unbalanced):
        return words
    if not words:
        return ScriptWords([], [])
    arguments = split_quoted(words[0], escapes=True)
    if isinstance(arguments, Unbalanced):
        return Unbalanced(f"{arguments.what} within the value", 0)
    return ScriptWords([as_text(each) for each in arguments], words[1:])


def split_regex(raw: str) -> list[str] | Unbalanced:
    """The words after a keyword whose value is one string with escapes, such as ``regex``.

    Bytes that are no text stay escapes: a pattern matches those bytes, and not the letter they may be.
    """
    words = split_quoted(raw, escapes=True)
    if isinstance(words, Unbalanced):
        return words
    return [as_bytes(each).decode("utf-8", "backslashreplace") for each in words]
