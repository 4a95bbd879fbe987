"""BFD pairs and meshes under loss, delay, one-way links, stalls, deaths, reloads and forged packets.

Seeds are fresh in every run and named where one fails: ``calm(SEED)`` or ``rough(SEED)`` repeats it exactly.
Then bugs are planted into the core, one at a time: the same scenarios must find each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from kad.units import NEVER
from kad_bfd.core import demux, engine, lifecycle, session, timers
from kad_bfd.core.deadlines import Deadlines
from kad_bfd.core.demux import Demux
from kad_bfd.core.engine import Engine
from kad_bfd.core.lifecycle import Lifecycle
from kad_bfd.core.negotiation import Negotiation
from kad_bfd.core.packet import ControlPacket, Diagnostic, DropReason, PacketError, State
from kad_bfd.core.session import Session
from tests.support.bfd_scenarios import calm, rough
from tests.support.bfd_world import World

Scenario = Callable[[int], World]

SEEDS = 60
PLANTED_SEEDS = 5
"""So many seeds find a planted bug."""
SUBTLE_SEEDS = 60
"""And so many, at most, one that needs several things to come together, as they do in every fifth seed."""


def fresh_seeds(count: int) -> list[int]:
    first = random.SystemRandom().randrange(1 << 40)
    return list(range(first, first + count))


@pytest.mark.parametrize("scenario", [calm, rough])
def test_all_that_must_hold_holds(scenario: Scenario) -> None:
    packets = losses = 0
    for seed in fresh_seeds(SEEDS):
        try:
            world = scenario(seed)
        except Exception as error:
            raise AssertionError(f"{scenario.__name__}({seed}): {error}") from error
        packets += world.packets
        losses += world.losses
    assert packets > SEEDS * 100
    assert (losses > SEEDS // 2) == (scenario is rough), "the scenarios do not do what they say"


def test_a_seed_repeats_bit_for_bit() -> None:
    (seed,) = fresh_seeds(1)
    one, two = rough(seed), rough(seed)
    assert (one.packets, one.losses, one.now_us) == (two.packets, two.losses, two.now_us)
    assert [m.host.sent for m in one.machines.values()] == [m.host.sent for m in two.machines.values()]


# Planted bugs ----------------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, Patch] = {}
SUBTLE: dict[str, Patch] = {}


def bug(plant: Patch) -> Patch:
    BUGS[plant.__name__] = plant
    return plant


def subtle(plant: Patch) -> Patch:
    SUBTLE[plant.__name__] = plant
    return plant


def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    patch.setattr(owner, name, make(getattr(owner, name)))


@bug
def jitter_lengthens_the_interval(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "jitter_range_us", lambda us, mult: (us * 3 // 4, us // 2))


@subtle
def multiplier_1_is_jittered_like_any_other(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "jitter_range_us", lambda us, mult: timers.jitter_range_us(us, 2))


@bug
def detection_uses_our_own_multiplier(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Session) -> None:
        self.detection_time_us = self.detect_mult * self.intervals.remote_interval_us

    patch.setattr(Session, "_recalculate", wrong)


@bug
def detection_ignores_how_slowly_the_peer_wishes_to_send(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Negotiation,
        "detection_time_us",
        property(lambda self: self.remote_detect_mult * self.rx_in_use_us),
    )


@subtle
def the_peers_receive_interval_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "transmit_interval_us", property(lambda self: self.tx_in_use_us))


@subtle
def a_longer_interval_is_used_before_the_peer_knows(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        return lambda self, value, **how: original(self, value, **(how | {"is_up": False}))

    wrap(patch, Negotiation, "set_desired_min_tx", make)


@subtle
def detection_is_shortened_before_the_peer_knows(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        return lambda self, value, **how: original(self, value, **(how | {"is_up": False}))

    wrap(patch, Negotiation, "set_required_min_rx", make)


@bug
def a_final_does_not_end_the_poll(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "final_received", lambda self: None)


@subtle
def a_changed_interval_is_not_polled(patch: pytest.MonkeyPatch) -> None:
    def quiet(self: Negotiation, *, is_heard: bool) -> None:
        self.end_polling()

    patch.setattr(Negotiation, "start_poll_sequence", quiet)


@subtle
def polls_are_answered_in_up_only(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        return lambda self, now_us: original(self, now_us) if self.is_up else None

    wrap(patch, Session, "_answer_poll", make)


@bug
def fast_while_not_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_idle_tx_us", property(lambda self: self.config.min_tx_us))


@subtle
def the_remote_discriminator_is_never_forgotten(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def forget(self: Session) -> None:
            known = getattr(self, "remote_discr", 0)
            original(self)
            self.remote_discr = known

        return forget

    wrap(patch, Session, "_forget_remote", make)


@subtle
def a_passive_system_speaks_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_may_speak", property(lambda self: self.is_open))


@bug
def up_after_down_without_a_handshake(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def advance(self: Session, received: State, now_us: int) -> None:
            if self.state is State.DOWN and received is State.UP:
                received = State.INIT
            if self.state is State.UP and received is State.DOWN:
                return
            original(self, received, now_us)

        return advance

    wrap(patch, Session, "_advance", make)


@bug
def a_session_is_forgotten_by_the_clock(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def push(self: Deadlines, each: Session) -> None:
            self._pushed += 1
            if self._pushed % 97:
                original(self, each)

        return push

    wrap(patch, Deadlines, "push", make)


@subtle
def a_deadline_that_moves_nearer_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def push(self: Deadlines, each: Session) -> None:
            if each.queued_us == NEVER:
                original(self, each)

        return push

    wrap(patch, Deadlines, "push", make)


@bug
def the_record_is_written_after_the_act(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        return lambda self, each, mark: original(self, each, len(self._context.actions))

    wrap(patch, Engine, "_settle", make)


@bug
def the_next_life_begins_with_another_discriminator(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def record_of(self: Lifecycle, name: str) -> Any:
            record = original(self, name)
            return record and msgspec.structs.replace(record, local_discr=record.local_discr ^ 1)

        return record_of

    wrap(patch, Lifecycle, "_record_of", make)


@subtle
def the_next_life_begins_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifecycle, "resume", lambda *_: None)


@subtle
def the_next_life_forgets_that_it_polled(patch: pytest.MonkeyPatch) -> None:
    def quiet(self: Negotiation) -> None:
        self.polling = False

    patch.setattr(Negotiation, "resume_polling", quiet)


@subtle
def the_next_life_believes_in_up_however_long_it_was_away(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def resume(each: Session, record: Any, silent_us: int, now_us: int) -> None:
            original(each, record, 0, now_us)
            each.detect_us = NEVER

        return resume

    wrap(patch, lifecycle, "resume", make)


@subtle
def a_packet_seen_before_counts_in_any_state(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def enter(self: Session, *how: Any) -> None:
            familiar = self.familiar_data
            original(self, *how)
            self.familiar_data = familiar

        return enter

    wrap(patch, Session, "_enter", make)


@subtle
def a_packet_seen_before_is_not_looked_at_for_its_poll(patch: pytest.MonkeyPatch) -> None:
    def familiar(each: Session, packet: ControlPacket, data: bytes, origin: object) -> None:
        each.familiar_data, each.familiar_origin = data, origin

    patch.setattr(engine, "_make_familiar", familiar)


@bug
def anybodys_packets_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "check_origin", lambda each, origin: None)


@bug
def authenticated_packets_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "check_authentication", lambda packet: None)


@bug
def any_discriminator_finds_the_neighbours_session(patch: pytest.MonkeyPatch) -> None:
    def by_address(self: Demux, packet: ControlPacket, origin: Any) -> Session:
        for each in self._by_neighbor.get(origin.source, ()):
            if demux.fits(each, origin):
                return each
        raise PacketError(DropReason.NO_SESSION, "")

    patch.setattr(Demux, "session_of", by_address)


@subtle
def the_daemon_stops_with_admin_down(patch: pytest.MonkeyPatch) -> None:
    def stop(self: Session, gap_us: int, now_us: int) -> None:
        self._leave(State.ADMIN_DOWN, Diagnostic.ADMINISTRATIVELY_DOWN, "stopping", gap_us, now_us)

    patch.setattr(Session, "stop", stop)


@subtle
def a_stopping_daemon_still_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "_check_time_of_life", lambda self, each: None)


@bug
def subscribers_are_not_told_of_a_loss(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def publication_of(each: Session) -> Any:
            known = each.published
            return known if known is not None and known.up and not each.is_up else original(each)

        return publication_of

    wrap(patch, engine, "publication_of", make)


@bug
def a_stall_is_taken_for_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_put_off_for_stall", lambda self, now_us: False)


@subtle
def the_daemon_goes_on_after_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lifecycle, "stop", lambda self, now_us, **how: [])


def is_found(seeds: int) -> bool:
    for seed in fresh_seeds(seeds):
        for scenario in (calm, rough):
            try:
                scenario(seed)
            except Exception:  # noqa: BLE001 - a bug may show itself in any way
                return True
    return False


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_planted_bug_is_found_by_five_fresh_seeds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    assert is_found(PLANTED_SEEDS)


@pytest.mark.parametrize("name", sorted(SUBTLE))
def test_a_subtle_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SUBTLE[name](monkeypatch)
    assert is_found(SUBTLE_SEEDS)
