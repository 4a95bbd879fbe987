"""Bytes of a configuration that are no UTF-8, made text: most often ISO 8859-1, from older machines.

While a file is read such bytes are surrogate escapes, so that a password is on the wire what it is in the
file. Whatever is text is told from process to process, and has to be UTF-8.
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec
from msgspec import Struct

_AS_ISO_8859_1 = "kad.as_iso_8859_1"


def _decode_rest(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("iso8859-1"), error.end


codecs.register_error(_AS_ISO_8859_1, _decode_rest)


def as_bytes(word: str) -> bytes:
    """What the file has."""
    return word.encode("utf-8", "surrogateescape")


def as_text(word: str) -> str:
    """Escaped bytes that are UTF-8 together are what they mean, others what ISO 8859-1 has in their place."""
    return as_bytes(word).decode("utf-8", _AS_ISO_8859_1)


def in_text(value: Any) -> Any:
    """The same value, with all words in it as text."""
    kind = type(value)
    if kind is str:
        return as_text(value)
    if isinstance(value, Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        changed = {name: in_text(each) for name, each in fields.items()}
        return msgspec.structs.replace(value, **changed) if changed != fields else value
    if kind is dict:
        return {in_text(key): in_text(each) for key, each in value.items()}
    if kind in (list, tuple, set, frozenset):
        return kind(map(in_text, value))
    assert not isinstance(value, tuple | list | dict), f"{kind} may hold words"
    return value
