"""Interfaces of the instances' own: when they count as there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from kad.config.model.vrrp import VirtualLink
from kad_vrrp.core.events import LinkChanged
from kad_vrrp.io import link_maker
from kad_vrrp.io.sysctls import Sysctls
from kad_vrrp.io.virtual_links import SOURCE_POLL_S, SOURCE_POLLS, KernelThread, VirtualLinks

VMAC = VirtualLink("vrrp6.51", "eth0", "00:00:5e:00:02:33", 6, has_ipv6=True, link_local=True)


class NoThread(KernelThread):
    """The kernel has done everything at once."""

    def run(self, work: Callable[[], object], done: Callable[[], None]) -> None:
        work()
        done()


class NoRecords:
    def write(self, _key: str, _record: bytes) -> bool:
        return True

    def delete(self, _key: str) -> None:
        pass


def news(*addresses: str) -> LinkChanged:
    return LinkChanged(VMAC.name, 7, True, bytes(6), 1500, True, True, addresses)


@pytest.mark.parametrize(
    ("source", "told", "awaited"),
    [
        ("", "fe80::1", True),
        ("", "fe90::1", True),
        ("", "", False),
        ("fe80::1", "fe80::1", True),
        ("fe80::1", "fe80::1f", False),
    ],
)
def test_the_address_that_adverts_leave_from_is_waited_for_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, source: str, told: str, awaited: bool
) -> None:
    for name in ("make", "raise_"):
        monkeypatch.setattr(link_maker, name, lambda _links: {})
    loop = asyncio.new_event_loop()
    done: list[float] = []
    links = VirtualLinks(
        loop,
        NoThread(loop),
        Sysctls(NoRecords(), str, print),  # type: ignore[arg-type]
        lambda: None,
        print,
        lambda _name: None,
        lambda ready: ready(),
    )
    links.heard(news())
    begun = loop.time()
    links.configure([replace(VMAC, source=source)], [], lambda: done.append(loop.time() - begun))
    assert not done, "the kernel has not told of the address"
    if told:
        loop.call_later(2.5 * SOURCE_POLL_S, links.heard, news(told))
    loop.call_later(30, loop.stop)
    while not done:
        loop.run_until_complete(asyncio.sleep(SOURCE_POLL_S))
    loop.close()
    assert done[0] >= (2.5 if awaited else SOURCE_POLLS) * SOURCE_POLL_S
