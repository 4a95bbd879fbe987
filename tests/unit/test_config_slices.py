"""What each child is given, and that it reads back the same."""

import msgspec
import pytest

from kad.config.model.config import Config
from kad.config.slices import (
    Known,
    decode_bfd,
    decode_check,
    decode_vrrp,
    master_down_us,
    roles,
    slices,
    supervisor_settings,
)
from kad.ipc.messages import Role
from tests.support.configuration import read

WHOLE = """
child_wait_time 7
vrrp_script chk {
    script /bin/chk
}
vrrp_instance A {
    interface eth0
    virtual_router_id 1
    version 3
    advert_int 0.1
    priority 200
    track_script {
        chk
    }
    virtual_ipaddress {
        10.0.0.1
    }
}
vrrp_instance B/1 {
    interface eth0
    virtual_router_id 2
    virtual_ipaddress {
        10.0.0.2
    }
}
static_routes {
    10.0.0.0/8 via 192.0.2.1
    10.1.0.0/16 via 192.0.2.1
}
virtual_server 10.0.0.1 80 {
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    real_server 10.0.0.2 80 {
        TCP_CHECK {
        }
    }
}
bfd_instance one {
    neighbor_ip 192.0.2.9
}
SSL {
    ca /etc/ca.pem
}
"""


def test_a_slice_reads_back_as_what_it_was_made_of() -> None:
    config = read(WHOLE).config
    made = slices(config)
    assert decode_vrrp(made[Role.VRRP]) == config.vrrp
    assert decode_check(made[Role.CHECK]) == config.check
    assert decode_bfd(made[Role.BFD]) == config.bfd


def test_objects_are_named_and_in_order() -> None:
    made = slices(read(WHOLE).config)
    assert list(made[Role.VRRP]) == [
        "settings",
        "script/chk",
        "instance/A",
        "instance/B/1",
        "static_route/0",
        "static_route/1",
    ]
    assert list(made[Role.BFD]) == ["session/one"]


def test_a_change_changes_one_object() -> None:
    before = slices(read(WHOLE).config)[Role.VRRP]
    after = slices(read(WHOLE.replace("priority 200", "priority 201")).config)[Role.VRRP]
    assert [name for name in before if before[name] != after[name]] == ["instance/A"]


def test_what_did_not_change_is_the_same_object_and_a_broken_slice_changes_nothing() -> None:
    service = WHOLE[WHOLE.index("virtual_server") : WHOLE.index("bfd_instance")]
    text = service + service.replace("10.0.0.1 80", "10.0.0.3 80")
    known: Known = {}
    before = decode_check(slices(read(text).config)[Role.CHECK], known)
    changed = slices(read(text.replace("10.0.0.2 80", "10.0.0.4 80", 1)).config)[Role.CHECK]
    with pytest.raises(msgspec.MsgspecError):
        decode_check({**changed, list(changed)[-1]: b"?"}, known)
    after = decode_check(changed, known)
    assert after == decode_check(changed)
    assert after.virtual_servers[0] != before.virtual_servers[0]
    assert after.virtual_servers[1] is before.virtual_servers[1]
    assert list(known) == [name for name in changed if name.startswith("virtual_server/")]


def test_only_the_children_that_have_something_to_do_are_needed() -> None:
    assert roles(read(WHOLE).config) == (Role.CHECK, Role.VRRP, Role.BFD)
    assert roles(Config()) == ()
    assert slices(Config()) == {}
    assert roles(read("bfd_instance one {\nneighbor_ip 192.0.2.9\n}").config) == (Role.BFD,)


def test_the_supervisor_is_told_the_shortest_master_down_interval() -> None:
    config = read(WHOLE).config
    first, second = config.vrrp.instances
    assert master_down_us(first) == 3 * 100_000 + 56 * 100_000 // 256
    assert master_down_us(second) == 3 * 1_000_000 + 156 * 1_000_000 // 256
    told = supervisor_settings(config)
    assert (told.least_master_down_us, told.child_wait_us) == (master_down_us(first), 7_000_000)
    assert supervisor_settings(Config()).least_master_down_us == 3_000_000
