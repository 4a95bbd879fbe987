"""DNS_CHECK: one query over UDP, any answer without an error (RFC 1035 §4.1). Pure."""

from __future__ import annotations

import struct

from kad_check.core.dialogues.dialogue import SUCCESS, Outcome, failure

QUERY_TYPES = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "RRSIG": 46,
    "DNSKEY": 48,
}
_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _RECURSION_DESIRED, _CODE = 0x8000, 0x0100, 0x000F
_CLASS_IN = 1
_LABEL_LIMIT, _NAME_LIMIT = 63, 255
_CODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class DnsDialogue:
    """``identifier``: 16 random bits. Raises ValueError for a name that no query can ask for."""

    to_send = b""

    def __init__(self, name: str, query_type: str, identifier: int) -> None:
        self._identifier = identifier
        header = _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0)
        question = encoded_name(name) + struct.pack("!HH", QUERY_TYPES[query_type], _CLASS_IN)
        self.opening = header + question

    def receive(self, data: bytes) -> Outcome | None:
        """What is not an answer to this query is not heard."""
        if len(data) < _HEADER.size:
            return None
        identifier, flags, *_ = _HEADER.unpack_from(data)
        if identifier != self._identifier or not flags & _RESPONSE:
            return None
        code = flags & _CODE
        return SUCCESS if code == 0 else failure(f"answer {_CODES.get(code, f'code {code}')}")

    def end(self) -> Outcome:
        return failure("no answer")

    def silence(self) -> Outcome:
        return failure("no answer in time")


def encoded_name(name: str) -> bytes:
    """Labels with their lengths; "." and "" are the root."""
    labels = [label.encode() for label in name.rstrip(".").split(".")] if name.rstrip(".") else []
    if any(not 0 < len(label) <= _LABEL_LIMIT for label in labels):
        raise ValueError(f"'{name}' has a label of no or more than {_LABEL_LIMIT} bytes")
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(encoded) > _NAME_LIMIT:
        raise ValueError(f"'{name}' is longer than a name may be")
    return encoded
