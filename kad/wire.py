"""Bytes on the wire: a reader and a writer that cannot run over, and the internet checksum. Pure."""

MAC_LENGTH = 6


class WireError(ValueError):
    """Fewer bytes than asked for, or more than allowed."""


class Reader:
    """Reads big-endian fields from the front of hostile bytes. Every read past the end raises WireError."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._position

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._position + count
        if count < 0 or end > len(self._data):
            raise WireError(f"{count} bytes wanted, {self.remaining} left")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.remaining)


class Writer:
    """Appends big-endian fields up to ``limit`` bytes; beyond it, or out of a field's range, WireError."""

    __slots__ = ("_data", "_limit")

    def __init__(self, limit: int = 65_535) -> None:
        self._data = bytearray()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._data)

    def raw(self, data: bytes) -> None:
        if len(self._data) + len(data) > self._limit:
            raise WireError(f"more than {self._limit} bytes")
        self._data += data

    def u8(self, value: int) -> None:
        self._number(value, 1)

    def u16(self, value: int) -> None:
        self._number(value, 2)

    def u32(self, value: int) -> None:
        self._number(value, 4)

    def u64(self, value: int) -> None:
        self._number(value, 8)

    def finish(self) -> bytes:
        """What was written."""
        return bytes(self._data)

    def _number(self, value: int, width: int) -> None:
        if not 0 <= value < 1 << 8 * width:
            raise WireError(f"{value} does not fit into {width} bytes")
        self.raw(value.to_bytes(width, "big"))


def ones_complement_sum(data: bytes) -> int:
    """The sum of RFC 1071 modulo 0xFFFF; an odd last byte counts as the upper half of a word.

    A number is congruent to the sum of its 16-bit digits modulo 0xFFFF: one division sums them all. The
    result 0 stands for both 0x0000 and 0xFFFF.
    """
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


def internet_checksum(data: bytes) -> int:
    """RFC 1071 checksum to put into ``data`` whose checksum field is zero. ``data`` is not all zero."""
    total = ones_complement_sum(data)
    return 0xFFFF - total if total else 0


def checksum_holds(data: bytes) -> bool:
    """Whether data that includes its checksum field sums to all ones (RFC 1071 §1 (3))."""
    return ones_complement_sum(data) == 0


def ipv4_pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What an upper-layer checksum covers besides the payload (RFC 9293 §3.1; RFC 9568 §5.2.8 for IPv4)."""
    return source + destination + bytes((0, protocol)) + length.to_bytes(2, "big")


def ipv6_pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """RFC 8200 §8.1."""
    return source + destination + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
