"""A child's end of its link to control: says who it is, prepares, applies and reports for the child.

The generation a child was born with is applied before anything is said to anybody: control may be dead.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import assert_never

from msgspec.structs import replace

from kad.config.model.globals import Mail
from kad.config.slices import decode_process
from kad.ipc.codec import DropReason, Drops
from kad.ipc.link import DealerEnd, Reactor, child_identity, control_path
from kad.ipc.messages import (
    Abandon,
    Alert,
    Applied,
    Apply,
    ControlToChild,
    Hello,
    HelloRequest,
    Prepare,
    Prepared,
    StatusReport,
    StatusRequest,
)
from kad.ipc.trial import Trial
from kad.notify.policy import Letter
from kad.runtime import logs
from kad.runtime.process import ChildContext
from kad.runtime.tuning import Tuner

Slice = Mapping[str, bytes]

ALERTS_LIMIT = 1024
"""Alerts kept for a control that is not there; beyond it the oldest are lost."""
ALERTS_PAUSE_S = 0.05


class ChildLink:
    """One child's conversation with control.

    * ``on_prepare(slice)``: look, without side effects; "" or why it cannot be run, or a trial that will say.
    * ``on_apply(generation, slice)``: become this. When it is done, now or later, call :meth:`applied`.
    * ``on_abandon()``: what was prepared will not come.
    * ``report()``: the role's own status, encoded. Or ``on_status(clear, answer)``: the same, told later,
      by a process that would be at it for too long.

    Call :meth:`start` once; it applies the generation of birth, if there is one, and has the next turn of the
    loop connect.
    """

    def __init__(
        self,
        context: ChildContext,
        reactor: Reactor,
        *,
        on_prepare: Callable[[Slice], str | Trial],
        on_apply: Callable[[int, Slice], None],
        report: Callable[[], bytes] = bytes,
        on_status: Callable[[bool, Callable[[bytes], None]], None] | None = None,
        on_abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._on_prepare = on_prepare
        self._trial: Trial | None = None
        """Of what is being prepared."""
        self._on_apply = on_apply
        self._on_abandon = on_abandon
        self._report = report
        self._on_status = on_status
        self._tuner = Tuner(f"kad_{context.role.value}", context.options.umask_with, logs.warning)
        self._sequence = 0
        self._asked = 0
        self._applied = 0
        self._complaints: tuple[str, ...] = ()
        self._alerts: deque[Alert] = deque(maxlen=ALERTS_LIMIT)
        self._next_alerts: asyncio.TimerHandle | None = None
        self.alerts_lost = 0
        self._end: DealerEnd[ControlToChild] | None = None

    @property
    def generation(self) -> int:
        """The last generation that has been applied; 0: none yet."""
        return self._applied

    @property
    def drops(self) -> Drops:
        return self._end.drops if self._end is not None else Drops()

    def start(self) -> None:
        context = self._context
        if context.generation is not None:
            self._begin(context.generation.number, context.generation.slices.get(context.role, {}))
        if context.withdraw:
            # It is nobody's child to steer: it cleans up, says goodbye to the network and exits.
            return
        # ZeroMQ starts threads, and a master reborn has something to send first.
        self._reactor.loop.call_soon(self._connect)

    def _connect(self) -> None:
        context = self._context
        self._end = DealerEnd(
            self._reactor,
            control_path(context.run_directory),
            ControlToChild,
            identity=child_identity(context.role, context.incarnation, os.getpid()),
            on_message=self._receive,
        )

    def applied(self, generation: int, complaints: tuple[str, ...] = ()) -> None:
        """The child runs this generation now. ``complaints``: what the kernel refused, for people."""
        if generation < self._applied:
            return
        self._applied = generation
        self._complaints = complaints
        self._context.journal.heartbeat(self._context.role).generation = generation
        self._send(self._applied_message())

    def alert(self, mail: Mail, router_id: str, letter: Letter) -> None:
        """Have control mail this, now or when it is back. What withdraws leaves it to the next life."""
        if self._context.withdraw:
            return
        alert = Alert(self._context.role, self._context.incarnation, mail, router_id, letter)
        if len(self._alerts) == ALERTS_LIMIT:
            self.alerts_lost += 1
        self._alerts.append(alert)
        self._send_alerts()

    def restore_processors(self) -> None:
        """Who moved this process for a moment is gone, and may not have moved it back."""
        self._tuner.restore_processors()

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None

    def _receive(self, message: ControlToChild) -> None:
        match message:
            case HelloRequest():
                self._send(Hello(self._context.role, os.getpid(), self._context.incarnation, self._applied))
                self._send_alerts()
            case Prepare():
                self._prepare(message)
            case Abandon():
                self._end_trial()
                self._on_abandon()
            case Apply():
                self._apply(message)
            case StatusRequest():
                self._status_asked(message)
            case _:
                assert_never(message)

    def _send_alerts(self) -> None:
        """As many as the queue takes; the others in a moment, or when a new control asks who is there."""
        while self._alerts and self._end is not None and self._end.send(self._alerts[0]):
            self._alerts.popleft()
        if self._alerts and self._next_alerts is None:
            self._next_alerts = self._reactor.loop.call_later(ALERTS_PAUSE_S, self._send_more_alerts)

    def _send_more_alerts(self) -> None:
        self._next_alerts = None
        self._send_alerts()

    def _prepare(self, message: Prepare) -> None:
        if message.generation <= self._asked:
            self._drop(DropReason.STALE_GENERATION)
            return
        self._end_trial()
        found = self._on_prepare(message.slice)
        if isinstance(found, str):
            self._answer_prepare(message.transaction, found)
        else:
            self._trial = found
            self._try_on(message.transaction, found)

    def _try_on(self, transaction: int, trial: Trial) -> None:
        """A thousand instances take longer than packets may wait."""
        if trial is not self._trial:
            return
        try:
            next(trial)
        except StopIteration as end:
            self._trial = None
            self._answer_prepare(transaction, end.value)
        else:
            self._reactor.loop.call_soon(self._try_on, transaction, trial)

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _answer_prepare(self, transaction: int, refusal: str) -> None:
        self._send(Prepared(self._context.role, self._context.incarnation, transaction, refusal))

    def _apply(self, message: Apply) -> None:
        if message.generation < self._asked:
            self._drop(DropReason.STALE_GENERATION)
        elif message.generation > self._asked:
            self._begin(message.generation, message.slice)
        elif self._applied == message.generation:
            # Asked twice: control is new, or did not hear.
            self._send(self._applied_message())

    def _begin(self, generation: int, slice_: Slice) -> None:
        self._end_trial()
        self._asked = generation
        self._tune(slice_)
        self._on_apply(generation, slice_)

    def _tune(self, slice_: Slice) -> None:
        """What the configuration says to this process itself."""
        settings = decode_process(slice_)
        if self._context.options.umask is not None:
            # keepalived: the command line's counts.
            settings = replace(settings, umask=None)
        self._tuner.apply(settings)
        self._reactor.watch_lateness(self._tuner.late_us, self._tuner.is_late)

    def _status_asked(self, message: StatusRequest) -> None:
        if self._on_status is None:
            self._answer_status(message.request, self._report())
        else:
            self._on_status(message.clear, partial(self._answer_status, message.request))

    def _answer_status(self, request: int, body: bytes) -> None:
        self._sequence += 1
        context = self._context
        self._send(
            StatusReport(
                context.role,
                context.incarnation,
                self._applied,
                self._sequence,
                request,
                body,
            )
        )

    def _applied_message(self) -> Applied:
        return Applied(self._context.role, self._context.incarnation, self._applied, self._complaints)

    def _send(self, message: Hello | Prepared | Applied | StatusReport) -> None:
        """Unheard is no harm: control asks again, and a new control asks everybody."""
        if self._end is not None:
            self._end.send(message)

    def _drop(self, reason: DropReason) -> None:
        if self._end is not None:
            self._end.drops[reason] += 1
