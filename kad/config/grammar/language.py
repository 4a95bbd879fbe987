"""The language around the keywords: what :mod:`kad.config.text` acts on before any keyword has a meaning.

These rows drive nothing; they are here so that the list of what may stand in a file is whole.
"""

from kad.config.schema import ALL, Block, Kind, Row

_TEXT = Kind("text")


def _row(name: str, kind: str, help: str, *, default: str = "", low: str = "", high: str = "") -> Row:
    return Row(name, Kind(kind, low=low, high=high), help, acts=True, roles=ALL, default=default)


def _include(name: str, help: str) -> Row:
    return _row(name, "pattern of paths", help)


LANGUAGE = Block(
    "(parser)",
    (
        _include("include", "Read these files here; what cannot be read is only said."),
        _include("includer", "The same; a file that cannot be read is an error."),
        _include("includem", "As includer; a plain name without a file is an error too."),
        _include("includew", "As includem; a pattern without a match is an error too."),
        _include("includeb", "As includer; each alternative in braces needs a match."),
        _include("includea", "All of these."),
        _row("#", "comment", "To the end of the line, outside double quotes; \\# is the character."),
        _row("!", "comment", "To the end of the line, outside double quotes; \\! is the character."),
        _row("\\ (line end)", "continuation", "The definition goes on in the next line; nothing else does."),
        _row("{ }", "braces", "Enclose a block; each ends the statement before it."),
        _row('"..."', "quoted word", "Blanks within it do not separate words; nothing is escaped."),
        _row(
            "'...' and \"...\" (script keywords)",
            "quoted words",
            "Commands have both quotes and escapes; adjacent parts are one word.",
        ),
        _row(
            "escapes",
            "\\a \\b \\E \\f \\n \\r \\t \\v \\nnn \\xHH \\cC",
            "In commands and regular expressions.",
        ),
        _row(
            "@ID",
            "condition",
            "The line counts where the configuration id is ID.",
            default="-i, else the host's name",
        ),
        _row("@^ID", "condition", "The line counts where the configuration id is another."),
        _row(
            "$NAME=value", "definition", "Gives text a name; expanded where it is used, so it may use others."
        ),
        _row(
            "$NAME",
            "reference",
            "Expanded before a blank, a comma, a closing parenthesis and at the end of the line.",
        ),
        _row("${NAME}", "reference", "Expanded anywhere in a line."),
        _row("${_PWD}", "reference", "Directory of the file being read."),
        _row("${_INSTANCE}", "reference", "The configuration id."),
        _row("${_RANDOM [MIN [MAX]]}", "reference", "A random whole number.", default="0 to 32767", low="0"),
        _row("${_ENV VAR}", "reference", "Value of an environment variable."),
        _row("${_HASH}", "reference", "The character #.", default="#"),
        _row("${_BANG}", "reference", "The character !.", default="!"),
        _row(
            "~SEQ(var,[start,[step,]]end)",
            "loop",
            "Repeats the rest of the line, counting.",
            default="start 1 or -1, step 1 or -1",
        ),
        _row("~SEQx(...)", "loop", "The same in hexadecimal.", low="0"),
        _row(
            "~LST(var,v1,...) / ~LST({a,b},{1,2},...)",
            "loop",
            "Repeats the rest of the line over values or tuples.",
        ),
        _row("BOOL", "type", "on, off, true, false, yes, no; a keyword that may have one is on without it."),
        _row("line length", "limit", "A longer line is ignored.", high="1024 characters with the end"),
    ),
    roles=ALL,
)
