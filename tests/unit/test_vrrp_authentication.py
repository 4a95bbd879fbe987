"""AH and auth_hmac: byte for byte what keepalived sends, and nothing forged, old or repeated believed."""

import hashlib
import hmac
import json
import pathlib
from typing import Any

import msgspec
import pytest

from kad.config.model.vrrp import (
    AuthHmac,
    AuthType,
    HmacKey,
    SyncGroup,
    UnicastPeer,
    VirtualAddress,
    VrrpInstance,
)
from kad_vrrp.core.actions import RememberObject, SendAdvert, Transport
from kad_vrrp.core.advertiser import Adverts, receive_rules
from kad_vrrp.core.auth import Authenticator
from kad_vrrp.core.auth_header import LAST_SEQUENCE, AuthenticationHeader
from kad_vrrp.core.auth_trailer import SignedTrailer, follows, seconds_ahead, sequence_at
from kad_vrrp.core.authentication import authenticator_for
from kad_vrrp.core.context import Context, EngineSettings
from kad_vrrp.core.garp import Pacer
from kad_vrrp.core.packet import Advertisement, DropReason, PacketError, judge
from tests.support.vrrp_host import SECOND, instance, link
from tests.support.vrrp_playbook import Playbook

CAPTURED = json.loads((pathlib.Path(__file__).parent / "data" / "vrrp_authentic.json").read_text())
TEXT_KEY = HmacKey(1, b"abcdefghijklmnopqrstuvwxyz012345")
HEX_KEY = HmacKey(200, bytes(range(1, 33)))
KEYS = (TEXT_KEY, HEX_KEY)
SOURCES = {4: "192.0.2.1", 6: "2001:db8::1"}
PEERS = {4: "192.0.2.2", 6: "2001:db8::2"}
IP_HEADER = {4: 14, 6: 54}
WINDOW_US = 5 * SECOND
T0_US = 1_800_000_000 * SECOND
"""A wall clock for the tests."""


def captured_config(name: str, number: int, **changes: object) -> VrrpInstance:
    """What the capture's configuration says, as the resolved model."""
    version, family = int(name[1]), int(name[6])
    vips = {
        4: (VirtualAddress(f"192.0.2.{100 + number}", 24),),
        6: (VirtualAddress(f"fe80::{number}", 64), VirtualAddress(f"2001:db8::1{number}", 64)),
    }
    settings: dict[str, object] = {
        "name": name,
        "virtual_router_id": number,
        "version": version,
        "family": family,
        "priority": 200,
        "multicast_group": "224.0.0.18" if family == 4 else "ff02::12",
        "unicast": "unicast" in name,
        "unicast_peers": (UnicastPeer(PEERS[family]),) if "unicast" in name else (),
        "virtual_addresses": vips[family],
        "auth_hmac": AuthHmac(KEYS, 1 if number % 2 else 200),
    }
    return instance(**(settings | changes))  # type: ignore[arg-type]


NUMBERS = {"v2-ipv4-multicast": 1, "v2-ipv4-unicast": 2, "v3-ipv4-multicast": 3, "v3-ipv4-unicast": 4}
NUMBERS |= {"v3-ipv6-multicast": 5, "v3-ipv6-unicast": 6}


def made(config: VrrpInstance, *, realtime_us: int = 0, objects: dict[str, bytes] | None = None) -> Any:
    """The configuration's authenticator, its complaints and its context's actions beside it."""
    context = Context(EngineSettings(), Pacer(), objects or {})
    context.realtime_ahead_us = realtime_us
    complaints: list[str] = []
    authenticator = authenticator_for(config, None, context, lambda kind, _: complaints.append(kind))
    assert authenticator is not None
    for name, value in (("context", context), ("complaints", complaints), ("actions", context.actions)):
        setattr(authenticator, name, value)
    return authenticator


def sealed(config: VrrpInstance, authenticator: Authenticator, priority: int = 200, now_us: int = 0) -> bytes:
    source = SOURCES[config.family]
    adverts = Adverts(config, source, 1, old_checksum=False).of(priority)
    return authenticator.seal(adverts, now_us)[0].data


def judged(
    data: bytes,
    config: VrrpInstance,
    authenticator: Authenticator,
    now_us: int = 0,
    source: str = "",
) -> Advertisement:
    source = source or SOURCES[config.family]
    return judge(data, receive_rules(config), source=source, authenticator=authenticator, now_us=now_us)


def refused(*arguments: Any, **named: Any) -> DropReason:
    with pytest.raises(PacketError) as caught:
        judged(*arguments, **named)
    return caught.value.reason


def frames(kind: str) -> list[Any]:
    return [
        pytest.param(name, at_us, bytes.fromhex(frame), id=f"{name}-{index}")
        for name, cases in CAPTURED[kind].items()
        for index, (at_us, frame) in enumerate(cases)
    ]


def as_read(frame: bytes, family: int) -> tuple[bytes, str]:
    """What a raw socket gives for a captured frame, and the sender."""
    if family == 4:
        return frame[14:], ".".join(map(str, frame[26:30]))
    source = frame[22:38]
    return frame[54:], SOURCES[6] if source[0] == 0x20 else "fe80::" + source[8:].hex(":", 2)


# auth_hmac ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "at_us", "frame"), frames("hmac"))
def test_keepalived_s_trailer_is_believed_once(name: str, at_us: int, frame: bytes) -> None:
    config = captured_config(name, NUMBERS[name])
    swapped = msgspec.structs.replace(config, unicast_peers=(UnicastPeer(SOURCES[config.family]),))
    receiver = made(swapped if config.unicast else config, realtime_us=at_us)
    data, source = as_read(frame, config.family)
    heard = judged(data, swapped if config.unicast else config, receiver, source=source)
    assert heard.priority in (200, 0)
    assert refused(data, swapped, receiver, source=source) is DropReason.AUTH_EXT_REPLAY


@pytest.mark.parametrize(("name", "at_us", "frame"), frames("hmac"))
def test_our_trailer_is_keepalived_s(name: str, at_us: int, frame: bytes) -> None:
    config = captured_config(name, NUMBERS[name])
    data, source = as_read(frame, config.family)
    priority = data[22 if config.family == 4 else 2]
    sequence = int.from_bytes(data[-24:-16], "big")
    realtime_us = -(-((sequence >> 16 & 0xFFFF) * SECOND) // 65536) + (sequence >> 32) * SECOND
    sender = made(config, realtime_us=realtime_us)
    adverts = Adverts(config, source, 1, old_checksum=False).of(priority)
    ours = sender.seal(adverts, 0)[0].data
    assert sequence & 0xFFFF == 0
    if config.family == 4:
        # Identification and header checksum are the kernel's.
        assert ours[:4] == data[:4]
        assert ours[6:10] == data[6:10]
        assert ours[12:] == data[12:]
    else:
        assert ours[:6] + ours[8:] == data[:6] + data[8:], "all but the checksum, which the kernel fills in"


def test_the_trailer_by_hand() -> None:
    """The format written out with nothing of ours: RFC 2104 with SHA-256 over what the format says."""
    payload = bytes.fromhex("31 33 64 01 00 64 0000 c0000264")
    prefix = bytes.fromhex("01 01 0000 6b49d200 8000 0000")
    covered = bytes((4, 3, 0x33, 0)) + bytes((192, 0, 2, 1)) + bytes(12) + payload + prefix + bytes(16)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in TEXT_KEY.value.ljust(64, b"\0")) + covered).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in TEXT_KEY.value.ljust(64, b"\0")) + inner).digest()
    config = instance(
        auth_hmac=AuthHmac(KEYS, 1), virtual_addresses=(VirtualAddress("192.0.2.100", 24),), priority=100
    )
    sender = made(config, realtime_us=T0_US + SECOND // 2)
    data = sealed(config, sender, 100)
    assert data[20:26] == payload[:6]
    assert data[28:] == payload[8:] + prefix + outer[:16]
    assert int.from_bytes(data[2:4], "big") == len(data)


@pytest.fixture
def pair() -> tuple[VrrpInstance, Any, Any]:
    config = instance(auth_hmac=AuthHmac(KEYS, 1))
    return config, made(config, realtime_us=T0_US), made(config, realtime_us=T0_US)


def test_sequences_grow_when_the_clock_does_not(pair: tuple[VrrpInstance, Any, Any]) -> None:
    config, sender, receiver = pair
    for _ in range(70_000 // 1000):
        judged(sealed(config, sender), config, receiver)
    assert sender.sent == sequence_at(T0_US) + 69


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (-28, DropReason.AUTH_EXT_MALFORMED),
        (-27, DropReason.AUTH_EXT_UNKNOWN_KEY),
        (-26, DropReason.AUTH_EXT_MALFORMED),
        (-25, DropReason.AUTH_EXT_MALFORMED),
        (-24, DropReason.AUTH_EXT_STALE),
        (-20, DropReason.AUTH_EXT_INVALID_HMAC),
        (-18, DropReason.AUTH_EXT_INVALID_HMAC),
        (-16, DropReason.AUTH_EXT_INVALID_HMAC),
        (-1, DropReason.AUTH_EXT_INVALID_HMAC),
        (22, DropReason.AUTH_EXT_INVALID_HMAC),
        (24, DropReason.AUTH_EXT_INVALID_HMAC),
        (28, DropReason.AUTH_EXT_INVALID_HMAC),
    ],
)
def test_a_changed_byte(pair: tuple[VrrpInstance, Any, Any], at: int, reason: DropReason) -> None:
    config, sender, receiver = pair
    data = bytearray(sealed(config, sender))
    data[at] ^= 0x10
    assert refused(bytes(data), config, receiver) is reason
    assert receiver.heard == {}, "what is not genuine leaves no mark"
    judged(sealed(config, sender), config, receiver)


def test_the_source_address_is_covered(pair: tuple[VrrpInstance, Any, Any]) -> None:
    config, sender, receiver = pair
    data = sealed(config, sender)
    assert refused(data, config, receiver, source="192.0.2.7") is DropReason.AUTH_EXT_INVALID_HMAC


@pytest.mark.parametrize("late_s", [-6, 6])
def test_the_window(pair: tuple[VrrpInstance, Any, Any], late_s: int) -> None:
    config, sender, receiver = pair
    data = sealed(config, sender)
    assert refused(data, config, receiver, now_us=late_s * SECOND) is DropReason.AUTH_EXT_STALE
    judged(data, config, receiver, now_us=(late_s - late_s // 6) * SECOND)
    assert receiver.complaints == ["clock_skew"]


def test_monotonic_knows_no_window_and_no_step_back() -> None:
    config = instance(auth_hmac=AuthHmac(KEYS, 1, anti_replay="monotonic"))
    sender, receiver = made(config, realtime_us=T0_US), made(config)
    judged(sealed(config, sender), config, receiver)
    before = sender.sent
    sender.context.realtime_ahead_us -= 3600 * SECOND
    judged(sealed(config, sender), config, receiver)
    assert sender.sent == before + 1


def test_a_clock_set_back_starts_anew_and_is_understood_again(pair: tuple[VrrpInstance, Any, Any]) -> None:
    config, sender, receiver = pair
    judged(sealed(config, sender), config, receiver)
    sender.context.realtime_ahead_us -= 3600 * SECOND
    data = sealed(config, sender)
    assert refused(data, config, receiver) is DropReason.AUTH_EXT_STALE
    receiver.context.realtime_ahead_us -= 3600 * SECOND
    judged(data, config, receiver)


def test_a_small_step_back_is_bridged_by_counting(pair: tuple[VrrpInstance, Any, Any]) -> None:
    config, sender, receiver = pair
    judged(sealed(config, sender), config, receiver)
    before = sender.sent
    sender.context.realtime_ahead_us -= 2 * SECOND
    judged(sealed(config, sender), config, receiver)
    assert sender.sent == before + 1


def test_rotation_of_keys() -> None:
    """Both keys everywhere, then the other active, then the first one gone."""
    first = instance(auth_hmac=AuthHmac(KEYS, 1))
    second = instance(auth_hmac=AuthHmac(KEYS, 200))
    third = instance(auth_hmac=AuthHmac((HEX_KEY,), 200))
    sender, receiver = made(first, realtime_us=T0_US), made(first, realtime_us=T0_US)
    old = sealed(first, sender)
    judged(old, first, receiver)
    for config in (second, third):
        sender.configure(config)
        judged(sealed(config, sender), config, receiver)
        receiver.configure(config)
        judged(sealed(config, sender), config, receiver)
    assert refused(old, third, receiver) is DropReason.AUTH_EXT_UNKNOWN_KEY


@pytest.mark.parametrize(
    ("mode", "signs", "believes"),
    [("enforce", True, False), ("permissive", True, True), ("receive-only", False, True)],
)
def test_modes(mode: str, signs: bool, believes: bool) -> None:
    config, plain = instance(auth_hmac=AuthHmac(KEYS, 1, mode=mode)), instance()
    both = made(config, realtime_us=T0_US)
    unsigned = Adverts(plain, SOURCES[4], 1, old_checksum=False).of(200)[0].data
    assert len(sealed(config, both)) == len(unsigned) + 28 * signs
    if believes:
        assert judged(unsigned, config, both).priority == 200
    else:
        assert refused(unsigned, config, both) is DropReason.AUTH_EXT_MISSING
    bad = bytearray(sealed(config, made(instance(auth_hmac=AuthHmac(KEYS, 1)), realtime_us=T0_US)))
    bad[-1] ^= 1
    assert refused(bytes(bad), config, both) is DropReason.AUTH_EXT_INVALID_HMAC


def test_without_auth_hmac_a_trailer_is_too_long() -> None:
    config = instance(auth_hmac=AuthHmac(KEYS, 1))
    data = sealed(config, made(config, realtime_us=T0_US))
    with pytest.raises(PacketError) as caught:
        judge(data, receive_rules(instance()), source=SOURCES[4])
    assert caught.value.reason is DropReason.LENGTH


def test_unicast_marks_are_of_peers_only() -> None:
    config = captured_config("v3-ipv4-unicast", 4)
    data = sealed(config, made(config, realtime_us=T0_US))
    other = msgspec.structs.replace(config, unicast_peers=(UnicastPeer("192.0.2.9"),))
    assert refused(data, other, made(other, realtime_us=T0_US)) is DropReason.UNICAST_SOURCE


def test_peers_get_the_same_trailer() -> None:
    peers = tuple(UnicastPeer(f"192.0.2.{n}") for n in (7, 8, 9))
    config = captured_config("v3-ipv4-unicast", 4, unicast_peers=peers)
    sender = made(config, realtime_us=T0_US)
    adverts = sender.seal(Adverts(config, SOURCES[4], 1, old_checksum=False).of(200), 0)
    assert len({each.data[-28:] for each in adverts}) == 1
    assert [each.data[16:20] for each in adverts] == [bytes((192, 0, 2, n)) for n in (7, 8, 9)]


def test_four_multicast_senders_are_remembered() -> None:
    config = instance(auth_hmac=AuthHmac(KEYS, 1))
    receiver = made(config, realtime_us=T0_US)
    sent = {}
    for number in range(1, 7):
        source = f"192.0.2.{number}"
        sender = made(config, realtime_us=T0_US)
        advert = sender.seal(Adverts(config, source, 1, old_checksum=False).of(100), 0)[0]
        sent[source] = advert.data
        judged(advert.data, config, receiver, source=source)
    assert list(receiver.heard) == [f"192.0.2.{number}" for number in range(3, 7)]
    assert refused(sent["192.0.2.3"], config, receiver, source="192.0.2.3") is DropReason.AUTH_EXT_REPLAY


def test_serial_numbers_wrap() -> None:
    top = 0xFFFF_FFFF_FFFF_FFFF
    assert follows(0, top) and follows(5, 4) and not follows(4, 4) and not follows(4, 5)
    assert not follows(top, 0)
    assert seconds_ahead(0, top) == 1 and seconds_ahead(top, 0) == -1
    assert sequence_at((1 << 32) * SECOND) == 0


# AH -----------------------------------------------------------------------------------------------------


def ah_config(name: str = "multicast", **changes: object) -> VrrpInstance:
    number = 1 + (name == "unicast")
    vip = VirtualAddress(f"192.0.2.{99 + number}", 24)
    fields: dict[str, object] = {"auth_hmac": None, "auth_type": AuthType.AH, "auth_pass": b"s3cret"}
    fields["virtual_addresses"] = (vip,)
    return captured_config(f"v2-ipv4-{name}", number, **(fields | changes))


@pytest.mark.parametrize(("name", "at_us", "frame"), frames("ah"))
def test_keepalived_s_header_is_believed_once(name: str, at_us: int, frame: bytes) -> None:
    config = ah_config(name, unicast_peers=(UnicastPeer(SOURCES[4]),) if name == "unicast" else ())
    receiver = made(config)
    data = frame[14:]
    assert judged(data, config, receiver).priority in (200, 0)
    assert receiver.sequence == int.from_bytes(data[28:32], "big")
    assert refused(data, config, receiver) is DropReason.AUTH_FAILURE


@pytest.mark.parametrize(("name", "at_us", "frame"), frames("ah"))
def test_our_header_is_keepalived_s(name: str, at_us: int, frame: bytes) -> None:
    config, data = ah_config(name), frame[14:]
    sender = made(config)
    sender.sequence = int.from_bytes(data[28:32], "big") - 1
    ours = sealed(config, sender, data[46])
    assert ours[:10] + ours[12:] == data[:10] + data[12:], (
        "all but the header checksum, which the kernel makes"
    )
    assert ours[32:44] == _check_value_by_hand(ours, unicast=name == "unicast")


def _check_value_by_hand(packet: bytes, *, unicast: bool) -> bytes:
    covered = bytearray(packet[:32] + bytes(12) + packet[44:])
    covered[1] = covered[6] = covered[7] = covered[10] = covered[11] = 0
    if unicast:
        covered[8] = 0
    return hmac.new(b"s3cret\0\0", bytes(covered), hashlib.md5).digest()[:12]


@pytest.mark.parametrize("at", [4, 8, 12, 16, 21, 22, 24, 28, 32, 43, 44, 46, 52, 59])
def test_a_changed_byte_under_ah(at: int) -> None:
    config = ah_config()
    sender, receiver = made(config), made(config)
    data = bytearray(sealed(config, sender))
    data[at] ^= 1
    reasons = {DropReason.AUTH_FAILURE, DropReason.TTL, DropReason.LENGTH, DropReason.AH_HEADER}
    assert refused(bytes(data), config, receiver) in reasons
    assert receiver.sequence == 0
    judged(sealed(config, sender), config, receiver)


def test_routers_may_change_ttl_and_service_of_unicast() -> None:
    config = ah_config("unicast", unicast_peers=(UnicastPeer(SOURCES[4]),))
    data = bytearray(sealed(config, made(config)))
    data[1], data[8] = 0, 60
    assert judged(bytes(data), config, made(config)).priority == 200


def test_the_spi_must_be_the_sender() -> None:
    config = ah_config()
    sender = made(config)
    data = bytearray(sealed(config, sender))
    data[27] ^= 3
    data[32:44] = _check_value_by_hand(bytes(data), unicast=False)
    with pytest.raises(PacketError, match="SPI"):
        judged(bytes(data), config, made(config))


def test_an_exhausted_sequence_starts_anew() -> None:
    config = ah_config()
    sender, receiver = made(config), made(config)
    sender.sequence = LAST_SEQUENCE - 1
    for _ in range(3):
        judged(sealed(config, sender), config, receiver)
    assert sender.sequence == receiver.sequence == 2


@pytest.mark.parametrize("length", [0, 19, 27, 28, 43, 51, 52])
def test_a_cut_packet_under_ah(length: int) -> None:
    config = ah_config()
    data = sealed(config, made(config))[:length]
    reasons = {DropReason.TRUNCATED, DropReason.LENGTH, DropReason.AUTH_FAILURE}
    assert refused(data, config, made(config)) in reasons


# In the engine ------------------------------------------------------------------------------------------

AH = {"version": 2, "auth_type": AuthType.AH, "auth_pass": b"s3cret"}
HMAC: dict[str, Any] = {"auth_hmac": AuthHmac(KEYS, 1)}


def hear_sealed(book: Playbook, sender: Authenticator, priority: int, source: str = "10.0.0.2") -> None:
    adverts = Adverts(book.configs[0], source, 1, old_checksum=False).of(priority)
    for advert in sender.seal(adverts, book.now_us):
        book.hear_bytes(advert.data, source)


def sequence_of(data: bytes) -> int:
    return int.from_bytes(data[28:32] if data[9] == 51 else data[-24:-16], "big")


def sequences(book: Playbook) -> list[int]:
    found = [sequence_of(action.data) for action in book.actions if isinstance(action, SendAdvert)]
    book.actions.clear()
    return found


def test_ah_has_sockets_of_its_own() -> None:
    book = Playbook(instance(**AH)).start()
    assert book.transports == {1: Transport(4, 51, "eth0", group="224.0.0.18")}


@pytest.mark.parametrize("settings", [AH, HMAC], ids=["ah", "hmac"])
def test_nothing_known_by_sight(settings: dict[str, Any]) -> None:
    """The short way that recognises the master's unchanged packet would let a repeated one in."""
    book = Playbook(instance(**settings)).start()
    sender = made(book.configs[0])
    hear_sealed(book, sender, 200)
    report = book.engine.report().instances[0]
    assert report.counters["advert_rcvd"] == 1
    copy = sender.seal(Adverts(book.configs[0], "10.0.0.2", 1, old_checksum=False).of(200), book.now_us)[0]
    book.hear_bytes(copy.data)
    deadline_us = book.engine.deadline_us
    book.run_for(SECOND // 2)
    book.hear_bytes(copy.data)
    report = book.engine.report().instances[0]
    assert report.counters["advert_rcvd"] == 2
    assert report.counters["auth_failure"] + report.counters["auth_ext_replay"] == 1
    assert book.engine.deadline_us == deadline_us, "a repeated packet moves no timer"


def test_ah_goes_on_counting_from_the_master_before() -> None:
    book = Playbook(instance(**AH)).start()
    sender = made(book.configs[0])
    sender.sequence = 5000
    hear_sealed(book, sender, 200)
    book.run_for(10 * SECOND)
    assert sequences(book)[:3] == [5002, 5003, 5004]


@pytest.mark.parametrize("settings", [AH, HMAC], ids=["ah", "hmac"])
def test_the_number_is_in_the_journal_before_it_is_sent(settings: dict[str, Any]) -> None:
    book = Playbook(instance(**settings)).start()
    book.run_for(10 * SECOND)
    assert book.state() == "MASTER"
    written = 0
    for action in book.actions:
        if isinstance(action, RememberObject):
            written = msgspec.msgpack.decode(action.record)[0]
        elif isinstance(action, SendAdvert):
            assert sequence_of(action.data) == written


@pytest.mark.parametrize("settings", [AH, HMAC], ids=["ah", "hmac"])
def test_a_restart_repeats_no_number_and_takes_none_again(settings: dict[str, Any]) -> None:
    book = Playbook(instance(**settings)).start()
    sender = made(book.configs[0])
    book.set_clock(T0_US)
    sender.context.realtime_ahead_us = T0_US
    hear_sealed(book, sender, 200)
    heard = next(reversed(sender.seal(_adverts(book), book.now_us))).data
    book.hear_bytes(heard)
    before = book.engine.report().instances[0].counters["advert_rcvd"]
    book.boot()
    book.hear_bytes(heard)
    assert before == 2
    assert book.engine.report().instances[0].counters["advert_rcvd"] == 0
    book.run_for(10 * SECOND)
    last = sequences(book)[-1]
    book.realtime_ahead_us -= 2 * SECOND
    book.boot()
    book.run_for(SECOND)
    assert book.state() == "MASTER"
    assert min(sequences(book)) > last


def _adverts(book: Playbook) -> tuple[SendAdvert, ...]:
    return Adverts(book.configs[0], "10.0.0.2", 1, old_checksum=False).of(200)


@pytest.mark.parametrize("settings", [AH, HMAC], ids=["ah", "hmac"])
def test_a_reload_goes_on_counting_under_another_name_too(settings: dict[str, Any]) -> None:
    book = Playbook(instance(**settings)).start()
    book.run_for(10 * SECOND)
    last = sequences(book)[-1]
    book.reload(instance("other", **(settings | {"priority": 101})))
    book.run_for(3 * SECOND)
    seen = sequences(book)
    assert seen and min(seen) > last
    assert [key for key in book.objects if key.startswith("auth")] == ["auth other"]
    book.boot()
    book.run_for(SECOND)
    assert min(sequences(book)) > max(seen)


def test_a_reload_from_password_to_ah_and_to_nothing() -> None:
    book = Playbook(instance(version=2, auth_type=AuthType.PASS, auth_pass=b"s3cret")).start_as_master()
    book.reload(instance(**AH))
    book.run_for(2 * SECOND)
    assert [transport.protocol for transport in book.transports.values()] == [51]
    assert book.state() == "MASTER"
    assert len(sequences(book)) >= 2
    book.reload(instance(version=2))
    book.run_for(2 * SECOND)
    assert [transport.protocol for transport in book.transports.values()] == [112]
    assert not [key for key in book.objects if key.startswith("auth")]


def test_what_is_gone_leaves_no_record() -> None:
    book = Playbook(instance(**AH), links=[link()]).start()
    book.run_for(10 * SECOND)
    assert [key for key in book.objects if key.startswith("auth")]
    book.reload()
    assert not [key for key in book.objects if key.startswith("auth")]


def test_the_farewell_bears_a_number_and_its_peer_follows_at_once() -> None:
    high, low = Playbook(instance(**AH, priority=200)).start(), Playbook(instance(**AH)).start()
    high.run_for(10 * SECOND)
    high.actions.clear()
    high.reload()
    farewell = [action for action in high.actions if isinstance(action, SendAdvert)]
    assert len(farewell) == 1
    low.hear_bytes(farewell[0].data, "10.0.0.1")
    low.run_for(SECOND)
    assert low.state() == "MASTER"


def test_members_of_a_group_count_each_for_itself() -> None:
    book = Playbook(instance("a", **AH), instance("b", **(AH | {"virtual_router_id": 52})))
    book.sync_groups = (SyncGroup("g", ("a", "b")),)
    book.start()
    book.run_for(10 * SECOND)
    assert book.state("a") == book.state("b") == "MASTER"
    assert sorted(key for key in book.objects if key.startswith("auth")) == ["auth a", "auth b"]


def test_kinds() -> None:
    context = Context(EngineSettings(), Pacer(), {})

    def kind(**settings: Any) -> type | None:
        found = authenticator_for(instance(**settings), None, context, lambda *_: None)
        return None if found is None else type(found)

    assert kind() is None
    assert kind(version=2, auth_type=AuthType.PASS, auth_pass=b"x") is None
    assert kind(**AH) is AuthenticationHeader
    assert kind(**(AH | {"family": 6})) is None
    assert kind(**HMAC) is SignedTrailer


def test_two_masters_that_always_speak_at_the_same_moment_hear_each_other() -> None:
    """They count alike: what is ours alone was not seen before. Once; and not what comes back to us."""
    config = ah_config()
    one, other, strange = made(config), made(config), "192.0.2.77"
    mine = sealed(config, one)
    (theirs,) = other.seal(Adverts(config, strange, 1, old_checksum=False).of(100), 0)
    assert mine[28:32] == theirs.data[28:32]
    assert refused(mine, config, one) is DropReason.AUTH_FAILURE
    assert judged(theirs.data, config, one, source=strange).priority == 100
    assert refused(theirs.data, config, one, source=strange) is DropReason.AUTH_FAILURE
