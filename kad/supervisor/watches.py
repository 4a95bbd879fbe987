"""The watch over every child's heartbeat, and what the log hears of it."""

from __future__ import annotations

from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.heartbeat import Heartbeat
from kad.supervisor.child import Child, Hung
from kad.supervisor.hang import Condition, HangWatch, Patience, Verdict, classify
from kad.supervisor.observe import observe, state_of


class Watches:
    """One watch a living child."""

    def __init__(self) -> None:
        self._watches: dict[Role, HangWatch] = {}
        self._patience = {role: Patience() for role in Role}
        self._leaving: dict[Role, tuple[int, int]] = {}
        """Who was told to go, and how long (ns) it had run by then."""

    def begin(self, role: Role, limit_us: int) -> None:
        self._watches[role] = self._patience[role].watch(limit_us)

    def end(self, role: Role) -> None:
        self._watches.pop(role, None)

    def set_limit(self, limit_us: int) -> None:
        for role in self._watches:
            self.begin(role, limit_us)

    def begin_leaving(self, child: Child) -> None:
        """It is told to go: what it has used of a processor until now does not count."""
        found = observe(child.pid) if child.pid else None
        self._leaving[child.role] = child.pid, found.run_ns if found is not None else 0

    def is_starved(self, child: Child) -> bool:
        """Whether one whose time to leave, or to withdraw, is over was hardly let run."""
        pid = child.pid or child.withdraw_pid
        found = observe(pid) if pid else None
        if found is None:
            return False
        known, run_ns = self._leaving.get(child.role, (0, 0))
        used_us = (found.run_ns - (run_ns if known == pid else 0)) // 1000
        starved = classify(found, used_us, child.patience_us) is Condition.STARVED
        if starved:
            logs.warning(
                f"{child.role}: process {pid} does not get to leave: it is starved of processor time"
            )
        return starved

    def look(self, role: Role, pid: int, heartbeat: Heartbeat, now_us: int) -> Hung | None:
        """What the child is to be told, if it hangs."""
        watch = self._watches.get(role)
        if watch is None or not watch.is_still(heartbeat.ticks, heartbeat.phase, now_us):
            return None
        asleep_until_us = heartbeat.asleep_until_us
        if asleep_until_us and watch.is_asleep(asleep_until_us, state_of(pid), now_us):
            return None
        observation = observe(pid)
        if observation is None:
            return None
        verdict = watch.judge(observation, now_us)
        condition = watch.condition.name.lower()
        if verdict == Verdict.LOG:
            logs.warning(f"{role}: process {pid} is late, but {condition}: it is let be")
        elif verdict in (Verdict.ABORT, Verdict.KILL):
            logs.error(f"{role}: process {pid} hangs ({condition}) and is killed")
            return Hung(verdict == Verdict.ABORT, f"hung, {condition}")
        return None
