"""What cannot be put into a message to IPVS: found before the commit, or refused alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from kad.config.model.check import (
    CheckConfiguration,
    Forwarding,
    ForwardingMethod,
    GroupRange,
    Protocol,
    RealServer,
    SorryServer,
    TunnelType,
    VirtualServer,
    VirtualServerGroup,
)
from kad.config.model.globals import IpvsTimeouts, SyncDaemon
from kad.config.slices import Known, slices
from kad.ipc.messages import Role
from kad.kernel.batch import Outcome, Request
from kad_check.app import prepare
from kad_check.core.ipvs_plan import Change, Desired, plan
from kad_check.core.ipvs_state import Destination, PoolState, services_of
from kad_check.io import packing
from kad_check.io.ipvs_worker import Task, Worker
from tests.support.configuration import read
from tests.support.trials import verdict_of

GUE = Forwarding(ForwardingMethod.TUNNEL, TunnelType.GUE, 199999)
REAL = RealServer("192.0.2.9", 80)
SERVER = VirtualServer("10.0.0.1", 80, protocol=Protocol.TCP, real_servers=(REAL,))


def configuration(**fields: object) -> CheckConfiguration:
    return CheckConfiguration(virtual_servers=(replace(SERVER, **fields),))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (configuration(real_servers=(replace(REAL, forwarding=GUE),)), "server 192.0.2.9 80"),
        (configuration(real_servers=(replace(REAL, weight=1 << 32),)), "server 192.0.2.9 80"),
        (configuration(sorry_server=SorryServer("192.0.2.8", 80, GUE)), "server 192.0.2.8 80"),
        (configuration(port=65536), "virtual server [10.0.0.1]:tcp:65536"),
        (configuration(persistence_timeout=1 << 32), "virtual server [10.0.0.1]:tcp:80"),
    ],
)
def test_a_value_without_room_is_found_by_name(wrong: CheckConfiguration, words: str) -> None:
    assert words in verdict_of(packing.trial(wrong, wrong.virtual_servers))


def test_settings_are_tried() -> None:
    good = CheckConfiguration()
    for wrong in (
        replace(good.settings, timeouts=IpvsTimeouts(tcp=1 << 32)),
        replace(good.settings, sync_daemon=SyncDaemon("eth0", port=65536)),
    ):
        assert "lvs_" in verdict_of(packing.trial(replace(good, settings=wrong), ()))


def test_of_a_range_one_address_is_tried() -> None:
    group = VirtualServerGroup("G", (GroupRange("10.0.0.0", "10.3.255.255", 80),), ())
    wrong = VirtualServerGroup("G", (GroupRange("10.0.0.0", "10.3.255.255", 65536),), ())
    server = replace(SERVER, address="", port=0, group="G")
    trial = packing.trial(CheckConfiguration(virtual_servers=(server,), groups=(group,)), (server,))
    assert verdict_of(trial) == ""
    assert "[G]:0" in verdict_of(packing.trial(CheckConfiguration(groups=(wrong,)), (server,)))


TEXT = """virtual_server_group G {{
    10.0.0.2 {port}
}}
virtual_server 10.0.0.1 80 {{
    protocol TCP
    real_server 192.0.2.9 80 {{
        weight {weight}
    }}
}}
virtual_server group G {{
    protocol TCP
    real_server 192.0.2.9 80 {{
    }}
}}
"""


def slice_of(*, port: int = 80, weight: int = 1) -> dict[str, bytes]:
    return slices(read(TEXT.format(port=port, weight=weight)).config)[Role.CHECK]


def test_only_what_a_reload_changes_is_tried_again() -> None:
    known: Known = {}
    assert verdict_of(prepare(slice_of(), known)) == ""
    names = []
    for slice_ in (slice_of(), slice_of(weight=2), slice_of(port=81)):
        before = dict(known)
        assert verdict_of(prepare(slice_, known)) == ""
        names.append([server.name for server in packing.changed(known, before)])
    assert names == [[], ["[10.0.0.1]:tcp:80"], ["[10.0.0.1]:tcp:80", "[G]:0"]]


def poisonous() -> dict[str, bytes]:
    slice_ = slice_of()
    key = next(key for key in slice_ if key.startswith("virtual_server/"))
    server = msgpack.decode(slice_[key], type=VirtualServer)
    real = replace(server.real_servers[0], forwarding=GUE)
    return {**slice_, key: msgpack.encode(replace(server, real_servers=(real,)))}


def test_what_was_refused_is_refused_again() -> None:
    known: Known = {}
    assert verdict_of(prepare(slice_of(), known)) == ""
    for _ in range(2):
        assert "192.0.2.9 80" in verdict_of(prepare(poisonous(), known))
    assert "does not decode" in verdict_of(prepare({"virtual_server/x": b"?"}, known))
    assert verdict_of(prepare(slice_of(), known)) == ""


def test_what_was_not_tried_to_its_end_is_tried_again() -> None:
    known: Known = {}
    trial = prepare(poisonous(), known)
    assert not isinstance(trial, str)
    trial.close()
    assert "192.0.2.9 80" in verdict_of(prepare(poisonous(), known))


# At run time ---------------------------------------------------------------------------------------------


class Queue:
    """A kernel that does whatever it is asked."""

    def __init__(self) -> None:
        self.sent: list[Request] = []

    def submit(self, requests: list[Request], done: Callable[[list[Outcome]], None]) -> None:
        self.sent += requests
        done([Outcome(request, 0) for request in requests])


def test_a_destination_that_cannot_be_asked_for_is_refused_alone() -> None:
    queue: Any = Queue()
    loop = asyncio.new_event_loop()
    worker = Worker(queue, loop, lambda _line: None, lambda: None)
    loop.close()
    bad = Destination("192.0.2.9", 80, 1, GUE)
    good = Destination("192.0.2.10", 80, 1, Forwarding())
    state = PoolState("pool", services_of(SERVER, None), (bad, good))
    worker.desired = Desired((state,))
    worker.appear(23)
    refused: list[tuple[Change, str]] = []
    done: list[Task] = []
    task = Task(done.append, lambda change, reason: refused.append((change, reason)))
    worker.add(task, list(plan(worker.desired, worker.actual, ())))
    assert len(queue.sent) == 2, "the service and the other server"
    assert done == [task] and len(task.failures) == 1
    ((change, reason),) = refused
    assert change.destination == (bytes([192, 0, 2, 9]), 80) and "cannot be put into a message" in reason
    (service,) = worker.actual.values()
    assert list(service.destinations) == [(bytes([192, 0, 2, 10]), 80)]
