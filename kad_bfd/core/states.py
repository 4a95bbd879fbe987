"""The state machine of RFC 5880 §6.8.6, on a received packet. Pure."""

from kad_bfd.core.packet import State

TRANSITIONS: dict[tuple[State, State], tuple[State, str]] = {
    (State.DOWN, State.DOWN): (State.INIT, "the neighbour is there"),
    (State.DOWN, State.INIT): (State.UP, "the neighbour hears us"),
    (State.INIT, State.INIT): (State.UP, "the neighbour hears us"),
    (State.INIT, State.UP): (State.UP, "the neighbour hears us"),
    (State.UP, State.DOWN): (State.DOWN, "the neighbour signalled Down"),
    # A listed difference: keepalived 2.2.7 leaves its trackers Up on this.
    (State.INIT, State.ADMIN_DOWN): (State.DOWN, "the neighbour is administratively down"),
    (State.UP, State.ADMIN_DOWN): (State.DOWN, "the neighbour is administratively down"),
}
"""Our state and the one received: the next, and why. What is not here changes nothing. On the way down the
diagnostic is "Neighbor Signaled Session Down"."""
