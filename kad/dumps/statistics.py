"""keepalived.stats: the counters of each instance."""

from __future__ import annotations

from kad.ipc.reports import InstanceReport

_SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Advertisements", (("Received", "advert_rcvd"), ("Sent", "advert_sent"))),
    ("", (("Became master", "become_master"), ("Released master", "release_master"))),
    (
        "Packet Errors",
        (
            ("Length", "packet_len_err"),
            ("TTL", "ip_ttl_err"),
            ("Invalid Type", "invalid_type_rcvd"),
            ("Advertisement Interval", "advert_interval_err"),
            ("Address List", "addr_list_err"),
        ),
    ),
    (
        "Authentication Errors",
        (
            ("Invalid Type", "invalid_authtype"),
            ("Type Mismatch", "authtype_mismatch"),
            ("Failure", "auth_failure"),
        ),
    ),
    (
        "Authentication Extension Errors",
        (
            ("Missing", "auth_ext_missing"),
            ("Malformed", "auth_ext_malformed"),
            ("Unknown Key", "auth_ext_unknown_key"),
            ("Invalid HMAC", "auth_ext_invalid_hmac"),
            ("Stale", "auth_ext_stale"),
            ("Replay", "auth_ext_replay"),
        ),
    ),
    ("Priority Zero", (("Received", "pri_zero_rcvd"), ("Sent", "pri_zero_sent"))),
)
_COUNTERS = tuple(name for _, rows in _SECTIONS for _, name in rows)


def _template() -> str:
    lines = ["VRRP Instance: %s"]
    for title, rows in _SECTIONS:
        if title:
            lines.append(f"  {title}:")
        pad = "    " if title else "  "
        lines += [f"{pad}{label}: %d" for label, _ in rows]
    return "\n".join(lines) + "\n"


_TEMPLATE = _template()


def statistics_text(instances: tuple[InstanceReport, ...]) -> str:
    """The whole file."""
    return "".join(
        _TEMPLATE % (each.name, *(each.counters.get(name, 0) for name in _COUNTERS)) for each in instances
    )
