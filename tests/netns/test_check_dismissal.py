"""A reload that takes the last virtual server out: it is told of like one of several, as with keepalived."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.ipvs_double import IpvsDouble, KadWithIpvs, KeepalivedWithIpvs
from tests.support.keepalived import configuration, needs_keepalived
from tests.support.namespaces import Network, poll

pytestmark = pytest.mark.root

SERVICE = """
virtual_server 192.0.2.50 80 {{
    lb_algo rr
    lb_kind DR
    protocol TCP
    {extra}
    quorum_up "{script} gained"
    quorum_down "{script} lost"
    real_server 192.0.2.2 80 {{
        notify_down "{script} down"
    }}
}}
"""


@pytest.mark.parametrize("extra", ["", "omega"])
@pytest.mark.parametrize("program", [KeepalivedWithIpvs, KadWithIpvs])
def test_the_last_service_is_told_as_down(
    network: Network, tmp_path: Path, program: type[KadWithIpvs | KeepalivedWithIpvs], extra: str
) -> None:
    if program is KeepalivedWithIpvs:
        needs_keepalived()
    node = network.node("node")
    node.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    tmp_path.chmod(0o755)
    script, told = tmp_path / "notify", tmp_path / "told"
    script.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    script.chmod(0o755)
    told.touch()
    settings = ["script_user root"]
    text = configuration(SERVICE.format(script=script, extra=extra), settings=settings)
    with IpvsDouble() as double, program(double, node, text) as daemon:
        poll(lambda: told.read_text() == "gained\n", lambda: f"the quorum: {told.read_text()}")
        daemon.configure(configuration(settings=settings))
        daemon.reload()
        poll(
            lambda: sorted(told.read_text().split()) == ["down", "gained", "lost"],
            lambda: told.read_text(),
        )
        poll(lambda: not double.table.lines(), "the service to leave the kernel")


def test_with_services_kept_at_a_stop_those_that_a_reload_removes_go(network: Network) -> None:
    node = network.node("node")
    node.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    text = configuration(SERVICE.format(script="/bin/true", extra=""), settings=["script_user root"])
    with IpvsDouble() as double, KadWithIpvs(double, node, text, "--dont-release-ipvs") as kad:
        poll(lambda: len(double.table.lines()) == 2, "the service")
        kad.configure(configuration())
        kad.reload()
        poll(lambda: not double.table.lines(), "the service to leave the kernel")
