"""``-d``: the configuration as it was understood, as lines for the log. Secrets are not shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from kad.dumps.wording import MASKED

if TYPE_CHECKING:
    from kad.config.model.config import Config

INDENT = "  "


def dump(config: Config) -> tuple[str, ...]:
    """What differs from the defaults, a value a line."""
    lines: list[str] = []
    for part in ("globals", "vrrp", "check", "bfd"):
        lines.append(f"------< {part} >------")
        lines += _lines(getattr(config, part), 0)
    return tuple(lines)


def _lines(value: Struct, depth: int) -> Iterator[str]:
    for field in msgspec.structs.fields(value):
        content = getattr(value, field.name)
        if content != field.default:
            yield from _named(field.name, content, depth)


def _named(name: str, value: Any, depth: int) -> Iterator[str]:
    pad = INDENT * depth
    if isinstance(value, Struct):
        yield f"{pad}{name}:"
        yield from _lines(value, depth + 1)
    elif isinstance(value, bytes):
        # Bytes in a configuration are keys and passwords.
        yield f"{pad}{name} = {MASKED}"
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named(f"{name}[{key}]", each, depth)
    elif isinstance(value, tuple | list) and any(isinstance(each, Struct) for each in value):
        for each in value:
            yield from _named(name, each, depth)
    elif isinstance(value, tuple | list):
        yield f"{pad}{name} = {' '.join(map(str, value))}"
    else:
        yield f"{pad}{name} = {value}"
