"""Lines to pieces: comments, words and braces of one line, as keepalived reads them.

Only blank, tab, form feed, new line, carriage return and vertical tab are white space, whatever Unicode
thinks of others; at the ends of a line only blanks and tabs are dropped.
"""

import re

WHITE_SPACE = " \t\f\n\r\v"
BLANKS = " \t"

find_special = re.compile(r"[^\t\x0b\x0c %&'()*+,\-./0-9:;<=>?A-Z\[\]^_`a-z|]").search
"""Finds a character that may need more than splitting at white space; most lines have none."""

_WORD = re.compile(r'"([^"]*)"|([^ \t\f\n\r\v"]+)|"')
_UNQUOTED_WORDS = re.compile(r"[^ \t\f\n\r\v]+").findall
_COMMENT_STOP = re.compile(r'[!#"\\]')
_BRACE_STOP = re.compile(r'[{}"]|\$\{[^{}"]*\}')
_QUOTED = re.compile(r'"[^"]*(?:"|\Z)')
_REFERENCE = re.compile(r'\$\{([^{}"]*)\}')


def decomment(line: str) -> tuple[str, bool, int]:
    """A line without comment and outer blanks; whether text was unescaped; where an unpaired quote stands.

    ``#`` and ``!`` start a comment outside double quotes; ``\\#`` and ``\\!`` outside them stand for the
    character itself. A backslash before anything else stays and hides what follows it from the search for
    quotes. The third value is an index into the result, or -1.

    keepalived reads its text twice and so loses ``\\#`` in its children; kad keeps the documented meaning.
    """
    text = line.strip(BLANKS)
    position = 0
    quote = -1
    unescaped = False
    while (stop := _COMMENT_STOP.search(text, position)) is not None:
        position = stop.start()
        character = text[position]
        if character == '"':
            quote = position if quote < 0 else -1
        elif character == "\\":
            follower = text[position + 1 : position + 2]
            if not follower:
                # keepalived takes the blanks before it away, so that it hangs on to the last word
                joined = text[:-1].rstrip(BLANKS) + "\\"
                return joined, unescaped or joined != text, quote
            if quote < 0 and follower in "#!":
                text = text[:position] + text[position + 1 :]
                unescaped = True
            else:
                position += 1
        elif quote < 0:
            text = text[:position].rstrip(BLANKS)
            break
        position += 1
    return text, unescaped, quote


def split_words(text: str) -> list[str]:
    """Words of the ordinary grammar: white space separates, double quotes group, nothing is escaped.

    A quote begins a new word wherever it stands. What follows a quote without a partner is dropped.
    """
    if '"' not in text:
        return _UNQUOTED_WORDS(text)
    return [word for word, _, _, _ in locate_words(text)]


def locate_words(text: str) -> list[tuple[str, int, int, bool]]:
    """The words of :func:`split_words`, each as (text, start, length in the text, quoted)."""
    found = []
    for match in _WORD.finditer(text):
        if match[2] is not None:
            found.append((match[2], match.start(), match.end() - match.start(), False))
        elif match[1] is not None:
            found.append((match[1], match.start(), match.end() - match.start(), True))
        else:
            break
    return found


def first_brace(text: str) -> int:
    """Index of the first brace that ends a statement: any outside double quotes; -1 when there is none.

    A quote without a partner hides the rest of the line. The braces of ``${NAME}`` do not count: where such
    a reference is left, its definition is missing (keepalived tears the blocks apart there).
    """
    position = 0
    while (stop := _BRACE_STOP.search(text, position)) is not None:
        position = stop.start()
        if text[position] == "$":
            position = stop.end()
        elif text[position] != '"':
            return position
        else:
            position = text.find('"', position + 1) + 1
            if position == 0:
                return -1
    return -1


def first_reference(text: str) -> str | None:
    """What stands between the braces of the first ``${…}`` outside double quotes."""
    if "${" not in text:
        return None
    match = _REFERENCE.search(_QUOTED.sub(" ", text))
    return match[1] if match is not None else None
