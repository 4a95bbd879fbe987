"""How large the receive buffers of VRRP sockets are: kernel_rx_buf_size, vrrp_rx_bufs_policy. Pure.

A socket is shared by every instance of an interface, and its buffer is the sum of theirs, as with keepalived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from kad.addresses import INET, family_of
from kad.config.model.vrrp import AuthType, VrrpInstance, VrrpSettings

_IPV4_HEADER = 20
_AH_HEADER = 24
_VRRP_HEADER = 8
_PASSWORD = 8
_HMAC_TRAILER = 28


def with_receive_buffers(
    instances: Sequence[VrrpInstance], settings: VrrpSettings
) -> tuple[VrrpInstance, ...]:
    """The same instances, each with what its socket is to have; untouched where nothing was said."""
    policy = settings.rx_bufs_policy
    if not policy and not any(each.kernel_rx_buf_size for each in instances):
        return tuple(instances)
    sizes: dict[tuple[Any, ...], tuple[int, int]] = {}
    for each in instances:
        size, mtus = sizes.get(_socket_of(each), (0, 0))
        more_size, more_mtus = _share(each, policy, settings.rx_bufs_multiplier)
        sizes[_socket_of(each)] = size + more_size, mtus + more_mtus
    made = []
    for each in instances:
        size, mtus = sizes[_socket_of(each)]
        made.append(replace(each, receive_buffer=size, receive_buffer_mtus=mtus))
    return tuple(made)


def _socket_of(instance: VrrpInstance) -> tuple[Any, ...]:
    return (
        instance.family,
        instance.auth_type is AuthType.AH,
        instance.transport_interface,
        instance.vrf,
        instance.source_address if instance.unicast else instance.multicast_group,
        instance.unicast,
    )


def _share(instance: VrrpInstance, policy: str, multiplier: int) -> tuple[int, int]:
    """(bytes, times the MTU)."""
    if instance.kernel_rx_buf_size:
        return instance.kernel_rx_buf_size, 0
    if policy == "ADVERT":
        return multiplier * advert_length(instance), 0
    if policy == "MTU":
        return 0, multiplier
    return int(policy or 0), 0


def advert_length(instance: VrrpInstance) -> int:
    """Bytes of an advert as they come out of the socket: with the IPv4 header, without IPv6's."""
    is_ipv4 = instance.family == INET
    width = 4 if is_ipv4 else 16
    advertised = [a for a in instance.virtual_addresses if family_of(a.address) == instance.family]
    length = _VRRP_HEADER + width * len(advertised)
    if is_ipv4:
        length += _IPV4_HEADER + (_PASSWORD if instance.version == 2 else 0)
        length += _AH_HEADER if instance.auth_type is AuthType.AH else 0
    return length + (_HMAC_TRAILER if instance.auth_hmac is not None else 0)
