"""Reader and checksums."""

import pytest

from kad.wire import Reader, WireError, checksum_holds, internet_checksum


def test_reader_reads_fields_in_order() -> None:
    reader = Reader(bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f ff"))
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (1, 0x203, 0x4050607, 0x8090A0B0C0D0E0F)
    assert reader.remaining == 1
    assert reader.rest() == b"\xff"


@pytest.mark.parametrize("count", [3, -1])
def test_reader_never_runs_over(count: int) -> None:
    reader = Reader(b"ab")
    with pytest.raises(WireError):
        reader.take(count)
    assert reader.take(2) == b"ab"


def test_checksum_example_of_rfc_1071() -> None:
    # RFC 1071 §3: the sum of these words is ddf2.
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_odd_length_counts_the_last_byte_as_upper_half() -> None:
    assert internet_checksum(b"\x12\x34\x56") == internet_checksum(b"\x12\x34\x56\x00")


def test_a_checksum_holds_over_what_it_was_computed_for() -> None:
    for data in (bytes.fromhex("4500001c000000004011"), b"\xff\xff", b"\x00\x01"):
        whole = data + internet_checksum(data).to_bytes(2, "big")
        assert checksum_holds(whole)
        assert not checksum_holds(whole[:-1] + bytes((whole[-1] ^ 1,)))
