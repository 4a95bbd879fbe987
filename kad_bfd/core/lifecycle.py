"""How sessions come, change and go: start, reload, restart after a crash, stop. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kad.config.model.bfd import BfdInstance
from kad_bfd.core.actions import CloseTransport, Forget, LogLevel, Stopped, Unpublish
from kad_bfd.core.context import TAG_BITS, Context
from kad_bfd.core.deadlines import Deadlines
from kad_bfd.core.demux import Demux
from kad_bfd.core.events import ConfigurationChanged
from kad_bfd.core.listeners import Listeners
from kad_bfd.core.memory import resume
from kad_bfd.core.record import Identity, Record, decode
from kad_bfd.core.session import Session

STOP_GAP_US = 5_000
"""Between the last three packets: a burst that loses one packet loses its neighbour too."""


class Lifecycle:
    """Owns the sessions. ``remembered``: the journal's records of a former life, by name.

    ``silent_us``: how long ago that life was last seen at work.
    """

    def __init__(
        self,
        context: Context,
        demux: Demux,
        listeners: Listeners,
        deadlines: Deadlines,
        remembered: Mapping[str, bytes],
        silent_us: int,
    ) -> None:
        self._context = context
        self._demux = demux
        self._listeners = listeners
        self._deadlines = deadlines
        self._records = {name: record for name, data in remembered.items() if (record := decode(data))}
        self._remembered = set(remembered)
        context.tag = self._former_tag() or context.variety.number(TAG_BITS - 1) + 1
        self._silent_us = silent_us
        self._numbers = 0
        self.sessions: dict[str, Session] = {}
        """Those that are configured, by name."""
        self.by_number: dict[int, Session] = {}
        """Those with a transport: the leaving ones too."""
        self.stopping = False
        self._said_stopped = False

    def configure(self, event: ConfigurationChanged, now_us: int) -> list[Session]:
        """Run this generation; the sessions that were touched. Unchanged ones are not."""
        self._context.generation = event.generation
        wanted = {instance.name: instance for instance in event.instances}
        touched = [
            self._take_leave(session, reason, now_us)
            for name, session in list(self.sessions.items())
            if (reason := _why_it_ends(session, wanted.get(name)))
        ]
        created = []
        for name, instance in wanted.items():
            session = self.sessions.get(name)
            if session is None:
                created.append(self._create(instance, now_us))
            elif session.config != instance:
                session.reconfigure(instance, now_us)
                touched.append(session)
        touched += created
        if created:
            touched += self._make_way(created, touched)
        self._listeners.need(self.sessions.values(), now_us)
        for name in self._remembered:
            if name not in self.sessions:
                self._context.emit(Forget(name))
        self._remembered.clear()
        return touched

    def stop(self, now_us: int, *, administrative: bool) -> list[Session]:
        """Tell every neighbour. The records go first: the next life begins anew."""
        self.stopping = True
        for name in (*self.sessions, *self._remembered):
            self._context.emit(Forget(name))
        for session in [session for session in self.by_number.values() if session.is_leaving]:
            self.finish(session)
        touched = list(self.sessions.values())
        for session in touched:
            if administrative:
                session.shut_down(now_us)
            else:
                session.stop(STOP_GAP_US, now_us)
        return touched

    def finish(self, session: Session) -> None:
        """It has sent its last packet."""
        self._context.emit(CloseTransport(session.number))
        self._deadlines.drop(session)
        del self.by_number[session.number]
        if self.sessions.get(session.config.name) is session:
            del self.sessions[session.config.name]

    def finish_stop(self) -> None:
        if self.stopping and not self.by_number and not self._said_stopped:
            self._said_stopped = True
            self._context.emit(Stopped())

    def _create(self, instance: BfdInstance, now_us: int) -> Session:
        record = self._record_of(instance.name)
        discriminator = record.local_discr if record else 0
        while not self._demux.is_free(discriminator):
            discriminator = self._context.tag << 32 - TAG_BITS | self._context.variety.number(32 - TAG_BITS)
        self._numbers += 1
        session = Session(self._context, instance, self._numbers, discriminator, now_us)
        self.sessions[instance.name] = self.by_number[session.number] = session
        self._demux.add(session)
        if record is not None and record.identity == _identity(instance):
            resume(session, record, self._silent_us, now_us)
            self._context.log(LogLevel.INFO, f"({instance.name}) resumed in {session.state.name}")
        session.open()
        return session

    def _record_of(self, name: str) -> Record | None:
        self._remembered.discard(name)
        return self._records.pop(name, None)

    def _make_way(self, created: list[Session], touched: list[Session]) -> list[Session]:
        """Those of earlier generations, not yet ``touched``, that stop taking leave.

        A farewell that came after the first words of the session's successor would end that one: the
        neighbour has one session for both.
        """
        neighbors = {_neighbor(session) for session in created}
        leaving = [session for session in self.by_number.values() if session.is_leaving]
        succeeded = [session for session in leaving if _neighbor(session) in neighbors]
        for session in succeeded:
            session.cease()
        return [session for session in succeeded if session not in touched]

    def _former_tag(self) -> int:
        """The former life's, since its discriminators go on; 0: there was none."""
        return next((record.local_discr >> 32 - TAG_BITS for record in self._records.values()), 0)

    def _take_leave(self, session: Session, reason: str, now_us: int) -> Session:
        name = session.config.name
        del self.sessions[name]
        self._demux.remove(session)
        self._context.emit(Forget(name))
        self._context.emit(Unpublish(name))
        session.shut_down(now_us, reason)
        return session


def _neighbor(session: Session) -> tuple[str, bool]:
    return session.config.neighbor_address, session.config.multihop


def _why_it_ends(session: Session, instance: BfdInstance | None) -> str:
    """With this, or nothing, under its name in the new generation; "": it goes on."""
    if instance is None:
        return "no longer configured"
    if _identity(session.config) != _identity(instance):
        return "has another neighbour, port or interface now"
    return ""


def _identity(instance: BfdInstance) -> Identity:
    """RFC 5881 §3: a session with another neighbour, port or interface is another session."""
    return instance.neighbor_address, instance.multihop, instance.interface
