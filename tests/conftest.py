"""Fixtures every test may use, and what holds for all of them."""

from hypothesis import settings

from tests.support.namespaces import network

__all__ = ["network"]

# The machine may be shared: how long an example took says nothing about it.
settings.register_profile("kad", deadline=None)
settings.load_profile("kad")
