"""A configuration as text, for ``-d`` and for people: what was said, resolved; secrets are masked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from kad.config.assemble import defaults
from kad.config.model.config import Config
from kad.config.model.script import ScriptCommand

MASK = "********"
_SECRETS = frozenset({"auth_pass", "value", "password"})
_INDENT = "  "


def lines(config: Config) -> Iterator[str]:
    """Every object with the fields that differ from their defaults, one a line, nested by indentation."""
    for name in Config.__struct_fields__:
        part = getattr(config, name)
        found = list(_fields(part, 1))
        if found:
            yield f"{name}:"
            yield from found


def _fields(value: Struct, depth: int) -> Iterator[str]:
    usual = defaults(type(value))
    for name in value.__struct_fields__:
        inner = getattr(value, name)
        if name not in usual or inner != usual[name]:
            yield from _entry(name, inner, depth)


def _entry(name: str, value: Any, depth: int) -> Iterator[str]:
    margin = _INDENT * depth
    if isinstance(value, ScriptCommand):
        yield f"{margin}{name}: {_plain(value)}"
    elif isinstance(value, Struct):
        yield f"{margin}{name}:"
        yield from _fields(value, depth + 1)
    elif isinstance(value, tuple) and value and isinstance(value[0], Struct):
        for each in value:
            yield from _entry(f"{name}[]", each, depth)
    else:
        yield f"{margin}{name}: {MASK if name in _SECRETS and value else _plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, ScriptCommand):
        words = " ".join(f"'{each}'" for each in value.argv)
        return f"{words} as {value.uid}:{value.gid}"
    if isinstance(value, tuple):
        return ", ".join(_plain(each) for each in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
