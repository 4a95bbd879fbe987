"""Network addresses as values."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.addresses import is_link_local


@given(st.ip_addresses(v=6))
def test_link_local_is_what_the_library_says(address: IPv6Address) -> None:
    assert is_link_local(str(address)) == address.is_link_local


@given(st.ip_addresses(v=6, network="fe80::/10"))
def test_all_of_its_network_is_link_local(address: IPv6Address) -> None:
    assert is_link_local(str(address))


@pytest.mark.parametrize("address", ["", "169.254.0.1", "fe8::1", "fe7f::1", "fec0::1", "febf", "::fe80:1"])
def test_what_only_looks_like_it_is_not(address: str) -> None:
    assert not is_link_local(address)
