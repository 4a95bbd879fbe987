"""A configuration with bytes that are no UTF-8: it runs, and its passwords are those of the file."""

from __future__ import annotations

import pytest

from kad.config.load import load
from kad.config.pattern import compile_pattern
from kad.config.slices import decode_check, decode_vrrp
from kad.config.source import TextReader
from kad.control.candidate import judge
from kad.ipc.messages import Generation, Role
from kad.runtime.process import Options
from tests.support.configuration import InventedMachine

NAME = "keepalived.conf"
TEXT = """
global_defs {
    process_name émile
    router_id é
}
vrrp_script chk_é {
    script "/bin/true é"
}
vrrp_instance VI_é {
    interface eth0
    virtual_router_id 51
    priority 100
    authentication {
        auth_type PASS
        auth_pass gehöim
    }
    virtual_ipaddress {
        192.0.2.100 label eth0:é
    }
    track_script {
        chk_é
    }
    notify_master "/bin/true \\xe9 \\xc3\\xa9"
    notify /bin/${_ENV WHERE}
}
virtual_server_group é {
    192.0.2.101 80
}
virtual_server group é {
    protocol TCP
    virtualhost é
    real_server 192.0.2.7 80 {
        HTTP_GET {
            url {
                path /é
                regex "[\\xe9]\\xc3\\xa9é"
            }
        }
    }
}
"""


@pytest.fixture
def generation() -> Generation:
    content = TEXT.encode("iso8859-1")
    environment = {"WHERE": b"\xe9".decode("utf-8", "surrogateescape")}
    loaded = load(
        NAME, reader=TextReader({NAME: content}), machine=InventedMachine(), environment=environment
    )
    told = [each for each in loaded.diagnostics if each.code == "not-utf-8"]
    assert [each.span.line for each in told if each.span] == [
        number for number, line in enumerate(TEXT.splitlines(), 1) if not line.isascii()
    ]
    made = judge(loaded, Options(), None).generation
    assert made is not None
    return made


def test_whatever_is_text_is_read_as_iso_8859_1(generation: Generation) -> None:
    vrrp = decode_vrrp(generation.slices[Role.VRRP])
    (instance,) = vrrp.instances
    (script,) = vrrp.scripts
    assert (instance.name, script.name, generation.settings.process_name) == ("VI_é", "chk_é", "émile")
    assert instance.tracking.scripts[0].name == "chk_é"
    assert instance.virtual_addresses[0].label == "eth0:é"
    (server,) = decode_check(generation.slices[Role.CHECK]).virtual_servers
    assert server.virtualhost == "é"
    master, every = instance.notify.master, instance.notify.any_state
    assert master is not None and master.argv[1:] == ("é", "é")
    assert every is not None and every.argv == ("/bin/é",)


def test_a_password_and_a_pattern_are_the_bytes_of_the_file(generation: Generation) -> None:
    (instance,) = decode_vrrp(generation.slices[Role.VRRP]).instances
    assert instance.auth_pass == "gehöim".encode("iso8859-1")
    (server,) = decode_check(generation.slices[Role.CHECK]).virtual_servers
    (url,) = server.real_servers[0].checkers[0].urls  # type: ignore[union-attr]
    pattern = compile_pattern(url.regex, ())
    assert pattern.search(b"\xe9" + "é".encode() + b"\xe9")
    assert not pattern.search("éé".encode())
