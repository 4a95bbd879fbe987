"""When kad counts as started."""

from __future__ import annotations

from kad.ipc.messages import Role
from kad.supervisor.child import Child, Exited, Forked, Ready, Start
from kad.supervisor.readiness import EXTENSION_PERIOD_US, PATIENCE_US, Readiness, shortcomings

ROLES = (Role.VRRP, Role.CHECK, Role.BFD)
NOW_US = 1_000_000_000


def children(ready: set[Role]) -> dict[Role, Child]:
    found = {role: Child(role, withdraws=False) for role in Role}
    for role, child in found.items():
        child.handle(Start(), NOW_US)
        child.handle(Forked(100), NOW_US)
        if role in ready:
            child.handle(Ready(), NOW_US)
    return found


def crash(child: Child, times: int) -> None:
    for _ in range(times):
        child.handle(Forked(101), NOW_US)
        child.handle(Exited(70), NOW_US)


def test_all_are_waited_for_but_not_for_ever() -> None:
    readiness = Readiness()
    assert not readiness.is_started(children({Role.CONTROL, Role.CHECK, Role.BFD}), ROLES, NOW_US)
    late = NOW_US + 100 * PATIENCE_US
    assert not readiness.is_started(children({Role.VRRP, Role.CHECK, Role.BFD}), ROLES, late)
    # The time begins when those without whom nothing goes are there.
    some = children({Role.CONTROL, Role.VRRP, Role.BFD})
    assert not readiness.is_started(some, ROLES, late)
    assert not readiness.is_started(some, ROLES, late + PATIENCE_US - 1)
    assert readiness.is_started(some, ROLES, late + PATIENCE_US)
    assert readiness.is_started(some, (Role.VRRP, Role.BFD), late)
    assert shortcomings(some, ROLES) == "check has not come up (STARTING)"
    assert Readiness().is_started(children(set(Role)), ROLES, NOW_US)
    assert shortcomings(children(set(Role)), ROLES) == ""


def test_who_is_in_back_off_is_not_waited_for_unless_it_is_vrrp() -> None:
    some = children({Role.CONTROL, Role.VRRP, Role.BFD})
    crash(some[Role.CHECK], 3)
    some[Role.CHECK].handle(Forked(102), NOW_US)
    assert not Readiness().is_started(some, ROLES, NOW_US), "it is forked at once"
    crash(some[Role.CHECK], 1)
    assert Readiness().is_started(some, ROLES, NOW_US)
    assert shortcomings(some, ROLES) == "check has not come up (exit status 70)"
    without = children({Role.CONTROL, Role.CHECK, Role.BFD})
    crash(without[Role.VRRP], 4)
    assert not Readiness().is_started(without, ROLES, NOW_US + 100 * PATIENCE_US)
    # Where nobody wants it, check is what may be missing.
    lame = children({Role.CONTROL})
    crash(lame[Role.CHECK], 4)
    assert Readiness().is_started(lame, (Role.CHECK,), NOW_US)


def test_time_is_asked_for_again_and_again() -> None:
    readiness = Readiness()
    asked = [readiness.wants_extension(NOW_US + second * 1_000_000) for second in range(21)]
    assert [second for second, each in enumerate(asked) if each] == [0, 10, 20]
    assert EXTENSION_PERIOD_US == 10_000_000
