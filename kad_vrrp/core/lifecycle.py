"""Start, reload, restart after a crash, stop and withdrawal: the set of instances over time. Pure."""

from collections.abc import Callable, Mapping

from kad.config.model.vrrp import Tracking, VrrpInstance
from kad.notify.policy import group_line, instance_line
from kad.units import NEVER, in_seconds
from kad_vrrp.core.actions import Forget, LogLevel, SetPromoteSecondaries, State, Stopped, WriteFifo
from kad_vrrp.core.context import Context, Ending
from kad_vrrp.core.deadlines import Deadlines
from kad_vrrp.core.events import ConfigurationChanged
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.memory import restore
from kad_vrrp.core.notices import audience_of, notify_state
from kad_vrrp.core.record import Record, Remembered, decode
from kad_vrrp.core.registry import Registry
from kad_vrrp.core.reload import complete, configure, match
from kad_vrrp.core.resources import entries_of
from kad_vrrp.core.statics import Statics
from kad_vrrp.core.sync_group import SyncGroup

STOP_PLAN_LIMIT_US = 2_000_000
"""How long the kernel may take to give the addresses back before the process leaves anyway."""
STOP_NOTIFY_LIMIT_US = 1_000_000
"""How long notifications may run after that (keepalived gives them one second too)."""
WITHDRAW_SOCKET_LIMIT_US = 200_000
"""How long a withdrawing child waits for sockets to say priority 0 on."""


class Lifecycle:
    """Owns what instances there are; the engine owns what happens to them."""

    def __init__(
        self,
        context: Context,
        registry: Registry,
        deadlines: Deadlines,
        statics: Statics,
        remembered: Mapping[str, Remembered],
    ) -> None:
        self._context = context
        self._statics = statics
        self._registry = registry
        self._deadlines = deadlines
        self._remembered = dict(remembered)
        self._records: dict[str, tuple[Record, int]] = {}
        self._started = False
        self._stopping = False
        self._stopped = False
        self._promoted: dict[str, int] = {}
        """Interfaces where promote_secondaries was set, with their index."""
        self._limit: Callable[[int], None] | None = None
        self.deadline_us = NEVER
        """When the patience of a stop ends."""
        self._unfinished: list[Instance] = []
        """Of a stop: those that may still wait for the kernel or a script, as a stack."""
        self._unanswered: list[Instance] = []
        """Of these, those that may still wait for the kernel."""

    def touch(self, instance: Instance, now_us: int) -> None:
        """After anything but a packet or a timer: its sockets, its conditions, its deadline."""
        withdraw = self._context.settings.withdraw
        if instance.ending is None and (not withdraw or instance.state is State.MASTER):
            self._registry.bind(instance)
            if not withdraw:
                instance.check(now_us)
        instance.arm()
        self._deadlines.push(instance)

    def on_link(self, name: str, now_us: int) -> None:
        """An interface changed, appeared or vanished."""
        self._promote()
        for instance in self._registry.on_interface(name):
            self.touch(instance, now_us)

    def _promote(self) -> None:
        """promote_secondaries on the interfaces of those that ask for it, from before their first address."""
        links = self._context.links
        asking = {i.config.interface for i in self._registry.instances if i.config.promote_secondaries}
        wanted = {name: links[name].index for name in asking if name in links and not self._stopped}
        for name in sorted(self._promoted.keys() - wanted.keys()):
            if name in links:
                self._context.emit(SetPromoteSecondaries(name, False))
        for name, index in sorted(wanted.items()):
            if self._promoted.get(name) != index:
                self._context.emit(SetPromoteSecondaries(name, True))
        self._promoted = wanted

    def on_time(self, now_us: int) -> None:
        """The patience of a stop has ended, if it has."""
        if self.deadline_us <= now_us and self._limit is not None:
            self.deadline_us = NEVER
            self._limit(now_us)

    # Configurations ------------------------------------------------------------------------------------

    def configure(self, event: ConfigurationChanged, now_us: int) -> None:
        """Run this generation from now on."""
        if self._stopping:
            return
        self._context.generation = event.generation
        self._context.bases = {link.name: link.base for link in event.virtual_links}
        self._context.pacer.configure(event.garp_groups, self._context.bases)
        settings = event.settings
        self._context.audience = audience_of(settings)
        self._context.names_unknown_vrids = settings.log_unknown_vrids
        if self._started:
            before = {each: each.state for each in self._everyone()}
            self._reload(event, now_us)
            if settings.fifo_write_states_on_reload and self._context.audience.fifo:
                self._repeat_states(before)
            return
        self._started = True
        self._start(event, now_us)
        if self._context.settings.withdraw:
            self._begin_withdrawal(now_us)

    def _start(self, event: ConfigurationChanged, now_us: int) -> None:
        """The first configuration, with what former lives remember."""
        self._context.deaf_until_us = now_us + self._context.settings.startup_delay_us
        self._decode_records()
        unreadable = [name for name in self._remembered if name not in self._records]
        instances = [Instance(config, self._context, now_us) for config in event.instances]
        if not self._context.settings.withdraw:
            self._registry.arrange(event.sync_groups, instances)
        self._registry.index(instances)
        self._promote()
        orphans = self._recall_all(event, instances, now_us)
        if not self._context.settings.withdraw:
            for group in self._registry.groups.values():
                group.recall()
            for former in event.previous_sync_groups:
                if former.name not in self._registry.groups:
                    removed = SyncGroup(former, self._context)
                    removed.recall()
                    self._registry.dissolve(removed)
            self._context.trackers.configure(event, now_us, first=True)
            self._statics.start(event.statics, event.previous_statics)
            self._context.records.forget_former()
        self._dismiss(orphans, now_us)
        self._bind_all(instances)
        for instance in instances:
            self.touch(instance, now_us)
            if (
                instance.recalled
                and instance.state is not State.MASTER
                and not self._context.settings.withdraw
            ):
                # What a former life left goes at once, whatever is in the way of taking part.
                instance.reconcile(now_us)
        for name in (*self._records, *unreadable):
            if not self._registry.named(name):
                self._context.emit(Forget(name))
        self._records.clear()
        self._remembered.clear()

    def _decode_records(self) -> None:
        """Readable records with their ages; serial numbers go on above all of them."""
        for name, remembered in self._remembered.items():
            record = decode(remembered.record)
            if record is None:
                text = f"({name}) the journal's record is not readable: starting anew"
                self._context.log(LogLevel.ERROR, text)
                continue
            self._records[name] = (record, remembered.silent_for_us)
            highest = max((notice.serial for notice in record.owed), default=0)
            self._context.serial = max(self._context.serial, record.serial, highest)

    def _recall_all(
        self, event: ConfigurationChanged, instances: list[Instance], now_us: int
    ) -> list[Instance]:
        """Give everyone its record. Those that an interrupted reload was to remove, and has not yet.

        A record of this generation is about the instance that has the name now, an older one about the one
        that had it before the reload.
        """
        living = {instance.config.name: instance for instance in instances}
        pairs = match(event.previous, event.instances)
        former = {config.name for config in event.previous}
        gone = [config for index, config in enumerate(event.previous) if index not in pairs]
        present = {
            name
            for name, (record, _) in self._records.items()
            if name in living and (record.generation == event.generation or name not in former)
        }
        orphans = [
            self._orphan(config, now_us)
            for config in gone
            if config.name in self._records and config.name not in present
        ]
        self._registry.succeed(orphans, living)
        for instance, index in zip(instances, pairs, strict=True):
            previous = None if index is None else event.previous[index]
            if instance.config.name in present:
                self._recall(instance, instance.config.name, previous, now_us)
            elif previous is not None and previous.name in self._records and previous.name not in present:
                self._recall(instance, previous.name, previous, now_us)
        for config in gone:
            if config.name in present:
                living[config.name].holdings.inherit(entries_of(config))
        return orphans

    def _recall(self, instance: Instance, source: str, previous: VrrpInstance | None, now_us: int) -> None:
        """Give an instance the record of this name."""
        name = instance.config.name
        record, silent_for_us = self._records[source]
        restore(instance, record, silent_for_us, previous, now_us)
        text = f"({name}) going on as {record.state.value}"
        if record.state is State.MASTER:
            text += f", silent for {in_seconds(silent_for_us)}"
        self._context.log(LogLevel.INFO, text)
        if source == name:
            del self._records[name]
        else:
            # The record under the old name is forgotten at the end, after this one is written.
            instance.remember()

    def _orphan(self, config: VrrpInstance, now_us: int) -> Instance:
        """An instance that the interrupted reload was to remove, with its record."""
        record, silent_for_us = self._records.pop(config.name)
        orphan = Instance(config, self._context, now_us)
        restore(orphan, record, silent_for_us, None, now_us)
        return orphan

    def _bind_all(self, instances: list[Instance]) -> None:
        """Members of a group are looked at together: each needs its sockets and source address first."""
        for instance in instances:
            if instance.group is not None:
                self._registry.bind(instance)

    def _reload(self, event: ConfigurationChanged, now_us: int) -> None:
        """Removals of every instance first, then additions: an address may move between two of them."""
        old = self._registry.instances
        instances: list[Instance] = []
        changed: list[tuple[Instance, VrrpInstance]] = []
        added: list[Instance] = []
        pairs = match([instance.config for instance in old], event.instances)
        for config, index in zip(event.instances, pairs, strict=True):
            if index is None:
                added.append(Instance(config, self._context, now_us))
                instances.append(added[-1])
                continue
            instances.append(old[index])
            if old[index].config != config:
                changed.append((old[index], config))
        staying = set(map(id, instances))
        gone = [instance for instance in old if id(instance) not in staying]
        former = [instance.config.name for instance, _ in changed]
        living = {config.name: each for config, each in zip(event.instances, instances, strict=True)}
        self._registry.succeed([*gone, *self._registry.leaving], living)
        self._statics.configure(event.statics)
        for instance, config in changed:
            configure(instance, config, now_us)
        trackers_changed = self._context.trackers.configure(event, now_us, first=False)
        affected = dict.fromkeys([instance for instance, _ in changed] + added)
        affected |= dict.fromkeys(self._registry.arrange(event.sync_groups, instances))
        if trackers_changed:
            affected |= dict.fromkeys(each for each in instances if each.tracking != Tracking())
        if not affected and not gone:
            self._statics.complete()
            return
        self._registry.index(instances)
        self._dismiss(gone, now_us)
        self._statics.complete()
        self._promote()
        self._bind_all(list(affected))
        for instance in affected:
            self.touch(instance, now_us)
            complete(instance, now_us)
            self._deadlines.push(instance)
        self._forget_former_names(former, changed)

    def _everyone(self) -> list[SyncGroup | Instance]:
        return [*self._registry.groups.values(), *self._registry.instances]

    def _repeat_states(self, before: Mapping[SyncGroup | Instance, State]) -> None:
        """fifo_write_vrrp_states_on_reload: what the reload has not changed is told again, groups first."""
        for each in self._everyone():
            if each.state is State.INIT or before.get(each) is not each.state:
                continue
            state = notify_state(each.state)
            if isinstance(each, SyncGroup):
                self._context.emit(WriteFifo(group_line(each.config.name, state)))
            else:
                self._context.emit(WriteFifo(instance_line(each.config.name, state, each.priority)))

    def _forget_former_names(self, former: list[str], changed: list[tuple[Instance, VrrpInstance]]) -> None:
        for name, (instance, config) in zip(former, changed, strict=True):
            if name != config.name:
                self._registry.renamed = True
                instance.remember(stamp=False)
                if not self._registry.named(name):
                    self._context.emit(Forget(name))

    # Ends ----------------------------------------------------------------------------------------------

    def _dismiss(self, gone: list[Instance], now_us: int) -> None:
        """Instances that a reload has removed."""
        self._registry.leaving.extend(gone)
        for instance in gone:
            instance.end(Ending.GONE, "removed from the configuration", now_us)
            self._registry.expel(instance, instance.transmitter.slot)
            instance.transmitter.slot = None
            if instance.transmitter.authenticator is not None:
                instance.transmitter.authenticator.forget()
        for instance in gone:
            instance.launch_deferred(now_us)
        self.finish_endings(now_us)

    def finish_endings(self, now_us: int) -> None:
        """Let go of what is done; stop when everything is."""
        registry = self._registry
        while finished := [instance for instance in registry.leaving if instance.finished]:
            # Who had the same name after them may be done now as well.
            for instance in finished:
                registry.release(instance)
                if not registry.named(instance.config.name):
                    self._context.emit(Forget(instance.config.name))
        if not self._stopping or self._stopped:
            return
        # Once ended, nobody becomes busy again: each is looked at until it is done, and then no more.
        while self._unfinished and self._unfinished[-1].finished:
            self._unfinished.pop()
        while self._unanswered and not self._unanswered[-1].holdings.in_flight:
            self._unanswered.pop()
        if self._statics.in_flight:
            return
        groups = (*registry.groups.values(), *registry.dissolved.values())
        if not self._unfinished and not any(group.notices.owed for group in groups):
            self._finish_stop(now_us)
        elif not self._unanswered and self._limit == self._plans_overdue:
            self._wait(now_us + STOP_NOTIFY_LIMIT_US, self._finish_stop)

    def _watch_everyone(self) -> None:
        """Everyone has been told to end; answers come in the order of asking."""
        self._unfinished = [*self._registry.instances, *self._registry.leaving][::-1]
        self._unanswered = list(self._unfinished)

    def _wait(self, until_us: int, then: Callable[[int], None]) -> None:
        self.deadline_us = until_us
        self._limit = then

    def stop(self, now_us: int) -> None:
        """Every farewell first, then the addresses, then the scripts; bounded at each step."""
        if self._stopping:
            return
        self._stopping = True
        self._wait(now_us + STOP_PLAN_LIMIT_US, self._plans_overdue)
        for instance in self._registry.instances:
            instance.end(Ending.STOP, "stopping", now_us)
        for instance in self._registry.instances:
            instance.launch_deferred(now_us)
            self._deadlines.push(instance)
        # keepalived: last of all, and with -V too.
        self._statics.stop()
        for group in self._registry.groups.values():
            group.end()
        self._context.trackers.stop(now_us)
        self._watch_everyone()
        self.finish_endings(now_us)

    def _plans_overdue(self, now_us: int) -> None:
        self._context.log(LogLevel.ERROR, "the kernel did not answer in time; stopping anyway")
        self._finish_stop(now_us)

    def _finish_stop(self, now_us: int) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._promote()
        self.deadline_us = NEVER
        if not self._context.settings.withdraw:
            for instance in self._registry.instances:
                self._context.emit(Forget(instance.config.name))
            self._context.records.forget_all()
        self._context.emit(Stopped())

    # Withdrawal ----------------------------------------------------------------------------------------

    def _begin_withdrawal(self, now_us: int) -> None:
        """Sockets are needed only where a master has to say farewell."""
        self._stopping = True
        self._wait(now_us + WITHDRAW_SOCKET_LIMIT_US, self._withdraw)
        self.withdraw_when_ready(now_us)

    def withdraw_when_ready(self, now_us: int) -> None:
        """Do it once every master's socket has answered."""
        if self._limit != self._withdraw:
            return
        masters = [i for i in self._registry.instances if i.state is State.MASTER]
        slots = [instance.transmitter.slot for instance in masters]
        if all(slot is None or slot.is_open or slot.failure for slot in slots):
            self._withdraw(now_us)

    def _withdraw(self, now_us: int) -> None:
        self._wait(now_us + STOP_PLAN_LIMIT_US, self._plans_overdue)
        known = [i for i in self._registry.instances if i.recalled]
        for instance in known:
            instance.end(Ending.WITHDRAW, "withdrawn: the process that ran it is gone", now_us)
        for instance in known:
            instance.launch_deferred(now_us)
        self._watch_everyone()
        self.finish_endings(now_us)
