"""The IPVS shell alone, on a real loop in a namespace, as the check child runs it: without engine or
checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kad.config.model.check import CheckSettings
from kad.runtime import logs
from kad.runtime.driver import Driver
from kad_check.core.actions import ChangeDestinations, ReplaceServices, WithdrawServices
from kad_check.core.events import Event, ServicesDone
from kad_check.core.ipvs_state import Destination, PoolState
from kad_check.io.ipvs import Ipvs
from tests.support.namespaces import LEAST_PATIENCE_S, Node
from tests.support.waiting import WaitingCore


class Memory(dict[str, bytes]):
    """A journal that outlives the shell; nothing of kad's own is changed by its being a dictionary."""

    def write(self, key: str, value: bytes) -> bool:
        self[key] = value
        return True

    def delete(self, key: str) -> None:
        self.pop(key, None)


class _NoTick:
    def tick(self, now_us: int = 0) -> None:
        pass

    def sleep(self, until_us: int) -> None:
        pass


class Shell:
    """One life of it. ``events``: what it told the engine; ``lines``: what it logged."""

    def __init__(
        self,
        node: Node,
        memory: Memory,
        settings: CheckSettings | None = None,
        *,
        namespace: str | None = None,
        **options: object,
    ) -> None:
        self.events: list[Event] = []
        self.lines: list[str] = []
        self._serial = 0
        self._first = True
        core: WaitingCore[None, None] = WaitingCore()
        self.driver: Driver[None, None] = Driver(core, lambda _: None, _NoTick(), None)
        self._patched = {name: getattr(logs, name) for name in ("error", "warning", "info")}
        for name in self._patched:
            setattr(logs, name, self.lines.append)
        self.ipvs = Ipvs(self.events.append, memory, dict(memory), **options)  # type: ignore[arg-type]
        with node.entered():
            self.ipvs.start(self.driver, namespace)
        self.ipvs.configure(settings or CheckSettings())

    def close(self) -> None:
        """The process dies: nothing is withdrawn."""
        self.ipvs.close()
        self.driver.loop.close()
        for name, write in self._patched.items():
            setattr(logs, name, write)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def until(self, condition: Callable[[], object], what: str, seconds: float = 30) -> None:
        """Turn the loop until it holds."""
        loop = self.driver.loop
        seconds = max(seconds, LEAST_PATIENCE_S)
        limit = loop.time() + seconds
        met = False

        def look() -> None:
            nonlocal met
            met = bool(condition())
            if met or loop.time() > limit:
                loop.stop()
            else:
                loop.call_later(0.005, look)

        loop.call_soon(look)
        loop.run_forever()
        assert met, f"not within {seconds} s: {what}; {self.lines} {self.events[-3:]}"

    def replace(self, pools: Sequence[PoolState]) -> ServicesDone:
        """The engine's whole wish, carried out."""
        self._serial += 1
        self.ipvs.replace(ReplaceServices(self._serial, tuple(pools), self._first))
        self._first = False
        return self._done()

    def withdraw(self) -> ServicesDone:
        self._serial += 1
        self.ipvs.withdraw(WithdrawServices(self._serial))
        return self._done()

    def _done(self) -> ServicesDone:
        def told() -> list[ServicesDone]:
            return [e for e in self.events if isinstance(e, ServicesDone) and e.serial == self._serial]

        self.until(told, "ServicesDone")
        return told()[0]

    def change(self, pool: str, put: Sequence[Destination] = (), remove: Sequence[Destination] = ()) -> None:
        """One server's change, carried out and answered."""
        self.ipvs.change(ChangeDestinations(pool, tuple(put), tuple(remove)))
        self.settle()

    def settle(self) -> None:
        """Until everything that was sent is answered and nothing waits."""
        worker = self.ipvs._worker
        self.until(
            lambda: not (worker._busy or worker._urgent or worker._ordinary or worker._chores), "answers"
        )

    @property
    def commands(self) -> int:
        return self.ipvs.counters()["ipvs_commands"]
