"""Numbers spelled oddly after every keyword and option: they are refused, or what was read can be packed.

Zeros in front, signs, underscores, digits of other scripts, parts missing: what the reader lets through the
encoders must take, since nothing stands between a committed configuration and them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from kad.config.build import blocks
from kad.config.grammar.addresses import ADDRESS_OPTIONS
from kad.config.grammar.check import REAL_SERVER, VIRTUAL_SERVER
from kad.config.grammar.root import ROOT
from kad.config.grammar.routes import ENCAP_OPTIONS, VIRTUAL_ROUTES, VIRTUAL_RULES
from kad.config.grammar.vrrp import VRRP_INSTANCE
from kad.config.schema import Block, Row
from kad_check.io import packing as check_packing
from kad_vrrp.io import packing as vrrp_packing
from tests.property.test_config_grammar import load_text, within
from tests.support.configuration import read
from tests.support.extremes import odd_lines
from tests.support.trials import verdict_of

LINES_A_FILE = 100


def instance(number: int, line: str, *, addresses: Iterable[str] = ("192.0.2.1",)) -> str:
    inner = "\n".join(addresses)
    return f"""vrrp_instance I{number} {{
        interface eth0
        virtual_router_id {number % 255 + 1}
        virtual_ipaddress {{
            {inner}
        }}
        {line}
    }}
    """


def service(number: int, line: str, real: str = "", head: str = "") -> str:
    return f"""virtual_server {head or f"10.0.{number // 250}.{number % 250 + 1} 80"} {{
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        {line}
        real_server 192.0.2.201 80 {{
            {real}
        }}
    }}
    """


def reads_and_packs(text: str) -> None:
    config = read(text).config
    assert verdict_of(vrrp_packing.trial(config.vrrp)) == ""
    assert verdict_of(check_packing.trial(config.check, config.check.virtual_servers)) == ""


def names(rows: Iterable[Row]) -> list[str]:
    return [word for row in rows for word in row.name.split() if word[0] not in "<["]


def parts(lines: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(lines), LINES_A_FILE):
        yield lines[start : start + LINES_A_FILE]


ROUTES = (
    *(f"192.0.2.0/24 dev eth0 {name} " for name in names(VIRTUAL_ROUTES.item.kind.options)),  # type: ignore[union-attr]
    *(f"2001:db8::/32 dev eth0 {name} " for name in ("expires", "pref", "metric", "from", "hoplimit")),
    *(f"192.0.2.0/24 dev eth0 mtu lock{blank}" for blank in ("", " ")),
    *(f"192.0.2.0/24 encap ip id 1 {row.name} " for row in ENCAP_OPTIONS),
    *(f"2001:db8::/32 encap ip6 id 1 {row.name} " for row in ENCAP_OPTIONS),
    *(f"192.0.2.0/24 dev eth0 encap {kind} " for kind in ("mpls", "ila", "mpls 1/", "ila 1:1:1:")),
    *(f"192.0.2.0/24 nexthop via 192.0.2.2 {name} " for name in ("weight", "realms", "encap ila")),
    *("192.0.2.0/", "2001:db8::/", "192.0.2.", ""),
)
RULES = (
    *(f"table 10 {name} " for name in names(VIRTUAL_RULES.item.kind.options)),  # type: ignore[union-attr]
    *("priority 5 goto ", "goto 9 priority ", "table ", "table 10 from 192.0.2.0/", "table 10 fwmark 1/", ""),
    *("table 10 no_track protocol ", "table 10 sport 1-", "table 10 realms 1/"),
)
ADDRESSES = (
    *(f"192.0.2.1/24 {name} " for name in names(ADDRESS_OPTIONS)),
    *(f"2001:db8::1/64 {name} " for name in names(ADDRESS_OPTIONS)),
    *("192.0.2.1/", "2001:db8::1/", "192.0.2.", ""),
)


@pytest.mark.parametrize("beginning", ROUTES)
def test_routes(beginning: str) -> None:
    lines = "\n".join(odd_lines(beginning))
    reads_and_packs(instance(1, f"virtual_routes {{\n{lines}\n}}") + f"static_routes {{\n{lines}\n}}\n")


@pytest.mark.parametrize("beginning", RULES)
def test_rules(beginning: str) -> None:
    lines = "\n".join(odd_lines(beginning))
    reads_and_packs(instance(1, f"virtual_rules {{\n{lines}\n}}") + f"static_rules {{\n{lines}\n}}\n")


@pytest.mark.parametrize("beginning", ADDRESSES)
def test_addresses(beginning: str) -> None:
    lines = odd_lines(beginning)
    inner = "\n".join(lines)
    reads_and_packs(instance(1, "", addresses=lines) + f"static_ipaddress {{\n{inner}\n}}\n")


@pytest.mark.parametrize("row", VRRP_INSTANCE.rows, ids=lambda row: row.name)
def test_keywords_of_an_instance(row: Row) -> None:
    if row.kind.block is None:
        lines = odd_lines(f"{row.name} ", f"{row.name} vmac7 ", f"{row.name} group ")
        reads_and_packs("".join(instance(number, line) for number, line in enumerate(lines)))


@pytest.mark.parametrize("row", VIRTUAL_SERVER.rows, ids=lambda row: row.name)
def test_keywords_of_a_virtual_server(row: Row) -> None:
    if row.kind.block is None:
        lines = odd_lines(f"{row.name} ", f"{row.name} TUN type gue port ", f"{row.name} 192.0.2.9 ")
        reads_and_packs("".join(service(number, line) for number, line in enumerate(lines)))


@pytest.mark.parametrize("row", REAL_SERVER.rows, ids=lambda row: row.name)
def test_keywords_of_a_real_server(row: Row) -> None:
    if row.kind.block is None:
        lines = odd_lines(f"{row.name} ", f"{row.name} TUN type gue port ")
        reads_and_packs("".join(service(number, "", line) for number, line in enumerate(lines)))


@pytest.mark.parametrize("beginning", ("10.0.0.0/", "10.0.0.1-", "2001:db8::/", "fwmark ", "10.0.0.1 ", ""))
def test_entries_of_a_group(beginning: str) -> None:
    for number, line in enumerate(odd_lines(beginning)):
        for tail in ("", " 80"):
            group = f"virtual_server_group G {{\n{line}{tail}\n}}\n"
            reads_and_packs(group + service(number, "", head="group G"))


@pytest.mark.parametrize("beginning", ("fwmark ", "10.0.0.1 ", "10.0.0.", ""))
def test_services(beginning: str) -> None:
    for number, line in enumerate(odd_lines(beginning)):
        reads_and_packs(service(number, "", head=line))


@pytest.mark.parametrize("block", blocks(ROOT), ids=lambda block: block.path)
def test_every_other_keyword_is_read(block: Block) -> None:
    for row in block.rows:
        if row.kind.block is None:
            options = [f"{row.name} {option}" for option in ("", *(f"{o.name} " for o in row.kind.options))]
            for lines in parts(odd_lines(*options)):
                load_text(within(block, "\n".join(lines))[0])
