"""Names change hands with reloads in which the process is killed: nothing is left, or told out of order."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad.config.model.vrrp import VirtualAddress, VrrpInstance
from tests.support.vrrp_host import SECOND, Killed, instance
from tests.support.vrrp_playbook import Playbook


def bearer(name: str, vrid: int) -> VrrpInstance:
    """Each virtual router has addresses of its own, whatever its name."""
    addresses = (VirtualAddress(f"10.9.0.{vrid}", 24), VirtualAddress(f"10.9.1.{vrid}", 24))
    return instance(name, virtual_router_id=vrid, virtual_addresses=addresses)


@st.composite
def configurations(draw: st.DrawFn) -> tuple[VrrpInstance, ...]:
    count = draw(st.integers(1, 3))
    names = draw(st.permutations("ABCD"))[:count]
    vrids = draw(st.permutations((1, 2, 3, 4)))[:count]
    return tuple(map(bearer, names, vrids))


kills = st.integers(0, 60) | st.none()
"""After how many actions; None: not at all."""
reloads = st.tuples(configurations(), kills, st.lists(kills, max_size=2), st.booleans())
"""What comes, when the process dies of it, and its next lives; whether the kernel keeps it waiting."""


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configurations(), st.lists(reloads, min_size=2, max_size=4), st.booleans())
def test_what_is_left_is_what_is_configured(
    first: tuple[VrrpInstance, ...],
    changes: list[tuple[tuple[VrrpInstance, ...], int | None, list[int | None], bool]],
    survive: bool,
) -> None:
    book = Playbook(*first)
    book.scripts_survive = survive
    book.boot()
    book.run_for(5 * SECOND)
    for wanted, kill_after, lives, waits in changes:
        book.hold_answers, book.kill_after = waits, kill_after
        if not survives_reload(book, wanted):
            while not survives_boot(book, lives.pop() if lives else None):
                pass
        book.kill_after = None
        book.run_for(5 * SECOND)
        book.previous = ()
        assert book.addresses == sorted(
            each.address for config in wanted for each in config.virtual_addresses
        )
        assert book.engine.settled
        assert set(book.journal) == {config.name for config in wanted}
        for report in book.engine.report().instances:
            assert (report.state, report.owed_notifications) == ("MASTER", 0)


def survives_reload(book: Playbook, wanted: tuple[VrrpInstance, ...]) -> bool:
    try:
        book.reload(*wanted)
        book.hold_answers = False
        book.answer()
    except Killed:
        return False
    return True


def survives_boot(book: Playbook, kill_after: int | None) -> bool:
    """Numbers of notifications grow within a life, whoever has the name."""
    book.hold_answers = False
    before = len(book.started)
    try:
        book.boot(kill_after=kill_after)
    except Killed:
        return False
    finally:
        latest: dict[str, int] = {}
        for name, serial, _ in book.started[before:]:
            assert serial > latest.get(name, 0), book.started[before:]
            latest[name] = serial
    return True
