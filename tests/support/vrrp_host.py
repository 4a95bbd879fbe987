"""A make-believe machine around the VRRP engine: kernel addresses, journal, clock. No real IO anywhere.

It carries out actions as the shells do, in order, and hands the answers back as events. ``kill_after`` lets
it die in the middle of a list of actions, as kill -9 would.
"""

from collections import deque
from collections.abc import Callable, Sequence

from kad.config.model.routing import Route, Rule
from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import NotifyScripts, SyncGroup, VirtualAddress, VrrpInstance, VrrpSettings
from kad.track.process import Cause, ProcessesCounted, pattern_of
from kad.track.script import EndScript, RunScript, ScriptEnded
from kad_vrrp.core.actions import (
    Action,
    AddressEntry,
    Announce,
    ChangeAddresses,
    CloseTransport,
    Entry,
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
    SetPromoteSecondaries,
    StateChanged,
    Stopped,
    Transport,
)
from kad_vrrp.core.engine import Engine, EngineSettings, Remembered
from kad_vrrp.core.events import (
    AddressFailure,
    BfdChanged,
    ClockSet,
    ConfigurationChanged,
    Event,
    FileRead,
    LinkChanged,
    NotifyDone,
    PlanDone,
    TimeReached,
    TransportOpened,
)
from kad_vrrp.core.record import decode

SECOND = 1_000_000
ORDINARY = EngineSettings()
HANGS = 1000
"""Not an exit status: a script that never ends by itself."""
NOTIFY = NotifyScripts(any_state=ScriptCommand(argv=("/etc/notify",), executable="/etc/notify"))


def instance(name: str = "VI_1", **changes: object) -> VrrpInstance:
    """A version 3 instance with two addresses and a notify script."""
    settings: dict[str, object] = {
        "name": name,
        "virtual_router_id": 51,
        "interface": "eth0",
        "version": 3,
        "virtual_addresses": (VirtualAddress("10.0.0.100", 24), VirtualAddress("10.0.0.101", 24)),
        "notify": NOTIFY,
    }
    return VrrpInstance(**(settings | changes))  # type: ignore[arg-type]


def link(name: str = "eth0", address: str = "10.0.0.1", *, up: bool = True, index: int = 2) -> LinkChanged:
    mac = bytes((2, 0, 0, 0, 0, int(address.rpartition(".")[2])))
    return LinkChanged(
        name=name,
        index=index,
        up=up,
        mac=mac,
        mtu=1500,
        arp=True,
        multicast=True,
        addresses=(address, "fe80::" + address.rpartition(".")[2]),
    )


class Killed(Exception):
    """The process died between two actions."""


AddressKey = tuple[str, str, int]
ObjectKey = AddressKey | Route | Rule


def key_of(entry: Entry) -> ObjectKey:
    """What is one and the same for the kernel."""
    if isinstance(entry, AddressEntry):
        return entry.interface, entry.address, entry.prefix_length
    return entry


class Host:
    """The machine outlives its engine: kernel, journal and the record of notifications stay."""

    def __init__(
        self, *configs: VrrpInstance, links: Sequence[LinkChanged] = (), now_us: int = 10 * SECOND
    ) -> None:
        self.configs = configs
        self.previous: tuple[VrrpInstance, ...] = ()
        self.generation = 1
        self.links = list(links) or [link()]
        self.now_us = now_us
        self.realtime_ahead_us = 0
        """What its wall clock is ahead of ``now_us``; told at boot, and by :meth:`set_clock`."""
        self.kernel: set[ObjectKey] = set()
        self.refuses: set[str] = set()
        """Addresses and destinations the kernel does not accept."""
        self.journal: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        """The journal's records of trackers and sync groups."""
        self.statics: tuple[Entry, ...] = ()
        self.previous_statics: tuple[Entry, ...] = ()
        self.sync_groups: tuple[SyncGroup, ...] = ()
        self.previous_sync_groups: tuple[SyncGroup, ...] = ()
        self.scripts: tuple[TrackScript, ...] = ()
        self.files: tuple[TrackFile, ...] = ()
        self.processes: tuple[TrackProcess, ...] = ()
        self.settings = VrrpSettings()
        self.statuses: dict[str, int | None] = {}
        """What runs of a tracked script end with, 0 unless told; HANGS: they do not end by themselves."""
        self.script_runs: list[RunScript] = []
        """Runs of tracked scripts that go on."""
        self.contents: dict[str, int] = {}
        """What tracked files hold."""
        self.counts: dict[str, int] = {}
        """How many processes run, by name."""
        self.counts_first = False
        """They are counted before the engine gets its configuration: interfaces are made meanwhile."""
        self.counts_known = False
        """The counts are told already, and not again."""
        self.stamps: dict[str, int] = {}
        self.started: list[tuple[str, int, str]] = []
        """Notifications started: (instance, serial, state)."""
        self.finished: list[tuple[str, int, str]] = []
        self.announced: list[tuple[int, str]] = []
        """(when, instance) of every burst."""
        self.transports: dict[int, Transport] = {}
        self.stopped = False
        self.hold_answers = False
        self.scripts_survive = True
        """Whether a script that was started ends even if the process that started it dies."""
        self.recorded: list[tuple[str, str]] = []
        """(instance, what its last notification was to say) of every record written."""
        self.kill_after: int | None = None
        self.on_action: Callable[[Action], None] = lambda action: None
        self.on_advert: Callable[[SendAdvert], None] = lambda advert: None
        self.answers: deque[Event] = deque()
        self.engine = Engine(EngineSettings(), {})

    # Life and death ------------------------------------------------------------------------------------

    def boot(self, settings: EngineSettings = ORDINARY, *, kill_after: int | None = None) -> None:
        """Start the process anew from what is in the journal."""
        remembered = {
            name: Remembered(record, self.now_us - self.stamps.get(name, 0))
            for name, record in self.journal.items()
        }
        self.engine = Engine(settings, remembered, dict(self.objects))
        self.script_runs.clear()
        self.answers.clear()
        self.transports.clear()
        self.stopped = False
        self.kill_after = kill_after
        self.tell(ClockSet(self.realtime_ahead_us))
        for each in self.links:
            self.tell(each)
        self.tell_configuration(self.previous)

    def reload(self, *configs: VrrpInstance) -> None:
        self.previous = self.configs
        self.configs = configs
        self.generation += 1
        self.tell_configuration()

    def tell_configuration(self, previous: tuple[VrrpInstance, ...] = ()) -> None:
        """As the shells do: what files hold before the configuration, counts of processes mostly after it."""
        if self.counts_first:
            self.tell_counts()
        for file in self.files:
            self.tell(FileRead(file.path, self.contents.get(file.path, 0)))
        self.tell(
            ConfigurationChanged(
                self.generation,
                self.configs,
                previous,
                sync_groups=self.sync_groups,
                scripts=self.scripts,
                files=self.files,
                processes=self.processes,
                statics=self.statics,
                previous_statics=self.previous_statics,
                settings=self.settings,
                previous_sync_groups=self.previous_sync_groups,
            )
        )
        if not self.counts_first:
            self.tell_counts()

    def tell_counts(self) -> None:
        for process in self.processes if not self.counts_known else ():
            self.tell(ProcessesCounted(pattern_of(process), self.counts.get(process.process, 0)))

    def write_file(self, path: str, value: int) -> None:
        self.contents[path] = value
        self.tell(FileRead(path, value))

    def count(self, process: str, number: int, cause: Cause = Cause.RENAMED) -> None:
        self.counts[process] = number
        tracker = next(each for each in self.processes if each.process == process)
        self.tell(ProcessesCounted(pattern_of(tracker), number, cause))

    def bfd(self, name: str, up: bool) -> None:
        self.tell(BfdChanged(name, up))

    def set_clock(self, realtime_ahead_us: int) -> None:
        self.realtime_ahead_us = realtime_ahead_us
        self.tell(ClockSet(realtime_ahead_us))

    def end_run(self, script: str, status: int) -> None:
        """A run that hung ends after all."""
        run = next(each for each in self.script_runs if each.script == script)
        self.script_runs.remove(run)
        self.tell(ScriptEnded(script, run.serial, status))

    # Events --------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """One event, and everything that follows from it at once."""
        self._carry_out(self.engine.handle(event, self.now_us))
        self.answer()

    def answer(self) -> None:
        """Hand back what the kernel and the scripts have to say."""
        while self.answers and not self.hold_answers:
            answer = self.answers.popleft()
            if isinstance(answer, NotifyDone) and not self.scripts_survive:
                self._finish(answer.instance, answer.serial)
            self._carry_out(self.engine.handle(answer, self.now_us))

    def _finish(self, name: str, serial: int) -> None:
        self.finished.append(next(each for each in reversed(self.started) if each[:2] == (name, serial)))

    def run_until(self, until_us: int) -> None:
        """Let time pass, waking exactly when the engine asks for it."""
        for _ in range(1_000_000):
            deadline_us = self.engine.deadline_us
            if deadline_us is None or deadline_us > until_us:
                self.now_us = max(self.now_us, until_us)
                return
            self.now_us = max(self.now_us, deadline_us)
            self.tell(TimeReached())
        raise AssertionError("the engine wants to be woken without end")

    def run_for(self, span_us: int) -> None:
        self.run_until(self.now_us + span_us)

    # Actions -------------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if self.kill_after is not None:
                if self.kill_after == 0:
                    raise Killed
                self.kill_after -= 1
            self.on_action(action)
            self._perform(action)

    def _perform(self, action: Action) -> None:
        match action:
            case OpenTransport(number=number, transport=transport):
                self.transports[number] = transport
                self.answers.append(TransportOpened(number))
            case CloseTransport(number=number):
                del self.transports[number]
            case SendAdvert(instance=name, transport=number):
                assert number in self.transports
                self.stamps[name] = self.now_us
                self.on_advert(action)
            case ChangeAddresses():
                self._change(action)
            case Announce(instance=name):
                self.announced.append((self.now_us, name))
            case Notify(commands=()):
                pass  # a line for the FIFOs, which nothing comes back of
            case Notify(instance=name, serial=serial, state=state):
                self.started.append((name, serial, state))
                if self.scripts_survive:
                    self._finish(name, serial)
                self.answers.append(NotifyDone(name, serial))
            case Remember(instance=name, record=record, stamp=stamp):
                self.journal[name] = record
                decoded = decode(record)
                assert decoded is not None
                self.recorded.append((name, decoded.notified))
                if stamp:
                    self.stamps[name] = self.now_us
            case Forget(instance=name):
                self.journal.pop(name, None)
            case Stopped():
                self.stopped = True
            case RememberObject(key=key, record=record):
                self.objects[key] = record
            case ForgetObject(key=key):
                self.objects.pop(key, None)
            case RunScript(script=name, serial=serial):
                status = self.statuses.get(name, 0)
                if status == HANGS:
                    self.script_runs.append(action)
                else:
                    self.answers.append(ScriptEnded(name, serial, status))
            case EndScript(script=name, serial=serial):
                if any(run.serial == serial for run in self.script_runs):
                    self.script_runs = [run for run in self.script_runs if run.serial != serial]
                    self.answers.append(ScriptEnded(name, serial, -15))
            case StateChanged() | Log() | SetPromoteSecondaries() | GroupChanged() | PriorityChanged():
                pass

    def _change(self, action: ChangeAddresses) -> None:
        existed, failures = [], []
        for entry in action.remove:
            self.kernel.discard(key_of(entry))
        for entry in action.add:
            if name_of(entry) in self.refuses:
                failures.append(AddressFailure(entry, True, "EINVAL"))
            elif key_of(entry) in self.kernel:
                existed.append(entry)
            else:
                self.kernel.add(key_of(entry))
        self.answers.append(PlanDone(action.instance, action.serial, tuple(existed), tuple(failures)))

    # Looking -------------------------------------------------------------------------------------------

    def state(self, name: str = "VI_1") -> str:
        return next(report.state for report in self.engine.report().instances if report.name == name)

    @property
    def addresses(self) -> list[str]:
        """What the kernel has, sorted."""
        return sorted(key[1] for key in self.kernel if isinstance(key, tuple))

    @property
    def routes(self) -> list[str]:
        """Destinations of the routes and preferences of the rules that the kernel has, sorted."""
        return sorted(name_of(key) for key in self.kernel if not isinstance(key, tuple))


def name_of(entry: Entry) -> str:
    """An address, a destination or a preference."""
    match entry:
        case AddressEntry():
            return entry.address
        case Route():
            return entry.destination
        case Rule():
            return str(entry.preference)
