"""Whatever happens, in whatever order: what must always hold for an engine."""

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad.config.model.vrrp import VirtualAddress, VrrpInstance, WantedState
from kad_vrrp.core.actions import Action, SendAdvert, StateChanged
from kad_vrrp.core.events import AddressDeleted, LinkRemoved, TimeReached, TransportFailed
from tests.support.vrrp_host import SECOND, Killed, instance, link
from tests.support.vrrp_playbook import Playbook

VIPS = ("10.0.0.100", "10.0.0.101", "10.0.0.102", "10.0.0.103")


def vips(*numbers: int) -> tuple[VirtualAddress, ...]:
    return tuple(VirtualAddress(VIPS[number], 24) for number in numbers)


CONFIGS = (
    instance(virtual_addresses=vips(0, 1)),
    instance(virtual_addresses=vips(1, 2), priority=200),
    instance(virtual_addresses=vips(0), excluded_addresses=vips(3), advert_int_us=200_000),
    instance(virtual_addresses=vips(0, 1), nopreempt=True, preempt_delay_us=2 * SECOND),
    instance("RENAMED", virtual_addresses=vips(2), multicast_group="224.0.0.77"),
    instance(virtual_addresses=vips(0, 3), priority=255, wanted_state=WantedState.MASTER),
    instance(virtual_addresses=vips(0), version=2, interface_down_delay_us=300_000),
)


class Witness(Playbook):
    """Checks while it watches."""

    def __init__(self, config: VrrpInstance) -> None:
        super().__init__(config)
        self.state_seen = "INIT"
        self.adverts = 0
        self.allowance = 20
        self.on_action = self.observe

    def observe(self, action: Action) -> None:
        if isinstance(action, StateChanged):
            assert action.old.value == self.state_seen, action
            assert action.old is not action.new
            self.state_seen = action.new.value
            self.allowance += 3
        elif isinstance(action, SendAdvert):
            self.adverts += 1

    def check(self) -> None:
        deadline_us = self.engine.deadline_us
        if deadline_us is not None and deadline_us <= self.now_us:
            self.tell(TimeReached())
            deadline_us = self.engine.deadline_us
            assert deadline_us is None or deadline_us > self.now_us
        if not self.answers:
            assert self.engine.settled
            held = {address for _, address, _ in self.kernel} & set(VIPS)
            masters = [report for report in self.engine.report().instances if report.state == "MASTER"]
            if not masters:
                assert not held
            for report in masters:
                assert held == {address.address for address in report.addresses}
                assert report.vips_set


Step = Callable[[Witness], None]


def hear(priority: int, last_byte: int) -> Step:
    return lambda book: book.hear(
        priority, f"10.0.0.{last_byte}", config=book.configs[0] if book.configs else None
    )


def pause(span_us: int) -> Step:
    def step(book: Witness) -> None:
        book.allowance += span_us // 40_000
        book.run_for(span_us)

    return step


def stall(span_us: int) -> Step:
    def step(book: Witness) -> None:
        book.now_us += span_us
        book.allowance += 4

    return step


def set_link(up: bool, index: int) -> Step:
    return lambda book: book.set_link(link(up=up, index=index))


def unplug(book: Witness) -> None:
    book.links = []
    book.tell(LinkRemoved("eth0"))


def reload(number: int) -> Step:
    def step(book: Witness) -> None:
        book.allowance += 3
        book.reload(CONFIGS[number])

    return step


def delete_address(number: int) -> Step:
    def step(book: Witness) -> None:
        key = ("eth0", VIPS[number], 24)
        if key in book.kernel:
            book.kernel.discard(key)
            book.tell(AddressDeleted(*key))
            book.tell(TimeReached())
        # Put back within a bounded time.
        book.run_for(1_100_000)
        book.allowance += 40

    return step


def fail_sockets(book: Witness) -> None:
    for number in list(book.transports):
        book.tell(TransportFailed(number, "gone"))


def crash(survived: int) -> Step:
    def step(book: Witness) -> None:
        book.kill_after = survived
        try:
            book.hear(200, "10.0.0.9")
            book.run_for(4 * SECOND)
        except Killed:
            pass
        book.kill_after = None
        book.allowance += 110
        book.now_us += 3_000
        # The next life goes on from the record, which may be one state ahead of what was seen.
        observe, book.on_action = book.on_action, lambda action: None
        book.boot()
        book.previous = ()
        book.on_action = observe
        book.state_seen = book.engine.report().instances[0].state

    return step


steps = st.lists(
    st.one_of(
        st.builds(hear, st.sampled_from([0, 1, 99, 100, 150, 254, 255]), st.integers(2, 4)),
        st.builds(pause, st.sampled_from([1_000, 60_000, 300_000, 1_000_000, 3_700_000])),
        st.builds(stall, st.sampled_from([30_000, 2_000_000, 20_000_000])),
        st.builds(set_link, st.booleans(), st.sampled_from([2, 2, 3])),
        st.just(unplug),
        st.builds(reload, st.integers(0, len(CONFIGS) - 1)),
        st.builds(delete_address, st.integers(0, 3)),
        st.just(fail_sockets),
        st.builds(crash, st.integers(0, 12)),
    ),
    max_size=25,
)


@given(st.integers(0, len(CONFIGS) - 1), steps)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_invariants_hold_whatever_happens(first: int, script: list[Step]) -> None:
    book = Witness(CONFIGS[first])
    book.start()
    for step in script:
        step(book)
        book.check()
        assert book.adverts <= book.allowance
        book.adverts, book.allowance = 0, 20
    # Calm: everything works again, and this router, alone, is master with all its addresses.
    book.set_link(link(index=5))
    book.run_for(60 * SECOND)
    book.check()
    (report,) = book.engine.report().instances
    assert report.state == "MASTER"
    assert report.owed_notifications == 0
    assert set(book.journal) == {report.name}
    told = [state for _, _, state in book.finished]
    assert told[-1] == "MASTER"
    before = book.adverts
    book.run_for(10 * SECOND)
    assert book.adverts - before == 10 * SECOND // report.advert_int_us
