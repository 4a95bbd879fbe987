"""Fixtures every test may use."""

from tests.support.namespaces import network

__all__ = ["network"]
