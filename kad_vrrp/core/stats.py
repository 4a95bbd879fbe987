"""Counters of an instance, under keepalived's names, and of the engine. Pure."""

from operator import attrgetter

from kad_vrrp.core.packet import DropReason

COUNTER_OF_DROP: dict[DropReason, str] = {
    DropReason.AH_HEADER: "authtype_mismatch",
    DropReason.LENGTH: "packet_len_err",
    DropReason.TTL: "ip_ttl_err",
    DropReason.AUTH_TYPE_INVALID: "invalid_authtype",
    DropReason.AUTH_TYPE_MISMATCH: "authtype_mismatch",
    DropReason.AUTH_FAILURE: "auth_failure",
    DropReason.ADVERT_INTERVAL: "advert_interval_err",
    DropReason.TYPE: "invalid_type_rcvd",
    DropReason.IP_LENGTH: "packet_len_err",
    DropReason.CAST: "addr_list_err",
    DropReason.UNICAST_TTL: "ip_ttl_err",
    DropReason.AUTH_EXT_MISSING: "auth_ext_missing",
    DropReason.AUTH_EXT_MALFORMED: "auth_ext_malformed",
    DropReason.AUTH_EXT_UNKNOWN_KEY: "auth_ext_unknown_key",
    DropReason.AUTH_EXT_INVALID_HMAC: "auth_ext_invalid_hmac",
    DropReason.AUTH_EXT_STALE: "auth_ext_stale",
    DropReason.AUTH_EXT_REPLAY: "auth_ext_replay",
}
"""keepalived's counter for a reason; the others have none there (``drops`` counts every reason)."""

COUNTERS = (
    "advert_rcvd",
    "advert_sent",
    "become_master",
    "release_master",
    "packet_len_err",
    "advert_interval_err",
    "ip_ttl_err",
    "invalid_type_rcvd",
    "addr_list_err",
    "invalid_authtype",
    "authtype_mismatch",
    "auth_failure",
    "auth_ext_missing",
    "auth_ext_malformed",
    "auth_ext_unknown_key",
    "auth_ext_invalid_hmac",
    "auth_ext_stale",
    "auth_ext_replay",
    "pri_zero_rcvd",
    "pri_zero_sent",
)
_counts = attrgetter(*COUNTERS)


class Statistics:
    """Counts since the process began (a reload keeps them)."""

    __slots__ = (*COUNTERS, "drops")

    def __init__(self) -> None:
        self.advert_rcvd = 0
        self.advert_sent = 0
        self.become_master = 0
        self.release_master = 0
        self.packet_len_err = 0
        self.advert_interval_err = 0
        self.ip_ttl_err = 0
        self.invalid_type_rcvd = 0
        self.addr_list_err = 0
        self.invalid_authtype = 0
        self.authtype_mismatch = 0
        self.auth_failure = 0
        self.auth_ext_missing = 0
        self.auth_ext_malformed = 0
        self.auth_ext_unknown_key = 0
        self.auth_ext_invalid_hmac = 0
        self.auth_ext_stale = 0
        self.auth_ext_replay = 0
        self.pri_zero_rcvd = 0
        self.pri_zero_sent = 0
        self.drops: dict[DropReason, int] = {}

    def count_drop(self, reason: DropReason) -> None:
        """A packet was not believed."""
        self.drops[reason] = self.drops.get(reason, 0) + 1
        counter = COUNTER_OF_DROP.get(reason)
        if counter is not None:
            setattr(self, counter, getattr(self, counter) + 1)

    def clear(self) -> None:
        """Begin anew, as asked for from outside."""
        for name in COUNTERS:
            setattr(self, name, 0)
        self.drops.clear()

    def as_dict(self) -> dict[str, int]:
        """Every counter, in keepalived's order."""
        return dict(zip(COUNTERS, _counts(self), strict=True))
