"""Time limits of many things: which end, in which order, and that nothing is kept longer than needed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from kad_check.core.dialogues.http import accepted_codes
from kad_check.io.expiry import Expiry


class Item:
    deadline_us = 0


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_limits_end_in_their_order_whatever_their_length(loop: asyncio.AbstractEventLoop) -> None:
    over: list[Item] = []
    expiry: Expiry[Item] = Expiry(loop, over.append)
    late, early, lifted, again = (Item() for _ in range(4))
    expiry.limit(late, 600_000)
    expiry.limit(early, 200_000)
    expiry.limit(lifted, 200_000)
    expiry.limit(again, 100_000)
    expiry.limit(again, 400_000)
    lifted.deadline_us = 0
    for _ in range(1000):
        loop.run_until_complete(asyncio.sleep(0.005))
        if len(over) == 3:
            break
    assert over == [early, again, late]
    expiry.close()


def test_what_has_ended_is_let_go_of(loop: asyncio.AbstractEventLoop) -> None:
    expiry: Expiry[Item] = Expiry(loop, lambda item: None)
    ended = [Item() for _ in range(100)]
    for item in ended:
        expiry.limit(item, 3_600_000_000)
        item.deadline_us = 0
    watched = [weakref.ref(item) for item in ended]
    del item, ended
    last = Item()
    expiry.limit(last, 3_600_000_000)
    gc.collect()
    assert not [each for each in watched if each() is not None]
    expiry.close()


def test_urls_that_accept_the_same_share_what_they_accept() -> None:
    assert accepted_codes(((200, 299),)) is accepted_codes(((200, 299),))
    assert accepted_codes(((200, 201), (302, 302))) == {200, 201, 302}
