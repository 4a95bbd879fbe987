"""A pytest plugin: garbage is looked for seldom. Thousands of short tests are a fifth faster for it.

All of them are alive from the beginning to the end, and Python would look through them again and again.
Not for tests that start daemons of kad in a fork: those would inherit it.
"""

from __future__ import annotations

import gc

import pytest

THRESHOLDS = (20_000, 20, 20)
"""In the place of Python's 700, 10, 10."""

gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
