"""What cannot be put into a message: found before the commit, and refused alone where it is found later."""

from __future__ import annotations

import struct

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from kad.config.model.routing import Route, Rule, RuleAction
from kad.config.model.vrrp import VirtualAddress, VirtualLink, VrrpConfiguration, VrrpInstance
from kad.config.slices import slices
from kad.ipc.messages import Role
from kad.ipc.trial import TURN
from kad.kernel.encoder import UNPACKABLE, Unpackable
from kad.kernel.links import LinkTable
from kad_vrrp.app import prepare
from kad_vrrp.core.resources import entries_of
from kad_vrrp.io import link_maker, packing
from kad_vrrp.io.routing import Routing
from tests.support.configuration import read
from tests.support.trials import verdict_of

GOOD_ROUTE = Route(4, "198.51.100.0", 24, interface="eth0")
GOOD_RULE = Rule(4, 100, RuleAction.TABLE, table=10)
BAD_ROUTE = replace(GOOD_ROUTE, metric=1 << 40)
BAD_RULE = replace(GOOD_RULE, ip_protocol=262)
INSTANCE = VrrpInstance(
    "VI",
    51,
    "eth0",
    virtual_addresses=(VirtualAddress("192.0.2.1", 24),),
    virtual_routes=(GOOD_ROUTE,),
    virtual_rules=(GOOD_RULE,),
)


def configuration(**fields: object) -> VrrpConfiguration:
    return VrrpConfiguration(instances=(replace(INSTANCE, **fields),))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (configuration(virtual_routes=(GOOD_ROUTE, BAD_ROUTE)), "(VI) route 198.51.100.0/24"),
        (configuration(virtual_rules=(BAD_RULE,)), "(VI) rule 100:"),
        (configuration(virtual_addresses=(VirtualAddress("192.0.2.7", 24, scope=999),)), "(VI) 192.0.2.7"),
        (configuration(excluded_addresses=(VirtualAddress("192.0.2.8", 24, flags=1 << 32),)), "192.0.2.8"),
        (configuration(virtual_router_id=256), "(VI) the advert"),
        (VrrpConfiguration(virtual_links=(VirtualLink("vmac", "eth0", "02:-1:00:00:00:01"),)), "vmac"),
        (VrrpConfiguration(virtual_links=(VirtualLink("ipvlan", "eth0", address="x"),)), "ipvlan"),
        (VrrpConfiguration(static_routes=(BAD_ROUTE,)), "(static) route 198.51.100.0/24"),
    ],
)
def test_a_value_without_room_is_found_by_name(wrong: VrrpConfiguration, words: str) -> None:
    assert words in verdict_of(packing.trial(wrong))


def test_what_can_be_packed_is_found_good() -> None:
    link = VirtualLink("vmac", "eth0", "02:00:00:00:00:01", group="7")
    assert verdict_of(packing.trial(replace(configuration(), virtual_links=(link,)))) == ""


def test_a_slice_with_such_a_value_is_refused() -> None:
    instance = "vrrp_instance VI {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n192.0.2.1\n}\n}"
    slice_ = slices(read(instance).config)[Role.VRRP]
    assert verdict_of(prepare(slice_)) == ""
    wrong = replace(INSTANCE, virtual_rules=(BAD_RULE,))
    assert "rule 100:" in verdict_of(prepare({**slice_, "instance/VI": msgpack.encode(wrong)}))
    assert "does not decode" in verdict_of(prepare({"instance/VI": b"?"}))


def test_a_thousand_instances_are_tried_in_many_turns() -> None:
    trial = packing.trial(VrrpConfiguration(instances=(INSTANCE,) * 1020))
    objects = 1020 * (1 + len(entries_of(INSTANCE)))
    assert sum(1 for _ in trial) == objects // TURN


# At run time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [BAD_ROUTE, BAD_RULE])
@pytest.mark.parametrize("adding", [True, False])
def test_a_request_that_cannot_be_made_is_refused_alone(entry: Route | Rule, adding: bool) -> None:
    table = LinkTable()
    table.index_of = lambda _name: 3  # type: ignore[method-assign]
    routing = Routing(table, 1, lambda _event: None, str)
    with pytest.raises(Unpackable, match="cannot be put into a message"):
        routing.request(entry, adding=adding)
    good = GOOD_ROUTE if isinstance(entry, Route) else GOOD_RULE
    assert routing.request(good, adding=adding).body


def test_an_interface_that_cannot_be_made_is_a_failure_of_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def __enter__(self) -> Kernel:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    made = []

    def work(making: link_maker._Making) -> None:
        link_maker.mac_bytes(making._link.mac)
        made.append(making._link.name)

    monkeypatch.setattr(link_maker, "Conversation", Kernel)
    monkeypatch.setattr(link_maker._Making, "make", work)
    links = [VirtualLink(name, "eth0", f"02:{name}:00:00:00:01") for name in ("00", "-1", "01")]
    failures = link_maker.make(links)
    assert made == ["00", "01"] and list(failures) == ["-1"]


def test_what_encoders_raise_is_what_is_caught() -> None:
    assert issubclass(struct.error, UNPACKABLE) and issubclass(UnicodeEncodeError, UNPACKABLE)
