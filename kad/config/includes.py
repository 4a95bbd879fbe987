"""What of an ``include`` is checked: the six kinds of the keyword, and ``include_check``."""

from collections.abc import Iterable
from enum import Flag


class IncludeCheck(Flag):
    """What makes a finding about included files an error (``include_check`` and the include variants)."""

    NOTHING = 0
    READ = 1
    MATCH = 2
    WILDCARD_MATCH = 4
    BRACE_MATCH = 8
    ALL = 15


INCLUDES = {
    "include": IncludeCheck.NOTHING,
    "includer": IncludeCheck.READ,
    "includem": IncludeCheck.READ | IncludeCheck.MATCH,
    "includew": IncludeCheck.READ | IncludeCheck.MATCH | IncludeCheck.WILDCARD_MATCH,
    "includeb": IncludeCheck.READ | IncludeCheck.BRACE_MATCH,
    "includea": IncludeCheck.ALL,
}
_CHECK_NAMES = {
    "read": IncludeCheck.READ,
    "match": IncludeCheck.MATCH,
    "wildcard_match": IncludeCheck.WILDCARD_MATCH,
    "brace_match": IncludeCheck.BRACE_MATCH,
}


def changed_check(current: IncludeCheck, words: Iterable[str]) -> IncludeCheck:
    """The checks after an ``include_check``: a bare name sets, ``+name`` adds, ``-name`` removes."""
    names = list(words)
    if not names:
        return IncludeCheck.ALL
    for index, name in enumerate(names):
        check = _CHECK_NAMES.get(name.lstrip("+-"))
        if name.startswith("-"):
            current &= ~(check or IncludeCheck.NOTHING)
        elif name.startswith("+"):
            current |= check or IncludeCheck.NOTHING
        elif index == 0:
            current = IncludeCheck.READ | check if check else IncludeCheck.NOTHING
    return current
