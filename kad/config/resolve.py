"""Raw fields to model Structs: what a vrrp_instance inherits, what strict_mode makes of it, what clashes.

The rules are those of RFC 9568/3768 and of keepalived 2.4.3; each correction is reported where it was said.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kad.addresses import INET, INET6, is_link_local
from kad.config.alerts import alerts
from kad.config.assemble import assemble, defaults
from kad.config.model.vrrp import (
    OWNER,
    AuthHmac,
    AuthType,
    Tracking,
    Vmac,
    VrrpInstance,
    WantedState,
)
from kad.config.schema import Frame, Reading
from kad.errors import ExitStatus
from kad.units import US_PER_CENTISECOND, US_PER_SECOND

DEFAULT_GROUPS = {INET: "224.0.0.18", INET6: "ff02::12"}
ADVERTISABLE = {INET: 255, INET6: 89}
"""Addresses that fit in an advert: the count has 8 bits, and an IPv6 one must fit an Ethernet frame."""
LONGEST_INTERVAL_US = {2: 255 * US_PER_SECOND, 3: 4095 * US_PER_CENTISECOND}
INTERVAL_UNIT_US = {2: US_PER_SECOND, 3: US_PER_CENTISECOND}
HMAC_WINDOW_LEAST_US = 5 * US_PER_SECOND
HMAC_WINDOW_MOST_US = 300 * US_PER_SECOND


class InstanceResolver:
    """One vrrp_instance: its frame and the fields as they come to be."""

    def __init__(self, reading: Reading, frame: Frame, base: dict[str, Any], group: Frame | None) -> None:
        self.reading = reading
        self.frame = frame
        self.own = frame.fields
        self.fields: dict[str, Any] = {**base, **frame.fields}
        self.group = group
        """The sync group it is in."""

    def resolve(self) -> VrrpInstance | None:
        """The instance, or None when it cannot be run (which has been reported as fatal)."""
        if not self._is_complete():
            return None
        self._family_and_version()
        self._state_and_priority()
        self._authentication()
        if not self._transport():
            return None
        self._addresses()
        self._preemption()
        self._strictness()
        self._interval()
        self._vmac()
        self._tracking()
        self._priority_changes()
        self.fields["smtp_alert"] = alerts(self.reading, self.frame, "vrrp", default=False)
        if not self._has_addresses():
            return None
        return assemble(
            VrrpInstance,
            self.fields,
            name=self.frame.name,
            virtual_router_id=self.fields["virtual_router_id"],
            tracking=self._tracked(),
            sync_group=self.group.name if self.group is not None else "",
        )

    # Reports: at the line that said it, else at the instance

    def _error(self, code: str, message: str, field: str = "", remedy: str = "") -> None:
        place = self.frame.place(field)
        self.reading.error(code, f"({self.frame.name}) {message}", self.frame, place, 0, remedy=remedy)

    def _warning(self, code: str, message: str, field: str, remedy: str = "", **status: int) -> None:
        place, text = self.frame.place(field), f"({self.frame.name}) {message}"
        self.reading.warning(code, text, self.frame, place, 0, remedy=remedy, **status)

    def _fatal(self, code: str, message: str, remedy: str = "") -> None:
        statement = self.frame.statement
        self.reading.fatal(code, f"({self.frame.name}) {message}", self.frame, statement, 1, remedy=remedy)

    def _is_complete(self) -> bool:
        if "virtual_router_id" not in self.own:
            self._fatal("no-vrid", "there is no virtual_router_id", "virtual_router_id 1 to 255")
            return False
        if "interface" not in self.own and "(unicast)" not in self.own:
            self._fatal("no-interface-given", "the interface is missing", "interface NAME")
            return False
        return True

    def _family_and_version(self) -> None:
        fields = self.fields
        family = fields.setdefault("family", INET)
        strict = fields.get("strict_mode", False)
        if family == INET6:
            if fields.get("version") == 2 and strict:
                self._error("ipv6-version", "IPv6 needs version 3, which is used", "version", "version 3")
                fields["version"] = 3
            fields.setdefault("version", 3)
        elif "version4" in self.reading.globals:
            fields.setdefault("version", self.reading.globals["version4"])
        fields.setdefault("version", defaults(VrrpInstance)["version"])
        group = self.reading.globals.get(f"group{family}", DEFAULT_GROUPS[family])
        self.fields.setdefault("multicast_group", group)

    def _state_and_priority(self) -> None:
        fields = self.fields
        wanted = fields.get("wanted_state")
        if "priority" not in fields:
            fields["priority"] = OWNER if wanted is WantedState.MASTER else defaults(VrrpInstance)["priority"]
        by_priority = WantedState.MASTER if self._is_owner() else WantedState.BACKUP
        if wanted is None:
            fields["wanted_state"] = by_priority
        elif self._strict() and wanted is not by_priority:
            self._error(
                "strict-state", f"strict_mode: state must be {by_priority} with this priority", "wanted_state"
            )
            fields["wanted_state"] = by_priority

    def _is_owner(self) -> bool:
        return bool(self.fields["priority"] == OWNER)

    def _strict(self) -> bool:
        return bool(self.fields.get("strict_mode", False))

    def _authentication(self) -> None:
        kind = self.fields.get("auth_type", AuthType.NONE)
        reason = ""
        if kind is not AuthType.NONE:
            if self._strict():
                reason = "strict_mode allows no authentication"
            elif self.fields["version"] == 3:
                reason = "version 3 has no authentication"
            elif not self.fields.get("auth_pass"):
                reason = "authentication needs auth_pass"
            elif kind is AuthType.AH and self.fields["family"] == INET6:
                reason = "AH is for IPv4"
        if reason:
            self._error("no-authentication", f"{reason}; it is ignored", "auth_type")
            self.fields["auth_type"] = AuthType.NONE
        elif kind is AuthType.AH and self._wants_master() and not self._is_owner():
            # An advert must have been heard first: its sequence number is needed.
            self._error("ah-master", "AH starts as BACKUP", "wanted_state", "state BACKUP")
            self.fields["wanted_state"] = WantedState.BACKUP
        self._hmac()

    def _wants_master(self) -> bool:
        return self.fields["wanted_state"] is WantedState.MASTER

    def _hmac(self) -> None:
        raw = self.fields.pop("(auth_hmac)", None)
        if raw is None:
            return
        if self.fields.get("auth_type", AuthType.NONE) is not AuthType.NONE:
            self._error("conflict", "auth_hmac replaces authentication, which is ignored", "auth_type")
            self.fields["auth_type"] = AuthType.NONE
        active = raw.get("active_key", 0)
        if not any(key.key_id == active for key in raw.get("keys", ())):
            self._error(
                "no-key", f"auth_hmac has no key {active}; it is ignored", "auth_hmac", "active_key ID"
            )
            return
        if self._strict() and raw.get("mode", "enforce") != "enforce":
            self._error("strict-hmac", "strict_mode enforces auth_hmac", "auth_hmac")
            raw["mode"] = "enforce"
        if "time_window_us" not in raw and raw.get("anti_replay", "time") == "time":
            interval = self.fields.get("advert_int_us", US_PER_SECOND) // US_PER_SECOND * US_PER_SECOND
            raw["time_window_us"] = max(HMAC_WINDOW_LEAST_US, min(HMAC_WINDOW_MOST_US, 3 * interval))
        self.fields["auth_hmac"] = assemble(AuthHmac, raw)

    def _transport(self) -> bool:
        """Unicast or multicast, from where. False: it cannot be run."""
        fields = self.fields
        peers = fields.get("unicast_peers", ())
        interface = fields.get("interface", "")
        fields["unicast"] = bool(peers) or bool("(unicast)" in fields and fields.get("unicast_fault_no_peer"))
        if "(unicast)" in fields and not fields["unicast"]:
            self._no_peers()
        if not peers and "unicast_ttl" in fields:
            self._error("unused", "unicast_ttl means nothing without peers", "unicast_ttl")
            del fields["unicast_ttl"]
        if self._strict() and peers and interface and self._interface_is_there(interface):
            self._fatal("strict-unicast", "strict_mode allows no unicast peers on a multicast interface")
            return False
        if not interface:
            return self._without_interface()
        if "vrf" in fields:
            self._error("conflict", "vrf is for instances without interface; it is ignored", "vrf")
            del fields["vrf"]
        if fields["unicast"] and "multicast_group" in self.own:
            self._error("unused", "mcast_dst_ip means nothing with peers", "multicast_group")
        if "source_address" not in fields and fields.pop("track_src_ip", None):
            text, remedy = "there is no address to follow", "mcast_src_ip or unicast_src_ip"
            self._warning("unused", text, "track_src_ip", remedy, status=ExitStatus.OK)
        return True

    def _no_peers(self) -> None:
        self.reading.warning(
            "no-peers",
            f"({self.frame.name}) unicast is asked for, but there are no peers: multicast is used",
            self.frame,
            self.frame.statement,
            1,
            remedy="unicast_peer { … }, or unicast_fault_no_peer",
        )

    def _interface_is_there(self, name: str) -> bool:
        machine = self.reading.machine
        return machine is None or machine.has_interface(name)

    def _without_interface(self) -> bool:
        source = self.fields.get("source_address", "")
        if not source:
            self._fatal("no-source", "an instance needs an interface or unicast_src_ip")
            return False
        if is_link_local(source):
            self._fatal("no-source", "a link-local source needs an interface")
            return False
        if "vrf" in self.fields and not self.fields["unicast"]:
            self._error("conflict", "vrf is for unicast; it is ignored", "vrf")
            del self.fields["vrf"]
        return True

    def _addresses(self) -> None:
        fields = self.fields
        addresses = fields.get("virtual_addresses", [])
        family = fields["family"]
        if family == INET6 and not fields["unicast"] and addresses:
            self._first_address(addresses[0].address)
        most = ADVERTISABLE[family]
        if len(addresses) > most:
            self._error(
                "too-many-addresses",
                f"an advert holds {most} addresses; the other {len(addresses) - most} are not advertised",
                remedy="virtual_ipaddress_excluded",
            )
            fields["excluded_addresses"] = [*addresses[most:], *fields.get("excluded_addresses", [])]
            fields["virtual_addresses"] = addresses[:most]
        if not fields.get("interface"):
            self._drop_homeless()

    def _first_address(self, address: str) -> None:
        """RFC 9568 §5.2.9: the first IPv6 address is link-local."""
        if not is_link_local(address):
            self.reading.warning(
                "first-address",
                f"({self.frame.name}) the first IPv6 address should be link-local",
                self.frame,
                self.frame.statement,
                1,
                status=ExitStatus.CONFIG_ERRORS if self._strict() else ExitStatus.OK,
            )

    def _drop_homeless(self) -> None:
        for field in ("virtual_addresses", "excluded_addresses"):
            for address in self.fields.get(field, ()):
                if not address.interface:
                    remedy = "interface NAME in the instance, or dev NAME after the address"
                    text = f"{address.address} has no interface; ignored"
                    self._error("no-interface-given", text, remedy=remedy)
            kept = [address for address in self.fields.get(field, ()) if address.interface]
            if field in self.fields:
                self.fields[field] = kept

    def _preemption(self) -> None:
        fields = self.fields
        if fields.get("nopreempt") and (self._is_owner() or self._wants_master()):
            reason = f"priority {OWNER}" if self._is_owner() else "state MASTER"
            self._error("nopreempt", f"nopreempt is ignored with {reason}", "nopreempt", "state BACKUP")
            fields["nopreempt"] = False
        if fields.get("preempt_delay_us"):
            reason = (
                "state MASTER"
                if self._wants_master()
                else "strict_mode"
                if self._strict()
                else "nopreempt"
                if fields.get("nopreempt")
                else ""
            )
            if reason:
                self._error("preempt-delay", f"preempt_delay is ignored with {reason}", "preempt_delay_us")
                fields["preempt_delay_us"] = 0
        if fields.get("timer_expired_backup") and not fields.get("nopreempt"):
            self._error(
                "unused", "timer_expired_backup needs nopreempt; it is ignored", "timer_expired_backup"
            )
            fields["timer_expired_backup"] = 0

    def _strictness(self) -> None:
        """strict_mode fixes some values; what says otherwise is reported (RFC 9568 leaves no choice)."""
        fields = self.fields
        strict = self._strict()
        usual = defaults(VrrpInstance)
        if strict:
            if fields.get("down_timer_adverts", usual["down_timer_adverts"]) != usual["down_timer_adverts"]:
                self._error("strict", "strict_mode: down_timer_adverts is 3", "down_timer_adverts")
            fields["down_timer_adverts"] = usual["down_timer_adverts"]
            for field, value in (
                ("garp.lower_prio_repeat", 0),
                ("garp.lower_prio_delay_us", 0),
                ("lower_prio_no_advert", True),
                ("higher_prio_send_advert", False),
            ):
                if field in self.own and self.own[field] != value:
                    keyword = self.frame.places[field].texts[0]
                    self._error("strict", f"strict_mode does not allow this {keyword}", field)
                fields[field] = value
        self._accept(strict)
        self._owner_ignores(strict)

    def _accept(self, strict: bool) -> None:
        """RFC 9568 §6.1 Accept_Mode: false unless owner; keepalived's default is true without strict_mode."""
        accept = self.fields.get("accept", self._is_owner() or not strict)
        if accept and strict and not self._is_owner() and self.fields["version"] == 2:
            self._error("strict", "version 2 has no accept mode; it is off", "accept")
            accept = False
        self.fields["accept"] = accept
        self.fields["no_accept"] = not accept and not self._is_owner()

    def _owner_ignores(self, strict: bool) -> None:
        field = "owner_ignore_adverts"
        owner = self._is_owner()
        if field in self.own:
            if self.own[field] and not owner:
                self._error("unused", f"{field} is for priority {OWNER}; it is ignored", field)
            elif owner and not self.own[field]:
                self._error("strict", f"priority {OWNER} ignores adverts", field)
                self.fields[field] = True
            if not owner:
                self.fields[field] = False
        else:
            self.fields[field] = owner and (strict or self.fields.get(field, False))

    def _interval(self) -> None:
        """RFC 3768 §5.3.7: whole seconds; RFC 9568 §5.2.7: hundredths, 12 bits."""
        version = self.fields["version"]
        interval = self.fields.get("advert_int_us", defaults(VrrpInstance)["advert_int_us"])
        unit, longest = INTERVAL_UNIT_US[version], LONGEST_INTERVAL_US[version]
        used = max(unit, min(longest, (interval + unit // 2) // unit * unit))
        if used != interval:
            self._warning(
                "advert-interval",
                f"version {version} counts advert_int in {unit / US_PER_SECOND:g} s up to"
                f" {longest / US_PER_SECOND:g} s: {used / US_PER_SECOND:g} s is used",
                "advert_int_us",
                "version 3 has shorter intervals" if version == 2 and interval < unit else "",
            )
        self.fields["advert_int_us"] = used
        self._debounce(used)

    def _debounce(self, interval_us: int) -> None:
        """A link that is debounced longer than a backup waits would never be noticed in time."""
        delays: dict[str, tuple[int, int]] = {}
        for each in self.reading.root.fields.get("interface_up_down_delays", ()):
            delays.update(each)
        known = delays.get(self.fields.get("interface", ""))
        if known is None:
            return
        adverts = self.fields.get("down_timer_adverts", defaults(VrrpInstance)["down_timer_adverts"])
        longest = max(0, (adverts - 1) * interval_us - interval_us // 256)
        down, up = min(known[0], longest), known[1] if adverts > 1 else 0
        if (down, up) != known:
            self.reading.warning(
                "debounce",
                f"({self.frame.name}) interface_up_down_delays must stay below the master-down interval:"
                f" {down / US_PER_SECOND:g} s and {up / US_PER_SECOND:g} s are used",
                self.frame,
                self.frame.statement,
                1,
                status=ExitStatus.OK,
            )
        self.fields["interface_down_delay_us"], self.fields["interface_up_delay_us"] = down, up

    def _vmac(self) -> None:
        fields = self.fields
        vmac: Vmac | None = fields.get("vmac")
        xmit_base = bool(fields.pop("(xmit_base)", False))
        if vmac is None:
            if xmit_base:
                self._error("unused", "vmac_xmit_base means nothing without use_vmac", "(xmit_base)")
            return
        if fields["unicast"] and not fields.get("interface"):
            self._error("conflict", "a VMAC needs an interface; use_vmac is ignored", "vmac")
            del fields["vmac"]
            return
        if "(unicast)" in fields and not xmit_base:
            self._error(
                "vmac-unicast",
                "unicast with a VMAC needs vmac_xmit_base, which is set",
                "vmac",
                "vmac_xmit_base",
            )
            xmit_base = True
        if self._strict() and (vmac.mac or xmit_base):
            self._error("strict", "strict_mode allows neither a MAC address nor vmac_xmit_base", "vmac")
            vmac, xmit_base = msgspec.structs.replace(vmac, mac=""), False
        if fields.get("promote_secondaries"):
            self._error("unused", "VMACs always promote secondaries", "promote_secondaries")
            del fields["promote_secondaries"]
        if vmac.ipvlan and fields["family"] == INET and not vmac.address:
            self._error("ipvlan", "an IPv4 ipvlan needs an address; the instance stays in FAULT", "vmac")
            fields["fault"] = "an IPv4 ipvlan needs an address"
        if len(vmac.mac.split(":")) == 5:
            vmac = msgspec.structs.replace(vmac, mac=f"{vmac.mac}:{fields['virtual_router_id']:02x}")
        fields["vmac"] = msgspec.structs.replace(vmac, xmit_base=xmit_base)

    def _priority_changes(self) -> None:
        """notify_priority_changes: the instance's own word, else its group's, else the global one."""
        field = "notify_priority_changes"
        if field not in self.own and self.group is not None and field in self.group.fields:
            self.fields[field] = self.group.fields[field]

    # Tracking

    def _tracking(self) -> None:
        self._drop_own_interface()
        group = self.group
        bound = group is not None and not group.fields.get("sync_group_tracking_weight", False)
        if bound or self._is_owner():
            self._drop_weights(bound)

    def _drop_own_interface(self) -> None:
        for block in self.fields.get("interfaces", ()):
            for item, statement in list(block):
                if item.name == self.fields.get("interface"):
                    self.reading.warning(
                        "own-interface",
                        f"({self.frame.name}) its own interface is followed anyway; the line is ignored",
                        self.frame,
                        statement,
                        0,
                    )
                    block.remove((item, statement))

    def _drop_weights(self, bound: bool) -> None:
        """Members of a group and owners have no floating priority: RFC 9568 §5.2.4 fixes the owner's."""
        reason = "members of a sync group" if bound else "address owners"
        for field in ("interfaces", "scripts", "files", "bfds"):
            for block in self.fields.get(field, ()):
                for position, (item, statement) in reversed(list(enumerate(block))):
                    if not item.weight:
                        continue
                    unweighted = (field == "interfaces" and bound) or (field == "files" and item.weight == 1)
                    self.reading.error(
                        "weight",
                        f"({self.frame.name}) {reason} follow nothing by weight; "
                        + ("the weight is ignored" if unweighted else f"'{item.name}' is not followed"),
                        self.frame,
                        statement,
                        0,
                        remedy="weight 0, or sync_group_tracking_weight in the group" if bound else "",
                    )
                    if unweighted:
                        block[position] = (msgspec.structs.replace(item, weight=0), statement)
                    else:
                        del block[position]

    def _tracked(self) -> Tracking:
        return tracking_of(self.fields)

    def _has_addresses(self) -> bool:
        """RFC 9568 §5.2.9: at least one; version 2 without strict_mode may have none."""
        fields = self.fields
        if fields.get("no_virtual_ipaddress") and self._strict():
            self._error("strict", "strict_mode needs an address", "no_virtual_ipaddress")
            fields["no_virtual_ipaddress"] = False
        if fields.get("virtual_addresses") or fields.get("no_virtual_ipaddress"):
            return True
        if fields["version"] == 3 or self._strict():
            self._fatal(
                "no-address", "at least one address is needed", "virtual_ipaddress, or no_virtual_ipaddress"
            )
            return False
        self.reading.warning(
            "no-address",
            f"({self.frame.name}) there is no address",
            self.frame,
            self.frame.statement,
            1,
            remedy="virtual_ipaddress { … }",
        )
        return True


def tracking_of(fields: dict[str, Any]) -> Tracking:
    """The items of all ``track_*`` blocks of an instance or group."""
    kinds = [name for name in Tracking.__struct_fields__ if name in fields]
    found = {name: tuple(item for block in fields[name] for item, _ in block) for name in kinds}
    return Tracking(**found)
