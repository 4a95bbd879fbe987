"""Scripts for the VRRP engine: say what happens, read back what it did, one short line an action.

book = Playbook(instance(priority=150))
book.start()
assert book.lines() == ["INIT -> BACKUP", "remove 10.0.0.100 10.0.0.101", "notify BACKUP 150"]
"""

from msgspec.structs import replace

from kad.config.model.vrrp import VrrpInstance
from kad.track.script import EndScript, RunScript
from kad_vrrp.core.actions import (
    Action,
    Announce,
    ChangeAddresses,
    CloseTransport,
    Forget,
    ForgetObject,
    GroupChanged,
    Log,
    Notify,
    OpenTransport,
    PriorityChanged,
    Remember,
    RememberObject,
    SendAdvert,
    StateChanged,
    Stopped,
)
from kad_vrrp.core.advertiser import Adverts
from kad_vrrp.core.engine import EngineSettings
from kad_vrrp.core.events import AdvertReceived, LinkChanged
from kad_vrrp.core.record import decode
from tests.support.vrrp_host import ORDINARY, Host, name_of


def describe(action: Action) -> str:
    """One line, for people and for comparing. Journal records and logs are told apart by their first word."""
    match action:
        case OpenTransport(number=number):
            return f"open {number}"
        case CloseTransport(number=number):
            return f"close {number}"
        case SendAdvert(data=data, destination=destination):
            priority = data[22] if len(data) > 28 and data[0] == 0x45 else data[2]
            return f"advert {priority} to {destination}"
        case ChangeAddresses(remove=remove, add=add):
            parts = []
            if remove:
                parts.append("remove " + " ".join(map(name_of, remove)))
            if add:
                parts.append("add " + " ".join(map(name_of, add)))
            return ", ".join(parts)
        case Announce(frames=frames):
            return f"announce {len(frames)}"
        case Notify(state=state, priority=priority):
            return f"notify {state} {priority}"
        case StateChanged(old=old, new=new):
            return f"{old.value} -> {new.value}"
        case Remember(record=record):
            decoded = decode(record)
            assert decoded is not None
            owed = ",".join(notice.state for notice in decoded.owed)
            return f"remember {decoded.state.value} owing [{owed}]"
        case Forget(instance=name):
            return f"forget {name}"
        case RememberObject(key=key):
            return f"remember {key}"
        case ForgetObject(key=key):
            return f"forget {key}"
        case GroupChanged(group=name, old=old, new=new):
            return f"group {name} {old.value} -> {new.value}"
        case PriorityChanged(state=state, priority=priority):
            return f"priority {priority} as {state.value}"
        case RunScript(script=name):
            return f"run {name}"
        case EndScript(script=name, how=how):
            return f"end {name} {how.name}"
        case Log(text=text):
            return f"log {text}"
        case Stopped():
            return "stopped"
    return repr(action)


class Playbook(Host):
    """A host whose actions are written down."""

    def __init__(self, *configs: VrrpInstance, **settings: object) -> None:
        super().__init__(*configs, **settings)  # type: ignore[arg-type]
        self.actions: list[Action] = []
        self.on_action = self.actions.append

    def start(self, settings: EngineSettings = ORDINARY) -> "Playbook":
        self.boot(settings)
        return self

    def start_as_master(self) -> "Playbook":
        """Start, wait out the master-down interval, and forget how it went."""
        self.boot()
        deadline_us = self.engine.deadline_us
        assert deadline_us is not None
        self.run_until(deadline_us)
        assert self.state(self.configs[0].name) == "MASTER"
        self.lines()
        return self

    def lines(self, *, everything: bool = False) -> list[str]:
        """What was done since the last look; without journal, logs and sockets unless ``everything``."""
        told = [describe(action) for action in self.actions]
        self.actions.clear()
        if everything:
            return told
        return [line for line in told if line.split()[0] not in ("remember", "log", "open", "close")]

    def logs(self) -> list[str]:
        """Texts logged since the last look at anything."""
        return [action.text for action in self.actions if isinstance(action, Log)]

    def hear(
        self, priority: int, source: str = "10.0.0.2", config: VrrpInstance | None = None, transport: int = 1
    ) -> None:
        """An advertisement of another router that has the same configuration, or the one given."""
        sender = config or self.configs[0]
        if sender.unicast:
            ours = next(each.addresses[0] for each in self.links if each.name == sender.interface)
            peers = tuple(type(peer)(ours) for peer in sender.unicast_peers[:1])
            sender = replace(sender, unicast_peers=peers)
        for advert in Adverts(sender, source, transport, old_checksum=False).of(priority):
            self.hear_bytes(advert.data, source, transport)

    def hear_bytes(self, data: bytes, source: str = "10.0.0.2", transport: int = 1) -> None:
        self.tell(AdvertReceived(transport, data, source))

    def set_link(self, changed: LinkChanged) -> None:
        self.links = [each for each in self.links if each.name != changed.name] + [changed]
        self.tell(changed)
