"""Fixtures every test may use, and what holds for all of them."""

import pytest
from hypothesis import settings

from tests.support.namespaces import network

__all__ = ["network"]

# The machine may be shared: how long an example took says nothing about it.
settings.register_profile("kad", deadline=None)
settings.load_profile("kad")

LONGEST = (
    "test_vrrp_story.py",
    "test_planted_bugs.py",
    "test_soak.py",
    "test_migration.py",
    "test_vrrp_crash.py",
    "test_bfd_child.py",
    "test_faults_in_real_children.py",
    "test_triples.py",
    "test_peers.py",
    "test_suspension.py",
    "test_seldom_used_side_by_side.py",
    "test_weights_side_by_side.py",
    "test_authentication.py",
    "test_demo.py",
)
"""Of the files that run beside others: they begin first, so that in the end nobody waits for one of them. Who
has but two tests left is given the next file already: after a file of few tests comes a short one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
