"""lvs_sync_daemon once the whole file has been read: which instance it follows, and what that needs."""

from __future__ import annotations

from msgspec.structs import replace

from kad.config.model.config import Config
from kad.config.model.globals import SyncDaemon
from kad.config.schema import Frame, Reading


def synchronised(reading: Reading, root: Frame, config: Config) -> Config:
    """``config`` with the daemon's instance resolved, and the VRRP child told whose state is wanted.

    A daemon that follows an instance which does not exist is none, as with keepalived.
    """
    daemon = config.globals.lvs_sync_daemon or _of_old(root)
    if daemon is None:
        return config
    resolved = _resolved(reading, daemon, config)
    followed = resolved.instance if resolved is not None else ""
    settings = replace(config.vrrp.settings, followed_instance=followed)
    return replace(
        config,
        globals=replace(config.globals, lvs_sync_daemon=resolved),
        vrrp=replace(config.vrrp, settings=settings),
    )


def _of_old(root: Frame) -> SyncDaemon | None:
    """lvs_sync_daemon_interface of an instance. keepalived's sync id is then 0, not the router id."""
    said: tuple[str, str] | None = root.fields.get("(sync daemon)")
    return SyncDaemon(said[0], instance=said[1], sync_id=0) if said is not None else None


def _resolved(reading: Reading, daemon: SyncDaemon, config: Config) -> SyncDaemon | None:
    if not daemon.instance:
        return replace(daemon, sync_id=daemon.sync_id or 0)
    for instance in config.vrrp.instances:
        if instance.name == daemon.instance:
            own = daemon.sync_id
            return replace(daemon, sync_id=instance.virtual_router_id if own is None else own)
    reading.error(
        "not-defined",
        f"lvs_sync_daemon: there is no vrrp_instance '{daemon.instance}'; it is ignored",
        None,
        reading.definition("lvs_sync_daemon", "") or reading.definition("sync daemon", ""),
        0,
    )
    return None
