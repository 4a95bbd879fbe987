"""lvs_sync_daemon: which instance it follows, its id, and the children that need to know."""

from __future__ import annotations

from kad.config.model.globals import SyncDaemon
from kad.config.slices import roles
from kad.ipc.messages import Role
from tests.support.configuration import assert_as_annotated, read

INSTANCE = "vrrp_instance VI_1 {\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {\n10.0.0.1\n}\n}\n"
REAL_SERVER = "real_server 10.0.0.2 80 {\n}\n"
SERVICE = f"virtual_server 10.0.0.1 80 {{\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\n{REAL_SERVER}}}\n"


def test_an_instance_gives_its_router_id() -> None:
    text = "global_defs {\nlvs_sync_daemon eth1 inst VI_1 maxlen 1400\n}\n" + INSTANCE
    config = assert_as_annotated(text).config
    wanted = SyncDaemon("eth1", instance="VI_1", sync_id=51, maximum_length=1400)
    assert config.check.settings.sync_daemon == wanted
    assert config.vrrp.settings.followed_instance == "VI_1"
    assert roles(config) == (Role.CHECK, Role.VRRP), "somebody must program IPVS"


def test_an_id_of_its_own() -> None:
    text = "global_defs {\nlvs_sync_daemon eth1 inst VI_1 id 7\n}\n" + INSTANCE
    daemon = assert_as_annotated(text).config.check.settings.sync_daemon
    assert daemon is not None and daemon.sync_id == 7


def test_without_an_instance() -> None:
    text = "global_defs {\nlvs_sync_daemon eth1\n}\n"
    config = assert_as_annotated(text + INSTANCE).config
    assert roles(config) == (Role.VRRP,)
    config = assert_as_annotated(text + SERVICE).config
    assert config.check.settings.sync_daemon == SyncDaemon("eth1", sync_id=0)
    assert config.vrrp.settings.followed_instance == ""


def test_an_instance_that_does_not_exist() -> None:
    text = "global_defs {\nlvs_sync_daemon eth1 inst VI_2 # not-defined\n}\n" + INSTANCE
    config = assert_as_annotated(text).config
    assert config.globals.lvs_sync_daemon is None
    assert config.vrrp.settings.followed_instance == ""
    assert roles(config) == (Role.VRRP,)


def test_the_form_of_old() -> None:
    text = INSTANCE.replace("interface eth0", "interface eth0\nlvs_sync_daemon_interface eth1 # deprecated")
    config = assert_as_annotated(text).config
    assert config.check.settings.sync_daemon == SyncDaemon("eth1", instance="VI_1", sync_id=0)


def test_the_form_of_old_is_told_at_its_line_where_its_instance_cannot_be() -> None:
    text = INSTANCE.replace(
        "interface eth0", "interface eth0\nlvs_sync_daemon_interface eth1 # deprecated/0 not-defined"
    )
    loaded = read(text.replace("virtual_router_id", "virtual_routr_id"))
    (finding,) = [each for each in loaded.diagnostics if each.code == "not-defined"]
    assert finding.span is not None and finding.source_line.startswith("lvs_sync_daemon_interface")
