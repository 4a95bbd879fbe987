"""Raw fields to model Structs, whose defaults stand in the model alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

_S = TypeVar("_S", bound=Struct)


@cache
def defaults(model: type[Struct]) -> Mapping[str, Any]:
    """Field -> default, for the fields that have one."""
    names, values = model.__struct_fields__, model.__struct_defaults__
    return MappingProxyType(dict(zip(names[len(names) - len(values) :], values, strict=True)))


@cache
def _known(model: type[Struct]) -> frozenset[str]:
    return frozenset(model.__struct_fields__)


def assemble(model: type[_S], fields: dict[str, Any], **required: Any) -> _S:
    """``model`` from raw fields. ``a.b`` fills field b of the Struct a; unknown names are left out.

    What equals a default becomes the default itself: slices leave out those, and nothing else, quickly.
    """
    known = _known(model)
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in fields.items():
        head, dot, rest = name.partition(".")
        if head not in known:
            continue
        if dot:
            nested.setdefault(head, {})[rest] = value
        else:
            plain[name] = tuple(value) if isinstance(value, list) else value
    base = defaults(model)
    for head, inner in nested.items():
        plain[head] = msgspec.structs.replace(plain.get(head, base[head]), **inner)
    plain.update(required)
    return model(**{name: value for name, value in plain.items() if name not in base or value != base[name]})
