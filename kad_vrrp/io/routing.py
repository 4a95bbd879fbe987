"""Routes and rules of plans: their requests, what the kernel's answers mean, and who deletes them.

``Addresses`` carries plans out; this is what it asks about the entries that are no addresses.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable

from kad.addresses import INET
from kad.config.iproute_names import protocol_name
from kad.config.model.routing import PROTOCOL_MARK, Placing, Route, Rule
from kad.kernel import routes, rules
from kad.kernel.batch import Outcome, Request
from kad.kernel.encoder import UNPACKABLE, MalformedMessage, Message, Unpackable
from kad.kernel.links import LinkTable
from kad.kernel.routes import RTM_DELROUTE, RTM_NEWROUTE, MissingInterface
from kad.kernel.rules import RTM_DELRULE, RTM_NEWRULE
from kad_vrrp.core.events import RouteDeleted, RouteReplaced

Object = Route | Rule

_ABSENT = frozenset(
    {
        errno.ESRCH,
        errno.ENOENT,
        errno.ENODEV,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.EAFNOSUPPORT,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    }
)
"""Answers to a removal that mean that there is nothing, or cannot be."""


_OF_CONCERN = frozenset({RTM_NEWROUTE, RTM_DELROUTE, RTM_DELRULE})


class Routing:
    """Which routes and rules plans have added and not removed, and what is heard of them."""

    def __init__(
        self,
        table: LinkTable,
        own_port: int,
        feed: Callable[[RouteDeleted | RouteReplaced], None],
        name: Callable[[int], str],
    ) -> None:
        self._table = table
        self._own_port = own_port
        self._feed = feed
        self._name = name
        """Of whoever has a netlink port."""
        self._held: dict[object, dict[Object, bytes]] = {}
        """By the key of their messages: each with the body it was asked for by."""
        self._adding: Counter[Object] = Counter()
        self._lost: dict[Object, str] = {}
        """Those whose deletion by somebody else was heard of while they were being added; by whom."""
        self.malformed = 0

    # Plans -----------------------------------------------------------------------------------------------

    def request(self, entry: Object, *, adding: bool) -> Request:
        """One command of a plan, about to be sent. Raises MissingInterface and Unpackable."""
        try:
            return self._request(entry, adding=adding)
        except UNPACKABLE as error:
            raise Unpackable(error) from error

    def _request(self, entry: Object, *, adding: bool) -> Request:
        if isinstance(entry, Rule):
            body = rules.body(entry)
            if adding:
                self._hold(entry, rules.key_of(body), body)
                return Request(RTM_NEWRULE, rules.ADDITION_FLAGS, body)
            self._let_go(entry, rules.key_of(body))
            return Request(RTM_DELRULE, 0, body)
        table = self._table_of(entry)
        if adding:
            body = routes.addition(entry, table, self._table.index_of)
            self._hold(entry, routes.key_of(body), body)
            return Request(RTM_NEWROUTE, routes.addition_flags(entry), body)
        body = routes.deletion(entry, table, self._table.index_of)
        self._let_go(entry, routes.key_of(body))
        return Request(RTM_DELROUTE, 0, body)

    def _table_of(self, route: Route) -> int:
        if not route.vrf:
            return route.table
        table = self._table.vrf_table(route.vrf)
        if table is None:
            raise MissingInterface(f"no VRF {route.vrf}")
        return table

    def _hold(self, entry: Object, key: object, body: bytes) -> None:
        self._adding[entry] += 1
        if entry.is_tracked:
            self._held.setdefault(key, {})[entry] = body

    def _let_go(self, entry: Object, key: object) -> None:
        entries = self._held.get(key, {})
        entries.pop(entry, None)
        if not entries:
            self._held.pop(key, None)

    def is_success(self, outcome: Outcome, *, adding: bool) -> bool:
        """It is as asked, whoever made it so."""
        return outcome.error == 0 or (outcome.error == errno.EEXIST if adding else outcome.error in _ABSENT)

    def was_foreign(self, entry: Object, outcome: Outcome) -> bool:
        """An addition found it there, and it need not be what a former life of ours has left."""
        if outcome.error != errno.EEXIST:
            return False
        if entry.protocol != PROTOCOL_MARK:
            return True
        # The kernel compares protocols of rules and of IPv4 routes, but asked for EXCL only destinations.
        return isinstance(entry, Route) and (entry.family != INET or entry.placing is Placing.ADD)

    def settle(self, entry: Object, request: Request, *, added: bool) -> None:
        """The kernel has answered one addition."""
        self._adding[entry] -= 1
        if self._adding[entry] <= 0:
            del self._adding[entry]
        key = rules.key_of(request.body) if isinstance(entry, Rule) else routes.key_of(request.body)
        if not added:
            self._let_go(entry, key)
        culprit = self._lost.pop(entry, None)
        if culprit is not None and added:
            self._let_go(entry, key)
            self._feed(RouteDeleted(entry, culprit))

    # News ------------------------------------------------------------------------------------------------

    def judge(self, heard: Message) -> None:
        """A route of our protocol or a rule was deleted, or some route replaced another."""
        if heard.port_id == self._own_port or heard.kind not in _OF_CONCERN:
            return
        kind = rules if heard.kind == RTM_DELRULE else routes
        replaced = heard.kind == RTM_NEWROUTE
        try:
            key = kind.key_of(heard.body)
            entries = self._held.get(key, {})
            if replaced:
                lost = [e for e, body in entries.items() if routes.is_in_place_of(heard.body, body)]
            else:
                lost = [e for e, body in entries.items() if kind.is_about(heard.body, body)]
        except MalformedMessage:
            self.malformed += 1
            return
        for entry in lost:
            self._tell(entry, key, heard, replaced=replaced)

    def _tell(self, entry: Object, key: object, heard: Message, *, replaced: bool) -> None:
        culprit = self._name(heard.port_id)
        if replaced:
            culprit += f" with protocol {protocol_name(routes.protocol_of(heard.body))}"
            self._feed(RouteReplaced(entry, culprit))
        elif entry in self._adding:
            self._lost[entry] = culprit
        else:
            self._let_go(entry, key)
            self._feed(RouteDeleted(entry, culprit))
