"""bfd_instance: every rule once, with its line and exit status."""

import pytest

from kad.config.model.bfd import BfdInstance
from tests.support.configuration import assert_as_annotated


def instance(body: str, neighbor: str = "10.0.0.2") -> BfdInstance:
    (found,) = assert_as_annotated(
        f"bfd_instance peer {{\nneighbor_ip {neighbor}\n{body}\n}}"
    ).config.bfd.instances
    return found


def test_defaults_of_both_families() -> None:
    assert instance("") == BfdInstance("peer", "10.0.0.2", ttl=255)
    # 255 is sent, as RFC 5881 asks; keepalived's 64 is what comes.
    assert instance("", "2001:db8::2") == BfdInstance("peer", "2001:db8::2", ttl=255, expected_ttl=64)


def test_everything_about_a_session() -> None:
    found = instance(
        "source_ip 10.0.0.1\nmin_rx 50.5\nmin_tx 60\nidle_tx 1500\nmultiplier 3\npassive\nttl 9\nmax_hops 4\n"
        "multihop\ninterface eth0\nweight -20 reverse\nvrrp"
    )
    assert found == BfdInstance(
        name="peer",
        neighbor_address="10.0.0.2",
        source_address="10.0.0.1",
        min_rx_us=50_500,
        min_tx_us=60_000,
        idle_tx_us=1_500_000,
        multiplier=3,
        passive=True,
        ttl=9,
        expected_ttl=9,
        max_hops=4,
        multihop=True,
        interface="eth0",
        events_to_vrrp=True,
        events_to_checker=False,
        weight=-20,
        weight_reverse=True,
    )


def test_hoplimit_and_neighbour_ip_are_other_names() -> None:
    (found,) = assert_as_annotated(
        "bfd_instance peer {\nneighbour_ip 10.0.0.2\nhoplimit 3\n}"
    ).config.bfd.instances
    assert (found.neighbor_address, found.ttl) == ("10.0.0.2", 3)


EVENTS = [
    ("", (True, True)),
    ("vrrp", (True, False)),
    ("checker", (False, True)),
    ("vrrp\nchecker", (True, True)),
]


@pytest.mark.parametrize(("lines", "told"), EVENTS)
def test_once_a_process_is_named_only_the_named_are_told(lines: str, told: tuple[bool, bool]) -> None:
    found = instance(lines)
    assert (found.events_to_vrrp, found.events_to_checker) == told


WRONG_LINES = [
    "min_rx 0  # bad-number",
    "min_rx 4294968  # bad-number",
    "min_tx x  # bad-number",
    "min_tx  # missing-argument/2",
    "idle_tx 999  # bad-number",
    "multiplier 0  # bad-number",
    "multiplier 256  # bad-number",
    "ttl 0  # bad-number",
    "hoplimit 256  # bad-number",
    "max_hops -2  # bad-number",
    "multihop x  # bad-boolean",
    "weight 254  # bad-number",
    "weight  # missing-argument/2",
    "source_ip www  # bad-address",
    "neighbor  # unknown-keyword",
]


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_line_changes_nothing(line: str) -> None:
    assert instance(line) == instance("")


def test_intervals_beyond_ten_seconds_are_remarked_on() -> None:
    assert instance("min_rx 10001  # large-interval/0").min_rx_us == 10_001_000
    assert instance("min_rx 10000").min_rx_us == 10_000_000


def test_a_wrong_word_after_a_weight_is_ignored() -> None:
    found = instance("weight 5 backwards  # bad-choice")
    assert (found.weight, found.weight_reverse) == (5, False)


def test_hops_are_limited_by_the_ttl() -> None:
    assert instance("ttl 2\nmax_hops 20  # too-many-hops").max_hops == 2
    assert instance("max_hops 70  # too-many-hops", "::2").max_hops == 64
    assert instance("max_hops -1").max_hops == -1


DISABLED = [
    "bfd_instance {  # missing-argument/2\n}",
    "bfd_instance a-name-of-thirty-two-characters-32 {  # too-long\n neighbor_ip 10.0.0.2\n}",
    "bfd_instance a {\n}  # no-neighbor",
    "bfd_instance a {\n neighbor_ip 10.0.0.2\n source_ip ::1  # family-mismatch\n}",
    "bfd_instance a {\n neighbor_ip www  # bad-address\n min_rx 0  # bad-number\n}",
    "bfd_instance a {\n neighbor_ip  # missing-argument/2\n}",
]


@pytest.mark.parametrize("text", DISABLED)
def test_a_session_that_cannot_be_is_told_once(text: str) -> None:
    assert assert_as_annotated(text).config.bfd.instances == ()


FIRST = "bfd_instance a {\n neighbor_ip 10.0.0.2\n%s}\n"


def test_a_second_instance_of_a_name_is_ignored() -> None:
    text = FIRST % "" + "bfd_instance a {  # duplicate-name\n neighbor_ip 10.0.0.3\n}\n"
    assert [each.neighbor_address for each in assert_as_annotated(text).config.bfd.instances] == ["10.0.0.2"]


RIVALS = [
    ("", "", False),
    ("source_ip 10.0.0.1\n", "", False),
    ("", "source_ip 10.0.0.1\n", False),
    ("source_ip 10.0.0.1\n", "source_ip 10.0.0.1\n", False),
    ("source_ip 10.0.0.1\n", "source_ip 10.0.0.7\n", True),
    ("multihop\n", "", True),
]


@pytest.mark.parametrize(("first", "second", "both"), RIVALS)
def test_two_sessions_with_one_neighbour_need_addresses_of_their_own(
    first: str, second: str, both: bool
) -> None:
    note = "" if both else "  # duplicate-session"
    text = FIRST % first + f"bfd_instance b {{\nneighbor_ip 10.0.0.2{note}\n{second}}}\n"
    assert len(assert_as_annotated(text).config.bfd.instances) == (2 if both else 1)


def test_a_link_local_neighbour_needs_an_interface() -> None:
    assert instance("", "fe80::2  # no-interface/0").neighbor_address == "fe80::2"
    assert instance("", "fe90::2  # no-interface/0").neighbor_address == "fe90::2"
    assert instance("interface eth0", "fe80::2").interface == "eth0"


def test_one_neighbour_on_two_interfaces_is_two_sessions() -> None:
    one, two = (f"bfd_instance {i} {{\nneighbor_ip fe80::2\ninterface eth{i}\n}}" for i in (1, 2))
    assert len(assert_as_annotated(f"{one}\n{two}").config.bfd.instances) == 2
