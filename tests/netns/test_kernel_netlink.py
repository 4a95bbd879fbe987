"""The netlink encoder, the request queue and the monitor against a real kernel."""

import errno
import socket
import struct
from collections.abc import Callable

import pytest

from kad.kernel.batch import WINDOW, Outcome, ReceiveBuffer, Request, RequestQueue
from kad.kernel.encoder import NLM_F_CREATE, NLM_F_EXCL, attribute, text
from kad.kernel.links import (
    IFA_ADDRESS,
    IFA_LABEL,
    IFA_LOCAL,
    RTM_DELADDR,
    RTM_NEWADDR,
    AddressKey,
    LinkTable,
    address_body,
)
from kad.kernel.monitor import LinkMonitor
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

ADD = NLM_F_CREATE | NLM_F_EXCL


def request(kind: int, index: int, written: str, length: int = 32, label: str = "") -> Request:
    data = socket.inet_aton(written)
    parts = attribute(IFA_LOCAL, data) + attribute(IFA_ADDRESS, data)
    if label:
        parts += text(IFA_LABEL, label)
    flags = ADD if kind == RTM_NEWADDR else 0
    return Request(kind, flags, address_body(socket.AF_INET, length, 0, 0, index, parts))


def queue_in(node: Node) -> RequestQueue:
    with node.entered():
        return RequestQueue()


def index_in(node: Node, interface: str) -> int:
    with node.entered():
        return socket.if_nametoindex(interface)


def ask(queue: RequestQueue, requests: list[Request]) -> list[Outcome]:
    answers: list[list[Outcome]] = []
    queue.submit(requests, answers.append)
    poll(lambda: (queue.drain(), bool(answers))[1], "every answer")
    return answers[0]


def test_every_request_has_its_own_answer(network: Network) -> None:
    node = network.node("one")
    index = index_in(node, "lo")
    queue = queue_in(node)
    outcomes = ask(
        queue,
        [
            request(RTM_NEWADDR, index, "10.0.0.1"),
            request(RTM_NEWADDR, index, "10.0.0.1"),
            request(RTM_NEWADDR, 9999, "10.0.0.2"),
            request(RTM_DELADDR, index, "10.0.0.3"),
            request(RTM_NEWADDR, index, "10.0.0.4", label="x" * 40),
            request(RTM_NEWADDR, index, "10.0.0.5"),
        ],
    )
    errors = [outcome.error for outcome in outcomes]
    assert errors == [0, errno.EEXIST, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ERANGE, 0]
    assert "EEXIST" in outcomes[1].reason
    assert [a for a in node.addresses("lo") if a.startswith("10.")] == ["10.0.0.1/32", "10.0.0.5/32"]
    queue.close()


def test_a_thousand_at_once_never_more_than_a_window_on_the_way(network: Network) -> None:
    node = network.node("one")
    index = index_in(node, "lo")
    queue = queue_in(node)
    addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]
    answers: list[list[Outcome]] = []
    queue.submit([request(RTM_NEWADDR, index, each) for each in addresses], answers.append)
    assert len(queue._in_flight) == WINDOW
    assert len([a for a in node.addresses("lo") if a.startswith("10.1.")]) == WINDOW
    poll(lambda: (queue.drain(), bool(answers))[1], "every answer")
    assert [outcome.error for outcome in answers[0]] == [0] * 1000
    assert not queue.busy
    assert len([a for a in node.addresses("lo") if a.startswith("10.1.")]) == 1000
    queue.close()


def test_answers_without_room_are_made_up_for(network: Network) -> None:
    """Whatever is asked next is answered: a full socket gets no answer and no second word about it."""
    node = network.node("one")
    index = index_in(node, "lo")
    queue = queue_in(node)
    with socket.fromfd(queue.fileno(), socket.AF_NETLINK, socket.SOCK_RAW) as its:
        its.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        outcomes = ask(
            queue, [request(RTM_NEWADDR, index, f"10.0.{n >> 8}.{n & 255}") for n in range(WINDOW * 3)]
        )
        errors = [outcome.error for outcome in outcomes]
        assert set(errors) == {0, errno.ENOBUFS}
        # Those that had room have their answers.
        assert errors[0] == errors[WINDOW] == errors[2 * WINDOW] == 0
        its.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    assert ask(queue, [request(RTM_NEWADDR, index, "10.0.0.1")])[0].error == errno.EEXIST
    queue.close()


def test_batches_are_done_in_order_and_may_submit_more(network: Network) -> None:
    node = network.node("one")
    index = index_in(node, "lo")
    queue = queue_in(node)
    done: list[str] = []

    def first(outcomes: list[Outcome]) -> None:
        done.append("first")
        queue.submit([request(RTM_DELADDR, index, "10.0.0.1")], lambda _: done.append("third"))

    queue.submit([request(RTM_NEWADDR, index, "10.0.0.1")] * 100, first)
    queue.submit([request(RTM_NEWADDR, index, "10.0.0.2")] * 100, lambda _: done.append("second"))
    queue.submit([], lambda _: done.append("nothing"))
    poll(lambda: (queue.drain(), len(done) == 4)[1], "all four")
    assert done == ["nothing", "first", "second", "third"]
    assert not node.holds("10.0.0.1")
    assert node.holds("10.0.0.2")
    queue.close()


class Watch:
    """A monitor in a node, and what it told."""

    def __init__(self, node: Node, receive_buffer: int = 0) -> None:
        self.table = LinkTable()
        self.resynced = 0
        with node.entered():
            buffer = ReceiveBuffer(receive_buffer, force=True)
            self.monitor = LinkMonitor(self.table, self.news, receive_buffer=buffer)
        self.monitor.resync()

    def news(self, resynced: bool) -> None:
        self.resynced += resynced

    def until(self, condition: Callable[[], object], what: str) -> None:
        poll(lambda: (self.monitor.drain(), condition())[1], what)


def test_the_monitor_begins_with_everything(network: Network) -> None:
    node, other = network.node("one"), network.node("other")
    network.pair(node, other)
    node.ip("addr", "add", "192.0.2.1/24", "dev", "eth0")
    watch = Watch(node)
    watch.until(lambda: watch.resynced, "the first dump")
    links = {link.name: link for link in watch.table.changes()[1]}
    assert set(links) == {"lo", "eth0"}
    assert links["eth0"].addresses[0] == "192.0.2.1"
    assert links["eth0"].mac.hex(":") == node.mac("eth0")
    assert links["eth0"].up and links["lo"].up
    assert links["lo"].index == 1
    watch.monitor.close()


def test_the_monitor_follows(network: Network) -> None:
    lan = network.bridge()
    node = network.node("one")
    node.attach(lan, "192.0.2.1/24")
    watch = Watch(node)
    watch.until(lambda: watch.resynced, "the first dump")
    watch.table.changes()
    lan.unplug(node, "eth0")
    watch.until(lambda: (link := watch.table.changes()[1]) and not link[-1].up, "carrier lost")
    lan.replug(node, "eth0")
    watch.until(lambda: (link := watch.table.changes()[1]) and link[-1].up, "carrier back")
    watch.table.losses()
    node.ip("addr", "del", "192.0.2.1/24", "dev", "eth0")
    watch.until(lambda: any(loss.address.key.data[0] == 192 for loss in watch.table.losses()), "the loss")
    node.ip("link", "del", "eth0")
    watch.until(lambda: "eth0" in watch.table.changes()[0], "the link's end")
    watch.monitor.close()


def test_catching_up_reads_what_was_said_and_ends_while_others_talk(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = network.node("one")
    index = index_in(node, "lo")
    table = LinkTable(lambda address: False)
    with node.entered():
        monitor = LinkMonitor(table, lambda resynced: None)
    monitor.resync()
    poll(lambda: (monitor.drain(), monitor.synced)[1], "the dump")
    queue = queue_in(node)
    ask(queue, [request(RTM_NEWADDR, index, f"10.9.{n >> 8}.{n & 255}") for n in range(1000)])
    monitor.catch_up()
    last = AddressKey(index, socket.inet_aton(f"10.9.{999 >> 8}.{999 & 255}"), 32)
    assert table.address(last) is not None
    assert not monitor.drain()
    drain, drains = monitor.drain, 0

    def drain_while_somebody_talks() -> bool:
        nonlocal drains
        drains += 1
        assert drains < 100_000
        ask(queue, [request(RTM_NEWADDR if drains % 2 else RTM_DELADDR, index, "10.8.0.1")])
        drain()
        return True

    monkeypatch.setattr(monitor, "drain", drain_while_somebody_talks)
    monitor.catch_up()
    # As many as fill the socket.
    assert 1000 / 64 < drains < 1000
    queue.close()
    monitor.close()


def test_lost_messages_make_it_dump_again(network: Network) -> None:
    node = network.node("one")
    watch = Watch(node, receive_buffer=4096)
    watch.until(lambda: watch.resynced, "the first dump")
    index = index_in(node, "lo")
    queue = queue_in(node)
    ask(queue, [request(RTM_NEWADDR, index, f"10.2.0.{n}") for n in range(1, 201)])
    ask(queue, [request(RTM_DELADDR, index, "10.2.0.1")])
    assert watch.monitor.resyncs == 1
    watch.until(lambda: watch.resynced > 1, "another dump")
    keys = [AddressKey(index, struct.pack("BBBB", 10, 2, 0, n), 32) for n in range(1, 201)]
    assert [watch.table.address(key) is not None for key in keys] == [False] + [True] * 199
    watch.monitor.close()
    queue.close()


def test_a_removed_primary_takes_its_secondaries_under_our_number(network: Network) -> None:
    node = network.node("one")
    watch = Watch(node)
    watch.until(lambda: watch.resynced, "the first dump")
    queue = queue_in(node)
    index = index_in(node, "lo")
    ask(queue, [request(RTM_NEWADDR, index, f"10.3.0.{n}", 24) for n in (1, 2, 3)])
    ask(queue, [request(RTM_DELADDR, index, "10.3.0.1", 24)])
    while watch.monitor.drain():
        pass
    losses = watch.table.losses()
    assert sorted(loss.address.key.data[3] for loss in losses) == [1, 2, 3]
    assert {loss.port_id for loss in losses} == {queue.port_id}
    watch.monitor.close()
    queue.close()
