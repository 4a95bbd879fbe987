"""smtp_alert: who is mailed about, where it may be said for one, for all of a kind, and for all."""

from __future__ import annotations

from kad.config.schema import Frame, Reading


def alerts(reading: Reading, frame: Frame, kind: str, *, default: bool) -> bool:
    """The block's own word, else ``smtp_alert_KIND`` of global_defs, else its ``smtp_alert``."""
    own = frame.fields.get("smtp_alert")
    for value in (own, reading.globals.get(f"mail.alert_{kind}"), reading.globals.get("mail.alert")):
        if value is not None:
            return bool(value)
    return default
