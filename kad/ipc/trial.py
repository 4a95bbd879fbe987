"""Packs what a configuration will ask of the kernel once, for nobody, before it is committed."""

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from kad.kernel.encoder import UNPACKABLE

Trial = Generator[None, None, str]
"""Looks at a configuration a little in each turn of the loop; returns "" or why it cannot be run."""

TURN = 32
"""Objects packed in one turn of the loop: a quarter of a millisecond."""

Owner = TypeVar("Owner")
Thing = TypeVar("Thing")


def trial_of(
    things: Iterable[tuple[Owner, Thing]],
    pack: Callable[[Thing], None],
    words: Callable[[Owner, Thing], str],
) -> Trial:
    """The first that ``pack`` raises one of UNPACKABLE for, called as ``words`` say, and why."""
    for number, (owner, thing) in enumerate(things):
        try:
            pack(thing)
        except UNPACKABLE as error:
            return f"{words(owner, thing)} cannot be put into a message: {error}"
        if number % TURN == TURN - 1:
            yield
    return ""
