"""A child that takes its slice, obeys and reports, and does no more: the frame of check and bfd so far."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

import msgspec

from kad.errors import ExitStatus
from kad.ipc.child_link import ChildLink
from kad.runtime import logs
from kad.runtime.driver import Driver
from kad.runtime.journal import Phase
from kad.runtime.process import ChildContext
from kad.runtime.waiting import WaitingCore


class PlainReport(msgspec.Struct, frozen=True):
    """What such a child tells: how many objects it was given."""

    objects: int
    acts: bool = False


class PlainChild:
    """``decode`` raises msgspec.MsgspecError for what it cannot run; ``notice`` is logged once."""

    def __init__(
        self, context: ChildContext, decode: Callable[[Mapping[str, bytes]], object], notice: str
    ) -> None:
        self._context = context
        self._decode = decode
        self._notice = notice
        self._objects = 0
        self._heartbeat = context.journal.heartbeat(context.role)
        core: WaitingCore[None, None] = WaitingCore()
        self._driver: Driver[None, None] = Driver(core, lambda _: None, self._heartbeat, None)
        self._link = ChildLink(
            context,
            self._driver,
            on_prepare=self._prepare,
            on_apply=self._apply,
            report=self._report,
        )

    def run(self) -> int:
        """The whole life of the process; its exit status."""
        if self._context.withdraw:
            return ExitStatus.OK
        self._driver.loop.add_signal_handler(signal.SIGTERM, self._leave)
        self._link.start()
        self._heartbeat.phase = Phase.READY
        self._driver.run()
        return ExitStatus.OK

    def _prepare(self, slice_: Mapping[str, bytes]) -> str:
        try:
            self._decode(slice_)
        except msgspec.MsgspecError as error:
            return f"its part does not decode: {error}"
        return ""

    def _apply(self, generation: int, slice_: Mapping[str, bytes]) -> None:
        self._decode(slice_)
        if slice_ and not self._objects and self._context.incarnation == 1:
            logs.warning(self._notice)
        self._objects = len(slice_)
        self._link.applied(generation)

    def _report(self) -> bytes:
        return msgspec.msgpack.encode(PlainReport(self._objects))

    def _leave(self) -> None:
        self._heartbeat.phase = Phase.STOPPING
        self._link.close()
        self._driver.stop()
