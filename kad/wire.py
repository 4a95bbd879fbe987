"""Bytes on the wire: a reader that cannot run over, and the internet checksum. Pure."""

MAC_LENGTH = 6


class WireError(ValueError):
    """Fewer bytes than asked for."""


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
