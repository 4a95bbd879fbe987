"""docs/keywords.md: every keyword, made from the rows; ``python -m kad.config.keywords_page`` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from kad.config.assemble import defaults
from kad.config.build import blocks
from kad.config.grammar.language import LANGUAGE
from kad.config.grammar.root import ROOT
from kad.config.grammar.routes import ENCAP
from kad.config.model.vrrp import VrrpInstance, VrrpSettings
from kad.config.schema import ALL, Block, Row
from kad.ipc.messages import Role

_HEAD = """# Keywords

Every keyword of `keepalived.conf` that kad knows, by the block it stands in. This page is made from the
grammar (`python -m kad.config.keywords_page`); a test holds it to be current.

**Acts**: *yes*: kad does what it says. *not yet*: it is read and checked, and kad says at start that it has
no effect. **For**: the process it concerns.

"""
_COLUMNS = (
    "| Keyword | Value | Unit | Range | Default | Acts | For | Meaning |\n|---|---|---|---|---|---|---|---|\n"
)
_SECONDS = {"s": 1_000_000, "ms": 1_000}


def entries(block: Block) -> Iterator[tuple[str, Row, Block]]:
    """(path, row, block) of a block's keywords, its items, and the words within their lines."""
    for row in block.rows:
        yield block.path, row, block
        for option in row.kind.options:
            yield f"{block.path}/{row.name}", option, block
    if block.item is not None:
        yield block.path, block.item, block
        for option in block.item.kind.options:
            yield block.path, option, block
            for inner in option.kind.options:
                yield ENCAP.path, inner, block


def page() -> str:
    """The whole page as Markdown."""
    tables: dict[str, dict[str, str]] = {}
    for block in (LANGUAGE, *blocks(ROOT)):
        for path, row, owner in entries(block):
            tables.setdefault(path, {}).setdefault(row.name, _line(row, owner))
    parts = [_HEAD]
    for path, rows in tables.items():
        title = {"(root)": "Top level", LANGUAGE.path: "The language"}.get(path, path)
        parts.append(f"## {title}\n\n{_COLUMNS}{''.join(rows.values())}\n")
    return "".join(parts).rstrip("\n") + "\n"


def _line(row: Row, block: Block) -> str:
    kind = row.kind
    span = f"{kind.low} – {kind.high}" if kind.low and kind.high else kind.high or kind.low
    meaning = row.help
    if row.alias_of:
        meaning = f"Same as `{row.alias_of}`."
    if row.deprecated:
        meaning += f" Deprecated: {row.deprecated}."
    acts = "yes" if row.acts else "not yet"
    cells = (
        f"`{_cell(row.name)}`",
        kind.text,
        kind.unit,
        span,
        _default(row, block),
        acts,
        _roles(row, block),
        meaning,
    )
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _cell(text: str) -> str:
    return (
        text.replace("|", "\\\\|").replace("<", "&lt;")
        if not text.startswith("`")
        else text.replace("|", "\\\\|")
    )


def _roles(row: Row, block: Block) -> str:
    roles = row.roles or (row.kind.block.roles if row.kind.block is not None else block.roles)
    if roles == ALL:
        return "all"
    return ", ".join("daemon" if role is Role.CONTROL else str(role.value) for role in roles)


def _default(row: Row, block: Block) -> str:
    """What the row says, else what the model says."""
    if row.default:
        return row.default
    model: type[Struct] | None = block.model
    field = row.target
    for prefix, other in (("instance.", VrrpInstance), ("settings.", VrrpSettings)):
        if field.startswith(prefix):
            model, field = other, field.removeprefix(prefix)
    return "" if model is None else _shown(_model_default(model, field), row)


def _model_default(model: type[Struct], field: str) -> Any:
    value: Any = dict(defaults(model))
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if isinstance(value, Struct):
            value = msgspec.structs.asdict(value)
    return value


def _shown(value: Any, row: Row) -> str:
    if value is None or value == "" or value == () or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and row.target.endswith("_us"):
        return f"{value / _SECONDS.get(row.kind.unit, 1):g}"
    return str(value)


if __name__ == "__main__":
    print(page(), end="")
