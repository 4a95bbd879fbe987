"""The walk over statements: what has no row, what stands twice, what opens no block, what does not act."""

import pytest

from kad.config.load import load
from kad.config.source import TextReader
from kad.errors import Diagnostic, Severity
from tests.support.configuration import assert_as_annotated, read

INSTANCE = "interface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n10.0.0.1\n}"


def told(text: str, code: str) -> list[Diagnostic]:
    return [each for each in read(text).diagnostics if each.code == code]


def test_an_unknown_block_is_skipped_whole_and_each_of_its_lines_told() -> None:
    loaded = assert_as_annotated(
        """
vrrp_instance VI_1 {
interface eth0
virtual_router_id 1
tracking_things { # unknown-keyword
    priority 200 # skipped
    inner { # skipped
        advert_int 5 # skipped
    }
}
virtual_ipaddress { # keepalived-strays/0
10.0.0.1 # keepalived-strays/0
}
}
"""
    )
    (instance,) = loaded.config.vrrp.instances
    assert (instance.priority, instance.advert_int_us) == (100, 1_000_000)
    assert instance.virtual_addresses[0].address == "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (f"vrrp_instance A {{\n{INSTANCE}\npriorty 5\n}}", "did you mean 'priority'?"),
        (f"vrrp_instance A {{\n{INSTANCE}\nrouter_id x\n}}", "'router_id' stands in global_defs"),
        ("vrrp_instanse A {\n}", "did you mean 'vrrp_instance'?"),
        ("global_defs {\nxyzzy\n}", ""),
    ],
)
def test_an_unknown_keyword_gets_the_nearest_one_or_its_place(text: str, remedy: str) -> None:
    (found,) = told(text, "unknown-keyword")
    assert found.remedy == remedy
    assert found.severity is Severity.ERROR


def test_a_keyword_that_opens_no_block_keeps_its_value() -> None:
    text = f"vrrp_instance A {{\n{INSTANCE}\npriority 7 {{ # unexpected-block\nstate MASTER # skipped\n}}\n}}"
    (instance,) = assert_as_annotated(text).config.vrrp.instances
    assert (instance.priority, str(instance.wanted_state)) == (7, "BACKUP")


def test_a_block_without_braces_and_one_with_too_many_words_are_told() -> None:
    assert_as_annotated("static_routes # no-block")
    text = f"vrrp_instance A {{\n{INSTANCE}\nauthentication PASS {{ # extra-words/0\n}}\n}}"
    assert_as_annotated(text)


def test_global_settings_hold_wherever_they_stand() -> None:
    text = f"vrrp_instance A {{\n{INSTANCE}\n}}\nglobal_defs {{\nvrrp_garp_master_repeat 2\n}}"
    (instance,) = assert_as_annotated(text).config.vrrp.instances
    assert instance.garp.master_repeat == 2


def test_a_missing_argument_is_fatal_and_everything_else_is_told_too() -> None:
    text = f"vrrp_instance A {{\n{INSTANCE}\npriority # missing-argument/2\nxyzzy # unknown-keyword\n}}"
    loaded = assert_as_annotated(text)
    assert loaded.exit_status == 2 and not loaded.runnable


def test_a_quote_without_partner_is_told_once() -> None:
    loaded = read('global_defs {\nrouter_id "node\n}')
    assert [each.code for each in loaded.diagnostics if each.severity is Severity.ERROR]


def test_identity_is_free_of_lines() -> None:
    one = told(f"vrrp_instance A {{\n{INSTANCE}\npriorty 5\n}}", "unknown-keyword")
    other = told(f"\n\n\nvrrp_instance A {{\n\n{INSTANCE}\n\npriorty 5\n}}", "unknown-keyword")
    assert one[0].identity == other[0].identity
    assert one[0].span != other[0].span
    elsewhere = told(f"vrrp_instance B {{\n{INSTANCE}\npriorty 5\n}}", "unknown-keyword")
    assert one[0].identity != elsewhere[0].identity


def test_what_does_not_act_yet_is_told_once_a_keyword() -> None:
    text = """
global_defs {
    enable_dbus
    enable_dbus
}
global_defs {
    enable_dbus
    enable_snmp_vrrp
}
"""
    loaded = load("k.conf", reader=TextReader({"k.conf": text}))
    assert [(each.span.line, each.message.split("'")[1]) for each in loaded.dormant if each.span] == [
        (3, "enable_dbus"),
        (8, "enable_snmp_vrrp"),
    ]
    assert all(each.severity is Severity.NOTE and each.exit_status == 0 for each in loaded.dormant)


def test_blocks_may_be_nested_beyond_reason() -> None:
    text = "a {\n" * 500 + "}\n" * 500
    loaded = read(text)
    assert loaded.exit_status == 5


HEADS = """\
global_defs x { # extra-words/0
}
vrrp_script S x { # extra-words/0
script /bin/true
}
vrrp_track_process P x { # extra-words/0
process sleep
}
track_file F x { # extra-words/0
file /tmp/x
}
SSL x { # extra-words/0
}
bfd_instance b x { # extra-words/0
neighbor_ip 10.0.0.4
}
garp_group x { # extra-words/0
garp_interval 1
interfaces y { # extra-words
eth0
}
}
static_ipaddress x { # extra-words
10.0.0.4 dev eth0
}
virtual_server 10.0.0.1 80 x { # extra-words/0
lvs_sched rr
lvs_method NAT
protocol TCP
real_server 10.0.0.2 80 x { # extra-words/0
TCP_CHECK 1 { # extra-words/0
}
HTTP_GET x { # extra-words/0
url x y { # extra-words/0
path /
}
}
}
}
"""


def test_words_too_many_before_a_brace_are_told_at_every_block() -> None:
    """With keepalived's statuses: it speaks of them only where a block is a list, and then they count."""
    config = assert_as_annotated(HEADS).config
    assert [each.name for each in config.vrrp.scripts] == ["S"]
    assert [each.name for each in config.bfd.instances] == ["b"]


def test_a_name_with_words_too_many_is_found_by_its_name() -> None:
    text = f"vrrp_script S x {{ # extra-words/0\nscript /bin/true\n}}\nvrrp_instance A {{\n{INSTANCE}\n" + (
        "track_script {\nS\n}\n}"
    )
    (instance,) = assert_as_annotated(text).config.vrrp.instances
    assert [each.name for each in instance.tracking.scripts] == ["S"]
