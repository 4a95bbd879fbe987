"""RFC 5880 §7: what a session across routers does about congestion, and what every session does."""

from __future__ import annotations

import itertools

from kad_bfd.core.actions import Listener
from kad_bfd.core.congestion import CALM_US, MOST_DOUBLINGS
from kad_bfd.core.events import TimeReached
from kad_bfd.core.packet import Diagnostic, State
from tests.support.bfd_host import MS, SECOND, Host, control, instance


def meet(host: Host) -> None:
    """Up, and the poll sequences over."""
    listener = Listener(4, host.session().config.multihop)
    host.hear(control(State.DOWN), listener=listener)
    for packet in (State.INIT, State.UP):
        yours = host.discriminator
        host.hear(control(packet, your_discriminator=yours, final=packet is State.UP), listener=listener)
    assert host.state() is State.UP


def lose(host: Host, up_us: int = 0) -> None:
    """Up for so long, then silence until it is noticed."""
    stay_up(host, up_us)
    while host.state() is State.UP:
        host.run(10 * MS)


def stay_up(host: Host, duration_us: int) -> None:
    listener = Listener(4, host.session().config.multihop)
    for number in range(duration_us // (40 * MS)):
        packet = control(State.UP, your_discriminator=host.discriminator, final=number % 3 == 0)
        host.hear(packet, listener=listener)
        host.run(40 * MS)


def intervals_ms(host: Host) -> tuple[float, float]:
    """Desired Min TX, Required Min RX, as advertised."""
    found = host.session().intervals
    return found.desired_min_tx_us / MS, found.required_min_rx_us / MS


def booted(*, multihop: bool = True) -> Host:
    host = Host(instance(multihop=multihop)).boot()
    meet(host)
    return host


def test_7_a_multihop_session_lost_again_soon_asks_for_half_the_packets() -> None:
    host = booted()
    assert intervals_ms(host) == (50, 50)
    lose(host)
    meet(host)
    assert intervals_ms(host) == (50, 50), "one loss is a broken path"
    lose(host)
    meet(host)
    assert intervals_ms(host) == (100, 100)
    assert host.session().stats.slowdowns == 1
    assert any("congested" in text for text in host.logged)
    host.clear()
    stay_up(host, 2 * SECOND)
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(host.sent)]
    assert min(gaps) >= 75 * MS
    assert host.published["peer"].detection_time_us == 300 * MS, "subscribers know the longer time"


def test_7_and_with_every_further_loss_up_to_the_pace_of_a_session_that_is_down() -> None:
    host = booted()
    for _ in range(MOST_DOUBLINGS):
        lose(host)
        meet(host)
    assert intervals_ms(host) == (1000, 1000)


def test_7_a_session_that_the_peer_lost_counts_too() -> None:
    """Its packets arrive; ours do not."""
    host = booted()
    listener = Listener(4, True)
    for _ in range(2):
        diagnostic = Diagnostic.DETECTION_TIME_EXPIRED
        down = control(State.DOWN, your_discriminator=host.discriminator, diagnostic=diagnostic)
        host.hear(down, listener=listener)
        assert host.state() is State.DOWN
        meet(host)
    assert intervals_ms(host) == (100, 100)


def test_7_a_peer_that_stops_in_order_is_no_congestion() -> None:
    host = booted()
    for _ in range(3):
        down = control(State.DOWN, your_discriminator=host.discriminator, diagnostic=Diagnostic.PATH_DOWN)
        host.hear(down, listener=Listener(4, True))
        meet(host)
    assert intervals_ms(host) == (50, 50)


def test_7_a_session_lost_now_and_then_is_no_congestion() -> None:
    host = booted()
    for _ in range(3):
        lose(host, CALM_US + SECOND)
        meet(host)
    assert intervals_ms(host) == (50, 50)


def test_7_what_congestion_asked_for_is_given_back_step_by_step_through_poll_sequences() -> None:
    host = booted()
    for _ in range(3):
        lose(host)
        meet(host)
    assert intervals_ms(host) == (200, 200)
    host.clear()
    stay_up(host, CALM_US - SECOND)
    assert intervals_ms(host) == (200, 200)
    assert not any(packet.poll for _, packet in host.sent)
    stay_up(host, 2 * SECOND)
    assert intervals_ms(host) == (100, 100)
    assert any(packet.poll and packet.desired_min_tx_us == 100 * MS for _, packet in host.sent)
    stay_up(host, CALM_US)
    assert intervals_ms(host) == (50, 50)
    stay_up(host, 3 * CALM_US)
    assert intervals_ms(host) == (50, 50)
    assert host.session().stats.times_down == 3, "giving it back lost nothing"


def test_7_a_reload_does_not_end_it() -> None:
    host = booted()
    for _ in range(2):
        lose(host)
        meet(host)
    host.reload(instance(multihop=True, min_tx_us=60 * MS))
    assert intervals_ms(host) == (120, 100)


def test_7_a_socket_that_was_lost_meanwhile_does_not_stop_it_from_being_given_back() -> None:
    host = booted()
    for _ in range(2):
        lose(host)
        meet(host)
    stay_up(host, SECOND)
    host.reload(instance(multihop=True, ttl=200))  # a new socket
    stay_up(host, CALM_US + SECOND)
    assert intervals_ms(host) == (50, 50)


def test_7_over_a_single_hop_the_intervals_stay_as_configured() -> None:
    """There it is a SHOULD. While it is down a session sends a packet a second in any case (§6.8.3)."""
    host = booted(multihop=False)
    for _ in range(3):
        lose(host)
        host.clear()
        host.run(10 * SECOND)
        assert len(host.sent) <= 14, "not up: at most one in three quarters of a second"
        meet(host)
    assert intervals_ms(host) == (50, 50)


def test_7_a_process_with_too_much_to_do_sends_less_and_makes_up_for_nothing() -> None:
    """Congestion "is not only a traffic phenomenon, but also a computational one"."""
    host = booted(multihop=False)
    host.clear()
    for _ in range(20):
        host.now_us += 120 * MS  # more than two intervals late
        host.hear_up()
        host.tell(TimeReached())
    assert len(host.sent) == 20
    assert min(b - a for (a, _), (b, _) in itertools.pairwise(host.sent)) == 120 * MS
