"""The encoder of nf_tables against nft(8): what we write is what it reads."""

import re
import shutil

import pytest

from kad.addresses import packed
from kad.kernel import nft_socket
from kad.kernel import nftables as nf
from tests.support.namespaces import Network, Node

pytestmark = pytest.mark.root

IPV4, IPV6 = nf.Family.IPV4, nf.Family.IPV6


@pytest.fixture
def node(network: Network) -> Node:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    made = network.node("nft")
    if made.run(["nft", "list", "ruleset"], check=False).returncode:
        pytest.skip("this kernel has no nf_tables")
    return made


def commit(node: Node, *commands: nf.Command) -> str:
    with node.entered():
        return nft_socket.commit(commands)


def listed(node: Node, family: str) -> list[str]:
    text = node.run(["nft", "-n", "list", "table", family, "t"]).stdout
    return [" ".join(line.split()) for line in text.splitlines() if line.split()]


def test_addresses_are_dropped(node: Node) -> None:
    said = commit(
        node,
        *nf.replaced_table(IPV4, "t"),
        nf.base_chain(IPV4, "t", "in", nf.Hook.LOCAL_IN, -1),
        nf.new_set(IPV4, "t", "vips", (nf.KeyType.IPV4_ADDRESS,), number=1),
        *nf.elements(IPV4, "t", "vips", [packed("192.0.2.1"), packed("192.0.2.9")]),
        nf.rule(
            IPV4, "t", "in", nf.payload(nf.Header.NETWORK, 16, 4), nf.lookup("vips"), nf.COUNTER, nf.DROP
        ),
    )
    assert said == ""
    lines = listed(node, "ip")
    assert "type filter hook input priority -1; policy accept;" in lines
    assert "type ipv4_addr" in lines
    assert "elements = { 192.0.2.1, 192.0.2.9 }" in lines
    assert "ip daddr @vips counter packets 0 bytes 0 drop" in lines


def test_a_set_may_have_more_addresses_than_one_message(node: Node) -> None:
    addresses = [f"10.{index // 250}.{index % 250}.1" for index in range(5_000)]
    said = commit(
        node,
        *nf.replaced_table(IPV4, "t"),
        nf.new_set(IPV4, "t", "vips", (nf.KeyType.IPV4_ADDRESS,), number=1),
        *nf.elements(IPV4, "t", "vips", map(packed, addresses)),
    )
    assert said == ""
    assert set(re.findall(r"10[.0-9]+", " ".join(listed(node, "ip")))) == set(addresses)


def test_maps_copies_kinds_and_marks(node: Node) -> None:
    index = (1).to_bytes(4, "little")
    commands = (
        *nf.replaced_table(IPV4, "t"),
        nf.base_chain(IPV4, "t", "out", nf.Hook.LOCAL_OUT, 5),
        nf.new_set(IPV4, "t", "m", (nf.KeyType.INTERFACE_INDEX,), number=1, data=nf.KeyType.INTERFACE_INDEX),
        *nf.elements(IPV4, "t", "m", {index: index}),
        nf.rule(
            IPV4,
            "t",
            "out",
            nf.meta(nf.Meta.OUT_KIND),
            nf.equals(b"macvlan".ljust(16, b"\0")),
            nf.payload(nf.Header.NETWORK, 16, 4),
            nf.meta(nf.Meta.OUT_INDEX, nf.REGISTER_2),
            nf.lookup("m", nf.REGISTER_2, nf.REGISTER_2),
            nf.duplicate(nf.REGISTER_1, nf.REGISTER_2),
            nf.DROP,
        ),
        nf.rule(IPV4, "t", "out", nf.load((77).to_bytes(4, "little")), nf.set_meta(nf.Meta.MARK)),
    )
    assert commit(node, *commands) == ""
    lines = listed(node, "ip")
    assert 'meta oifkind "macvlan" dup to ip daddr device oif map @m drop' in lines
    assert any(line.startswith("elements = {") and line.count('"lo"') == 2 for line in lines), lines
    assert "meta mark set 0x0000004d" in lines
    assert commit(node, *commands) == "", "over itself"
    assert commit(node, *nf.removed_table(IPV4, "t")) == ""
    assert commit(node, *nf.removed_table(IPV4, "t")) == "", "there or not"
    assert "table" not in node.run(["nft", "list", "ruleset"]).stdout


def test_link_local_addresses_with_their_interface(node: Node) -> None:
    key = packed("fe80::1") + b"lo".ljust(16, b"\0")
    said = commit(
        node,
        *nf.replaced_table(IPV6, "t"),
        nf.base_chain(IPV6, "t", "in", nf.Hook.LOCAL_IN, -1),
        nf.chain(IPV6, "t", "ll"),
        nf.new_set(IPV6, "t", "s", (nf.KeyType.IPV6_ADDRESS, nf.KeyType.INTERFACE_NAME), number=1),
        *nf.elements(IPV6, "t", "s", [key]),
        nf.new_set(IPV6, "t", "nd", (nf.KeyType.ICMPV6_TYPE,), number=2, constant=True),
        *nf.elements(IPV6, "t", "nd", [bytes([135]), bytes([136])]),
        nf.rule(
            IPV6,
            "t",
            "in",
            nf.meta(nf.Meta.LAYER_4_PROTOCOL),
            nf.equals(bytes([58])),
            nf.payload(nf.Header.TRANSPORT, 0, 1),
            nf.lookup("nd"),
            nf.ACCEPT,
        ),
        nf.rule(
            IPV6,
            "t",
            "in",
            nf.payload(nf.Header.NETWORK, 24, 16),
            nf.masked(b"\xff\xc0" + bytes(14)),
            nf.equals(b"\xfe\x80" + bytes(14)),
            nf.go_to("ll"),
        ),
        nf.rule(
            IPV6,
            "t",
            "ll",
            nf.payload(nf.Header.NETWORK, 24, 16),
            nf.meta(nf.Meta.IN_NAME, nf.REGISTER_2),
            nf.lookup("s"),
            nf.DROP,
        ),
    )
    assert said == ""
    lines = listed(node, "ip6")
    assert "type ipv6_addr . ifname" in lines
    assert 'elements = { fe80::1 . "lo" }' in lines
    assert "ip6 daddr fe80::/10 goto ll" in lines
    assert "ip6 daddr . iifname @s drop" in lines
    assert "icmpv6 type @nd accept" in lines


def test_a_refused_command_changes_nothing_and_says_why(node: Node) -> None:
    said = commit(node, nf.table(IPV4, "t"), nf.rule(IPV4, "t", "absent", nf.DROP))
    assert "ENOENT" in said and "command 2" in said
    assert "table" not in node.run(["nft", "list", "ruleset"]).stdout
