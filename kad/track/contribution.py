"""What a tracked object adds to the priority of those who follow it, or that it keeps them out. Pure."""

from msgspec import Struct

FAULT_VALUE = -254
"""A file's contribution from here down is a fault."""
HIGHEST_VALUE = 253


class Contribution(Struct, frozen=True):
    """``fault``: whoever follows cannot take part. ``weight``: added to the priority, -253 to 253."""

    fault: bool = False
    weight: int = 0


NONE = Contribution()
FAULT = Contribution(fault=True)


def of_state(up: bool, weight: int, reverse: bool) -> Contribution:
    """Of a script, a process, an interface or a BFD session, which is up or down.

    Weight 0: down is a fault (up with ``reverse``). A positive weight counts while up, a negative one while
    down; ``reverse`` turns the sign.
    """
    if weight == 0:
        return FAULT if up is reverse else NONE
    if up is (weight > 0):
        return Contribution(weight=-weight if reverse else weight)
    return NONE


def of_value(value: int, weight: int, reverse: bool) -> Contribution:
    """Of a file that holds ``value``.

    Weight 0: anything but 0 is a fault (0 itself with ``reverse``). Otherwise value times weight counts,
    and -254 or less is a fault.
    """
    if weight == 0:
        return FAULT if (value != 0) is not reverse else NONE
    product = value * (-weight if reverse else weight)
    if product <= FAULT_VALUE:
        return FAULT
    return Contribution(weight=min(product, HIGHEST_VALUE))
