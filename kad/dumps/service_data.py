"""keepalived_check.data and keepalived_bfd.data: what these processes tell of themselves, a value a line.

The titles are keepalived's; the lines are kad's own, as nothing is known to read those of keepalived.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from kad.ipc.reports import BfdReport, CheckReport


def check_text(report: CheckReport) -> str:
    return _text("------< LVS Topology >------", report)


def bfd_text(report: BfdReport) -> str:
    return _text("------< BFD Topology >------", report)


def _text(title: str, report: Struct) -> str:
    return "".join(f"{line}\n" for line in (title, *_lines(msgspec.to_builtins(report), 1)))


def _lines(value: dict[str, Any], depth: int) -> Iterator[str]:
    pad = " " * (2 * depth - 1)
    for name, content in value.items():
        if isinstance(content, dict):
            yield f"{pad}{name} :"
            yield from _lines(content, depth + 1)
        elif isinstance(content, list | tuple) and content and isinstance(content[0], dict):
            for each in content:
                yield f"{pad}{name} :"
                yield from _lines(each, depth + 1)
        else:
            yield f"{pad}{name} = {content}"
