"""The watch over every child's heartbeat, and what the log hears of it."""

from __future__ import annotations

from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.heartbeat import Heartbeat
from kad.supervisor.child import Hung
from kad.supervisor.hang import HangWatch, Patience, Verdict
from kad.supervisor.observe import observe, state_of


class Watches:
    """One watch a living child."""

    def __init__(self) -> None:
        self._watches: dict[Role, HangWatch] = {}
        self._patience = {role: Patience() for role in Role}

    def begin(self, role: Role, limit_us: int) -> None:
        self._watches[role] = self._patience[role].watch(limit_us)

    def end(self, role: Role) -> None:
        self._watches.pop(role, None)

    def set_limit(self, limit_us: int) -> None:
        for role in self._watches:
            self.begin(role, limit_us)

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
