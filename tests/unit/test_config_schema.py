"""The grammar is whole, and what is made from it is current."""

from pathlib import Path

import pytest

from kad.config.build import blocks
from kad.config.grammar.language import LANGUAGE
from kad.config.grammar.root import ROOT
from kad.config.keywords_page import entries, page
from kad.config.schema import Block, Kind, Row

ROOTS = Path(__file__).parents[2]
REFERENCE = [
    tuple(line.split("\t", 1)) for line in (ROOTS / "tests/golden/keywords.txt").read_text().splitlines()
]
OURS = [("bfd_instance", "interface")]
STANDS_FOR = {
    # keepalived's manual describes these in words; the grammar has what they mean
    ("static_ipaddress", "(all virtual_ipaddress items except use_vmac)"): ("static_ipaddress", "label"),
    ("vrrp_instance/virtual_ipaddress_excluded", "(all virtual_ipaddress items)"): (
        "vrrp_instance/virtual_ipaddress_excluded",
        "use_vmac",
    ),
    ("virtual_server/real_server/SMTP_CHECK/host", "(block)"): (
        "virtual_server/real_server/SMTP_CHECK",
        "host",
    ),
    **{
        ("virtual_server_group", item): ("virtual_server_group", "<address, range or fwmark>")
        for item in ("<IP> [PORT]", "<IP-N> / <IP-IP> / <IP/LEN> [PORT]", "fwmark N [inet/inet6]")
    },
}


def known() -> dict[tuple[str, str], tuple[Row, Block]]:
    found = {}
    for block in (LANGUAGE, *blocks(ROOT)):
        for path, row, owner in entries(block):
            found[path, row.name] = (row, owner)
    return found


KNOWN = known()


def test_every_keyword_of_keepalived_has_a_row() -> None:
    missing = [entry for entry in REFERENCE if STANDS_FOR.get(entry, entry) not in KNOWN]
    assert len(REFERENCE) == 777
    assert missing == []


def test_no_row_is_unknown_to_keepalived() -> None:
    """Beyond the reference there are items of lists, the words of lines it describes as a whole, and ours."""
    listed = {STANDS_FOR.get(entry, entry) for entry in REFERENCE}
    addresses = ("static_ipaddress", "vrrp_instance/virtual_ipaddress_excluded", "global_defs/lvs_timeouts")
    unknown = [
        (path, name)
        for path, name in KNOWN
        if (path, name) not in listed and not name.startswith("<") and path not in addresses
    ]
    assert unknown == OURS


@pytest.mark.parametrize("name", sorted(KNOWN), ids="/".join)
def test_a_row_says_what_it_means(name: tuple[str, str]) -> None:
    row, _ = KNOWN[name]
    assert row.help.endswith(".")
    assert row.kind.text
    assert not row.alias_of or any(key[1] == row.alias_of for key in KNOWN if key[0] == name[0])


@pytest.mark.parametrize("name", sorted(KNOWN), ids="/".join)
def test_a_row_has_a_default_where_one_can_be(name: tuple[str, str]) -> None:
    """Fields without a default in the model are required, or their row tells."""
    row, block = KNOWN[name]
    model = block.model
    if model is None or "." in row.target or row.target not in model.__struct_fields__:
        return
    position = model.__struct_fields__.index(row.target)
    has_default = position >= len(model.__struct_fields__) - len(model.__struct_defaults__)
    assert has_default or row.default or row.alias_of


def test_the_page_of_keywords_is_current() -> None:
    assert (ROOTS / "docs/keywords.md").read_text() == page(), (
        "run: python -m kad.config.keywords_page > docs/keywords.md"
    )


def test_a_block_refuses_two_rows_of_one_name() -> None:
    row = Row("twice", Kind("flag"), "Once.")
    with pytest.raises(ValueError, match="two rows"):
        Block("somewhere", (row, row))
