"""The journal's records of what is not an instance: trackers and sync groups, by key. Pure."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from kad_vrrp.core.actions import ForgetObject, RememberObject

RecordType = TypeVar("RecordType", bound=Struct)


class ObjectRecords:
    """What is in the journal, so that only news is written. ``found``: what a former life has left."""

    def __init__(
        self, emit: Callable[[RememberObject | ForgetObject], None], found: Mapping[str, bytes]
    ) -> None:
        self._emit = emit
        self._written = dict(found)
        self._former = set(found)

    def recall(self, key: str, kind: type[RecordType]) -> RecordType | None:
        """A former life's record; None when there is none, or none that can be read."""
        if key not in self._former:
            return None
        self._former.discard(key)
        try:
            return msgspec.msgpack.decode(self._written[key], type=kind)
        except msgspec.MsgspecError:
            return None

    def remember(self, key: str, record: Struct) -> None:
        """Write it, if it is news."""
        self._former.discard(key)
        data = msgspec.msgpack.encode(record)
        if self._written.get(key) != data:
            self._written[key] = data
            self._emit(RememberObject(key, data))

    def forget(self, key: str) -> None:
        self._former.discard(key)
        if self._written.pop(key, None) is not None:
            self._emit(ForgetObject(key))

    def forget_former(self) -> None:
        """What nobody has asked for is nobody's any more."""
        for key in sorted(self._former):
            self.forget(key)

    def forget_all(self) -> None:
        for key in sorted(self._written):
            self.forget(key)
