"""DNS_CHECK's queries and what it makes of replies, beside dnspython."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_check.core.dialogues.dialogue import SUCCESS
from kad_check.core.dialogues.dns import QUERY_TYPES, DnsDialogue, encoded_name

NUMBER = 0x1234
LABELS = st.text("abcxyzABC019-_", min_size=1, max_size=63)
NAMES = st.lists(LABELS, max_size=4).map(".".join)
TYPES = st.sampled_from(sorted(QUERY_TYPES))
ANSWERS = {
    "A": "192.0.2.1",
    "NS": "ns.example.org.",
    "CNAME": "other.example.org.",
    "SOA": "ns.example.org. root.example.org. 1 2 3 4 5",
    "MX": "10 mail.example.org.",
    "TXT": '"a text" "and another"',
    "AAAA": "2001:db8::1",
    "RRSIG": "A 8 2 60 20300101000000 20250101000000 12345 example.org. AAAA",
    "DNSKEY": "257 3 8 AwEAAQ==",
}
RECORDS = st.lists(st.sampled_from(sorted(ANSWERS)), max_size=6)
CODES = st.sampled_from([code for code in dns.rcode.Rcode if code < 16])


@given(NAMES, TYPES, st.integers(0, 0xFFFF), st.booleans())
def test_a_query_is_what_dnspython_would_send(name: str, kind: str, number: int, dotted: bool) -> None:
    if dotted or not name:
        name += "."
    made = DnsDialogue(name, kind, number).opening
    assert made == dns.message.make_query(name, kind, id=number).to_wire()
    read = dns.message.from_wire(made)
    assert (read.id, read.flags, read.rcode()) == (number, dns.flags.RD, dns.rcode.NOERROR)
    (question,) = read.question
    assert question.name.canonicalize() == dns.name.from_text(name).canonicalize()
    assert (question.rdtype, question.rdclass) == (dns.rdatatype.from_text(kind), dns.rdataclass.IN)


@pytest.mark.parametrize("kind", sorted(QUERY_TYPES))
def test_each_type_has_its_number(kind: str) -> None:
    assert dns.rdatatype.from_text(kind) == QUERY_TYPES[kind]


@given(st.lists(st.text("ab", max_size=70), min_size=1, max_size=8).map(".".join))
def test_a_name_that_cannot_be_asked_for_is_refused(name: str) -> None:
    """Where an ending dot is none too many; more of them are taken for one."""
    name = name.rstrip(".") + "."
    try:
        wanted = dns.name.from_text(name).to_wire()
    except dns.exception.DNSException:
        with pytest.raises(ValueError, match=r"label|longer"):
            encoded_name(name)
        return
    assert encoded_name(name) == wanted


def reply(records: list[str], authority: list[str], code: dns.rcode.Rcode, edns: bool) -> bytes:
    """Names are compressed, as servers do."""
    query = dns.message.make_query("www.example.org", "A", id=NUMBER, use_edns=edns)
    made = dns.message.make_response(query)
    made.set_rcode(code)
    for section, kinds in ((made.answer, records), (made.authority, authority)):
        for number, kind in enumerate(kinds):
            name = f"{'www.' * (number % 3)}example.org."
            section.append(dns.rrset.from_text(name, 60, "IN", kind, ANSWERS[kind]))
    return made.to_wire()


@given(RECORDS, RECORDS, CODES, st.booleans())
def test_a_reply_is_judged_by_its_code(
    records: list[str], authority: list[str], code: dns.rcode.Rcode, edns: bool
) -> None:
    data = reply(records, authority, code, edns)
    assert dns.message.from_wire(data).rcode() == code
    outcome = DnsDialogue("www.example.org", "A", NUMBER).receive(data)
    assert outcome is not None and outcome.success is (code == dns.rcode.NOERROR)
    if code in (dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN, dns.rcode.REFUSED):
        assert dns.rcode.to_text(code) in outcome.detail


@given(RECORDS, CODES, st.integers(0, 0xFFFF), st.booleans())
def test_only_a_response_to_this_query_is_heard(
    records: list[str], code: dns.rcode.Rcode, number: int, is_response: bool
) -> None:
    read = dns.message.from_wire(reply(records, [], code, False))
    read.id = number
    if not is_response:
        read.flags &= ~dns.flags.QR
    outcome = DnsDialogue("www.example.org", "A", NUMBER).receive(read.to_wire())
    assert (outcome is not None) is (is_response and number == NUMBER)


@given(RECORDS, st.integers(0, 200), st.binary(max_size=60), st.integers(12, 60))
def test_what_comes_after_the_header_is_nothing_to_it(
    records: list[str], cut: int, garbage: bytes, at: int
) -> None:
    """Cut, overwritten, with pointers that lead in a circle: it is an answer without an error still."""
    whole = reply(records, [], dns.rcode.NOERROR, False)
    for data in (whole[:cut], whole[:at] + garbage, whole[:12] + b"\xc0\x0c" * at):
        outcome = DnsDialogue("www.example.org", "A", NUMBER).receive(data)
        assert outcome == (SUCCESS if len(data) >= 12 else None)
