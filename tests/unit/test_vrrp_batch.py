"""Adverts read at once count for what they would one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kad_vrrp.core.actions import Action, ChangeAddresses, Notify, OpenTransport, Remember
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.engine import Engine
from kad_vrrp.core.events import (
    AdvertReceived,
    AdvertsReceived,
    ConfigurationChanged,
    Event,
    LinkChanged,
    NotifyDone,
    PlanDone,
    TimeReached,
    TransportOpened,
)
from tests.support.adverts import advert
from tests.support.vrrp_node import instance

LINK = LinkChanged("eth0", 2, True, bytes(6), 1500, True, True, ("192.0.2.1",))
NOW_US = 1_000_000_000
INSTANCES = tuple(instance(f"VI_{vrid}", vrid, f"192.0.2.{100 + vrid}/32", version=3) for vrid in (1, 2, 3))

packets = st.builds(
    lambda vrid, source, priority, spoil, cut: AdvertReceived(
        1,
        advert(
            source=source,
            vip=f"192.0.2.{100 + vrid}",
            vrid=vrid,
            priority=priority,
            interval_us=1_000_000,
            spoil=spoil,
            cut=cut,
        ),
        source,
    ),
    vrid=st.integers(1, 4),
    source=st.sampled_from(["192.0.2.66", "192.0.2.67"]),
    priority=st.sampled_from([0, 50, 200, 200, 200, 255]),
    spoil=st.sampled_from([0, 0, 0, 1]),
    cut=st.sampled_from([0, 0, 0, 5, 24]),
)
gaps = st.integers(0, 500_000)


class Host:
    """An engine on a machine where all goes well."""

    def __init__(self) -> None:
        self.engine = Engine(EngineSettings(), {})
        self.done: list[Action] = []
        self.tell(LINK, NOW_US)
        self.tell(ConfigurationChanged(1, INSTANCES, ()), NOW_US)
        self.done.clear()

    def tell(self, event: Event, now_us: int) -> None:
        waiting = [event]
        while waiting:
            for action in self.engine.handle(waiting.pop(0), now_us):
                self.done.append(action)
                match action:
                    case OpenTransport():
                        waiting.append(TransportOpened(action.number))
                    case ChangeAddresses():
                        waiting.append(PlanDone(action.instance, action.serial))
                    case Notify():
                        waiting.append(NotifyDone(action.instance, action.serial))


@settings(deadline=None)
@given(st.lists(st.tuples(packets, gaps), min_size=1, max_size=40))
def test_a_batch_is_its_packets(heard: list[tuple[AdvertReceived, int]]) -> None:
    at_us, arrived = NOW_US, []
    for _, gap_us in heard:
        at_us += gap_us
        arrived.append(at_us)
    one_by_one, together = Host(), Host()
    for (packet, _), moment_us in zip(heard, arrived, strict=True):
        one_by_one.tell(packet, moment_us)
    together.tell(AdvertsReceived(1, [packet.data for packet, _ in heard], arrived), arrived[0])
    assert together.done == one_by_one.done
    assert together.engine.report() == one_by_one.engine.report()
    assert together.engine.deadline_us == one_by_one.engine.deadline_us


def test_time_does_not_run_backwards_within_a_batch() -> None:
    """What arrived before the engine was told a later time counts as of that time."""
    host = Host()
    packet = advert(vip="192.0.2.101", vrid=1, priority=200, interval_us=1_000_000)
    host.tell(AdvertsReceived(1, [packet], [NOW_US]), NOW_US)
    before_us = host.engine.deadline_us
    host.tell(AdvertsReceived(1, [packet, packet], [NOW_US - 5_000, 0]), NOW_US)
    assert host.engine.deadline_us == before_us


def test_a_transport_that_was_closed_meanwhile() -> None:
    host = Host()
    host.tell(AdvertsReceived(9, [advert(vrid=1)], [0]), NOW_US)
    assert host.engine.report().drops


def test_how_long_packets_may_lie() -> None:
    """Less when the master turns out to speak more often, of which the reader is told; as MASTER, none."""
    host = Host()
    assert host.engine.patience_us == 125_000
    fast = [advert(vip=f"192.0.2.{100 + n}", vrid=n, priority=200, interval_us=100_000) for n in (1, 2, 3)]
    slow = advert(vip="192.0.2.101", vrid=1, priority=200, interval_us=1_000_000)
    for data in (slow, *fast):
        host.done.clear()
        host.tell(AdvertReceived(1, data, "192.0.2.66"), NOW_US)
        assert any(isinstance(action, Remember) for action in host.done)
    assert host.engine.patience_us == 12_500
    deadline_us = host.engine.deadline_us
    assert deadline_us is not None
    host.tell(TimeReached(), deadline_us)
    assert host.engine.patience_us == 0
