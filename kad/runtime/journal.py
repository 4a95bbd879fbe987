"""What outlives a child: heartbeats and fixed records in memory that all processes share.

The supervisor creates one memfd before the first fork and every process maps it (sparse: a slot never
written costs nothing). It holds one page of heartbeats a role and one area of records a role. A record is
written before the act it describes, so that the next life of a child knows what may have been done.

Each area has exactly one writer, the living child of that role. A store made by a process that is then
killed stays, and stores are seen in program order; so the layout only has to survive a writer that stops
between any two bytes. It does: a slot holds two copies of its record, the older one is overwritten, and a
copy counts only when its checksum (which covers its sequence number) is right. A value too long for a copy
lies in further slots, which are written before the copy that names them and not used again before that copy
is replaced.

Everything read is checked; what does not check is as if it were not there, and is counted in ``corrupt``.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from struct import Struct as Layout

from msgspec import Struct

from kad.ipc.messages import Role
from kad.runtime.heartbeat import Heartbeat

PAGE = 4096
MAGIC = 0x6B61644A
KEY_LIMIT = 200
"""Bytes in UTF-8 of a key that has its own place. A longer one stands before the value."""
VALUE_LIMIT = 256 * 1024
"""Bytes of one value, with what stands before it."""


class Area(Struct, frozen=True):
    """The room of one role: how many slots of how many bytes."""

    slots: int
    slot_size: int

    @property
    def size(self) -> int:
        return PAGE + -(-self.slots * self.slot_size // PAGE) * PAGE


AREAS: dict[Role, Area] = {
    Role.CONTROL: Area(slots=256, slot_size=2048),
    Role.VRRP: Area(slots=65_536, slot_size=2048),
    Role.CHECK: Area(slots=131_072, slot_size=512),
    Role.BFD: Area(slots=16_384, slot_size=1024),
}


class Stamp(Struct, frozen=True):
    """A record's hot field: when its instance last transmitted, by two clocks.

    Whoever resumes from it must see that both lie in the past and that the clocks have not drifted apart.
    """

    boottime_us: int
    monotonic_us: int


# A slot:  kind u64 | stamp cell 0 | stamp cell 1 | copy 0 | copy 1        (all little-endian)
# A copy:  sequence u64 | crc u32 | value length u32 | value crc u32 | key length u16 | chunk count u16
#          | key | value; with chunk count > 0, slot numbers (u32 each) stand in place of the value.
# A chunk: kind u64 | bytes of the value
# A key with no place of its own: one zero byte there, and length u32 | key before the value.
# An area's first page: magic u64 | slots u64 | slot size u64 | slots ever used u64, twice
_AREA_HEADER = Layout("<QQQQQ")
_HIGH_WATER_AT = 24
_WORD = Layout("<Q")
_CELL = Layout("<QQQ")
_COPY = Layout("<QIIIHH")
_SEQUENCE_SIZE = 8
_COPY_CHECKED = Layout("<QIIIHH")
_INDEX = Layout("<I")
_KIND_FREE, _KIND_HEAD, _KIND_CHUNK = 0, 0x44414548, 0x4B4E4843
_CELL_CHECK = 0x5354_414D_505F_4F4B
_CELLS_AT = _WORD.size
_COPIES_AT = _CELLS_AT + 2 * _CELL.size
_NO_STAMPS = bytes(2 * _CELL.size)
_NO_COPY = bytes(_COPY.size)
_IN_VALUE = b"\0"
"""In a key's place: the key stands before the value. No name in a configuration holds it."""
_KEY_LENGTH = Layout("<I")


class _Head:
    """What the writer remembers of one record."""

    __slots__ = ("chunks", "copy", "sequence", "slot", "stamp_cell")

    def __init__(self, slot: int, copy: int, sequence: int, chunks: list[int]) -> None:
        self.slot = slot
        self.copy = copy
        self.sequence = sequence
        self.chunks = chunks
        self.stamp_cell = -1


class _Copy(Struct, frozen=True):
    """A copy that checked, its value put together."""

    sequence: int
    key: str
    value: bytes
    chunks: list[int]


class Records:
    """A crash-atomic store of byte strings by key, one role's. Call :meth:`load` first, once a life."""

    def __init__(self, memory: memoryview, area: Area) -> None:
        self._memory = memory
        self._area = area
        self._copy_size = (area.slot_size - _COPIES_AT) // 2
        self._chunk_size = area.slot_size - _WORD.size
        self._heads: dict[str, _Head] = {}
        self._free: list[int] = []
        self._high_water = 0
        self._header_ok = False
        self._loaded = False
        self.corrupt = 0
        """Things found in the area that did not check."""
        self.refused = 0
        """Writes that found no room (their key has no record now)."""

    def load(self) -> dict[str, bytes]:
        """Everything that was written and not deleted. Never raises, whatever the memory holds.

        While another life writes it may be called as often as one likes: the last call counts.
        """
        self._heads.clear()
        self.corrupt = 0
        self._high_water = self._read_high_water()
        values: dict[str, bytes] = {}
        for slot in range(self._high_water):
            self._load_slot(slot, values)
        used = {head.slot for head in self._heads.values()}
        for head in self._heads.values():
            used.update(head.chunks)
        # Ascending use from the low end keeps the touched pages few.
        self._free = [slot for slot in range(self._high_water - 1, -1, -1) if slot not in used]
        self._loaded = True
        return values

    def stamp_of(self, key: str) -> Stamp | None:
        """The stamp :meth:`load` found with this key, or the last one given to :meth:`stamp`."""
        head = self._heads.get(key)
        if head is None:
            return None
        return self._read_stamp(head.slot)[0]

    def write(self, key: str, value: bytes) -> bool:
        """Replace the key's value, whole or not at all. A kill at any point leaves the old or the new one.

        False when there is no room or it is too long: then the old value, which would be a lie, is deleted.
        """
        if not self._loaded:
            self.load()
        encoded = key.encode()
        head = self._heads.get(key)
        placed = self._place(encoded, value, is_new=head is None)
        if placed is None:
            encoded, value = _moved_into_value(encoded, value)
            placed = self._place(encoded, value, is_new=head is None)
        if placed is None:
            self.delete(key)
            self.refused += 1
            return False
        content, chunks = placed
        if head is not None:
            self._write_copy(head, encoded, value, content, len(chunks))
            self._free.extend(reversed(head.chunks))
            head.chunks = chunks
            return True
        self._heads[key] = self._create_head(encoded, value, content, chunks)
        return True

    def rehearse(self) -> None:
        """Write one record again, as it is: the next that is written, in a moment, finds everything ready."""
        for key, head in self._heads.items():
            # One in chunks might find no room.
            copy = None if head.chunks else self._read_copy(head.slot, head.copy)
            if copy is not None:
                self.write(key, copy.value)
            return

    def stamp(self, key: str, boottime_us: int, monotonic_us: int) -> None:
        """Write the record's stamp in place; the copies are not touched. Unknown key: nothing happens."""
        head = self._heads.get(key)
        if head is None:
            return
        if head.stamp_cell < 0:
            head.stamp_cell = self._read_stamp(head.slot)[1]
        # Alternating cells: a kill between two bytes leaves the other cell, one transmission older.
        head.stamp_cell ^= 1
        check = boottime_us ^ monotonic_us ^ _CELL_CHECK
        at = self._at(head.slot) + _CELLS_AT + head.stamp_cell * _CELL.size
        self._store(at, _CELL.pack(boottime_us, monotonic_us, check))

    def delete(self, key: str) -> None:
        """Forget the key. Unknown key: nothing happens."""
        if not self._loaded:
            self.load()
        head = self._heads.pop(key, None)
        if head is None:
            return
        self._store(self._at(head.slot), _WORD.pack(_KIND_FREE))
        self._free.extend(head.chunks)
        self._free.append(head.slot)

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._heads) if self._loaded else list(self.load()):
            self.delete(key)

    # Reading ---------------------------------------------------------------------------------------------

    def _read_high_water(self) -> int:
        magic, slots, slot_size, *high_water = _AREA_HEADER.unpack_from(self._memory, 0)
        self._header_ok = (magic, slots, slot_size) == (MAGIC, self._area.slots, self._area.slot_size)
        if self._header_ok:
            # Too great only means looking at slots that are free.
            return int(min(max(high_water), self._area.slots))
        if magic != 0:
            self.corrupt += 1
        return 0

    def _load_slot(self, slot: int, values: dict[str, bytes]) -> None:
        (kind,) = _WORD.unpack_from(self._memory, self._at(slot))
        if kind != _KIND_HEAD:
            if kind not in (_KIND_FREE, _KIND_CHUNK):
                self.corrupt += 1
            return
        number = self._newer_copy(slot)
        copy = self._read_copy(slot, number)
        if copy is None:
            number ^= 1
            copy = self._read_copy(slot, number)
        if copy is None:
            self.corrupt += 1
            return
        rival = self._heads.get(copy.key)
        if rival is not None:
            self.corrupt += 1
            if rival.sequence > copy.sequence:
                return
        self._heads[copy.key] = _Head(slot, number, copy.sequence, copy.chunks)
        values[copy.key] = copy.value

    def _newer_copy(self, slot: int) -> int:
        at = self._at(slot) + _COPIES_AT
        first = _WORD.unpack_from(self._memory, at)[0]
        second = _WORD.unpack_from(self._memory, at + self._copy_size)[0]
        return 1 if second > first else 0

    def _read_copy(self, slot: int, number: int) -> _Copy | None:
        at = self._at(slot) + _COPIES_AT + number * self._copy_size
        sequence, crc, length, value_crc, key_length, chunk_count = _COPY.unpack_from(self._memory, at)
        if sequence == 0:
            return None
        stored_length = chunk_count * _INDEX.size if chunk_count else length
        end = _COPY.size + key_length + stored_length
        if key_length > KEY_LIMIT or length > VALUE_LIMIT or end > self._copy_size:
            return None
        content = bytes(self._memory[at + _COPY.size : at + end])
        if crc != _copy_crc(sequence, slot, length, value_crc, key_length, chunk_count, content):
            return None
        chunks: list[int] = []
        value = content[key_length:]
        if chunk_count:
            chunks = [index for (index,) in _INDEX.iter_unpack(value)]
            value = self._gather(chunks, length)
            if len(value) != length or zlib.crc32(value) != value_crc:
                return None
        try:
            key, value = _record_of(content[:key_length], value)
            return _Copy(sequence, key.decode(), value, chunks)
        except ValueError:
            return None

    def _gather(self, chunks: list[int], length: int) -> bytes:
        """The value out of its chunks; empty where one is not what it should be."""
        parts = []
        for index in chunks:
            if index >= self._high_water:
                return b""
            at = self._at(index)
            if _WORD.unpack_from(self._memory, at)[0] != _KIND_CHUNK:
                return b""
            parts.append(bytes(self._memory[at + _WORD.size : at + self._area.slot_size]))
        return b"".join(parts)[:length]

    def _read_stamp(self, slot: int) -> tuple[Stamp | None, int]:
        """The newer valid cell, and which one it is."""
        best: Stamp | None = None
        best_cell = 0
        for cell in (0, 1):
            at = self._at(slot) + _CELLS_AT + cell * _CELL.size
            boottime_us, monotonic_us, check = _CELL.unpack_from(self._memory, at)
            valid = check == boottime_us ^ monotonic_us ^ _CELL_CHECK
            if valid and (best is None or boottime_us > best.boottime_us):
                best, best_cell = Stamp(boottime_us, monotonic_us), cell
        return best, best_cell

    # Writing ---------------------------------------------------------------------------------------------

    def _place(self, key: bytes, value: bytes, *, is_new: bool) -> tuple[bytes, list[int]] | None:
        """What stands in the copy in the value's place, any chunks already written; None: no room."""
        room = self._copy_size - _COPY.size - len(key)
        chunk_count = 0 if len(value) <= room else -(-len(value) // self._chunk_size)
        if len(key) > KEY_LIMIT or len(value) > VALUE_LIMIT or chunk_count * _INDEX.size > room:
            return None
        if chunk_count + is_new > len(self._free) + self._area.slots - self._high_water:
            return None
        if chunk_count == 0:
            return (value, []) if len(value) <= room else None
        chunks = [self._take_slot() for _ in range(chunk_count)]
        for number, slot in enumerate(chunks):
            part = value[number * self._chunk_size : (number + 1) * self._chunk_size]
            self._store(self._at(slot), _WORD.pack(_KIND_CHUNK) + part)
        return b"".join(map(_INDEX.pack, chunks)), chunks

    def _create_head(self, key: bytes, value: bytes, content: bytes, chunks: list[int]) -> _Head:
        """A record in a slot of its own, which counts once its kind is HEAD."""
        head = _Head(self._take_slot(), copy=0, sequence=1, chunks=chunks)
        head.stamp_cell = 0
        copy = _pack_copy(head.slot, head.sequence, key, value, content, len(chunks))
        at = self._at(head.slot)
        self._store(at + _CELLS_AT, _NO_STAMPS + copy.ljust(self._copy_size, b"\0") + _NO_COPY)
        self._store(at, _WORD.pack(_KIND_HEAD))
        return head

    def _write_copy(self, head: _Head, key: bytes, value: bytes, content: bytes, chunk_count: int) -> None:
        number, sequence = head.copy ^ 1, head.sequence + 1
        at = self._at(head.slot) + _COPIES_AT + number * self._copy_size
        packed = _pack_copy(head.slot, sequence, key, value, content, chunk_count)
        # The sequence number goes last, so that a copy in the making is plainly none.
        self._store(at, bytes(_SEQUENCE_SIZE))
        self._store(at + _SEQUENCE_SIZE, packed[_SEQUENCE_SIZE:])
        self._store(at, packed[:_SEQUENCE_SIZE])
        head.copy, head.sequence = number, sequence

    def _take_slot(self) -> int:
        if self._free:
            slot = self._free.pop()
            self._store(self._at(slot), _WORD.pack(_KIND_FREE))
            return slot
        slot = self._high_water
        assert slot < self._area.slots, "room was counted before"
        self._store(self._at(slot), _WORD.pack(_KIND_FREE))
        if not self._header_ok:
            self._store(0, _AREA_HEADER.pack(MAGIC, self._area.slots, self._area.slot_size, 0, 0))
            self._header_ok = True
        self._high_water = slot + 1
        # Two words, the greater counts: a kill inside one of them cannot hide slots in use.
        self._store(_HIGH_WATER_AT, _WORD.pack(self._high_water) * 2)
        return slot

    def _store(self, at: int, data: bytes) -> None:
        """The only way into the memory. The tests stop it between any two bytes."""
        self._memory[at : at + len(data)] = data

    def _at(self, slot: int) -> int:
        return PAGE + slot * self._area.slot_size


def _moved_into_value(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """What stands in the places of key and value where the key does not fit into its own."""
    return _IN_VALUE, _KEY_LENGTH.pack(len(key)) + key + value


def _record_of(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Key and value, by what stands in their places. Raises ValueError."""
    if key != _IN_VALUE:
        return key, value
    end = _KEY_LENGTH.size + int.from_bytes(value[: _KEY_LENGTH.size], "little")
    if len(value) < end:
        raise ValueError("the key is not whole")
    return value[_KEY_LENGTH.size : end], value[end:]


def _pack_copy(slot: int, sequence: int, key: bytes, value: bytes, content: bytes, chunk_count: int) -> bytes:
    # A value in place is covered by the copy's own checksum.
    checked = (len(value), zlib.crc32(value) if chunk_count else 0, len(key), chunk_count)
    named = key + content
    return _COPY.pack(sequence, _copy_crc(sequence, slot, *checked, named), *checked) + named


def _copy_crc(
    sequence: int, slot: int, length: int, value_crc: int, key_length: int, chunk_count: int, content: bytes
) -> int:
    covered = _COPY_CHECKED.pack(sequence, slot, length, value_crc, key_length, chunk_count)
    return zlib.crc32(content, zlib.crc32(covered))


class Journal:
    """The whole shared memory. Made once, in the supervisor; children inherit the mapping at fork."""

    def __init__(self, descriptor: int, areas: dict[Role, Area]) -> None:
        self.descriptor = descriptor
        self.size = _total_size(areas)
        self._areas = areas
        self._memory = memoryview(mmap.mmap(descriptor, self.size, mmap.MAP_SHARED))
        self._heartbeats = {role: Heartbeat(self._page(number)) for number, role in enumerate(areas)}
        self._records: dict[Role, Records] = {}

    @classmethod
    def create(cls, areas: dict[Role, Area] = AREAS) -> Journal:
        """A new, empty journal.

        Its size is sealed, so that no process can make another fault on it.
        Raises OSError when the system has no memory for it.
        """
        descriptor = os.memfd_create("kad-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, _total_size(areas))
        fcntl.fcntl(
            descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        return cls(descriptor, areas)

    def heartbeat(self, role: Role) -> Heartbeat:
        return self._heartbeats[role]

    def records(self, role: Role) -> Records:
        """The role's records. One object a process: what it remembers of the area is its own."""
        if role not in self._records:
            at = len(self._areas) * PAGE
            for earlier, area in self._areas.items():
                if earlier == role:
                    self._records[role] = Records(self._memory[at : at + area.size], area)
                    break
                at += area.size
        return self._records[role]

    def _page(self, number: int) -> memoryview:
        return self._memory[number * PAGE : (number + 1) * PAGE]


def _total_size(areas: dict[Role, Area]) -> int:
    return len(areas) * PAGE + sum(area.size for area in areas.values())
