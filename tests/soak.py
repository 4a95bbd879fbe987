"""Two routers led through whatever comes: reloads, kills, stops, lost links, failing scripts, by a seed.

    make soak [SECONDS=3600] [SEED=1]

Each node runs a real kad. A client asks without pause who holds the virtual addresses, and learns it by MAC.
After each disturbance (or several at once) exactly one node must answer within :data:`SETTLE_S`, and go on
doing so without a gap or a second answer until the next. Only the second node's processes are ever killed;
the first one's memory and descriptors have to stay flat over all its reloads and lost links. The exit status
is 1 where anything of this fails. The seed repeats the sequence of disturbances.
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kad.errors import KadError
from tests.support.control import pids_of
from tests.support.control import reload as read_again
from tests.support.daemon import Kad, descendants, proportional_memory
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Bridge, Network, Node, needs_namespaces, stand_still, wait_until
from tests.support.neighbours import arp_reply, arp_request

VIPS = ("192.0.2.100", "192.0.2.101")
ADVERT_S = 0.3
SETTLE_S = 12.0
"""In which one node alone has to answer again: a script's interval, a daemon's start, a master-down interval,
the ten seconds in which an address deleted by others is put back; and a busy machine."""
PROBE_S = 0.05
LOOK_S = 0.25
"""How far back a look at the answers goes."""
QUIET_S = 2.5
"""How long the answers stay the same before that counts as settled: longer than a script's interval and the
master-down interval after which the one it helps takes over."""
GAP_S = 0.8
"""In calm, the longest time without any answer; what the machine's own stalls may cost is in it."""
CALM_S = (0.5, 2.0)
KILL_PAUSE_S = 30.0
"""Between two kills of one node's VRRP process: a third in a minute is answered by withdrawing."""
STARVED_S = ADVERT_S
"""A process that waited so long for a processor, all waits of a calm together, is not to blame. Nor is one
that the kernel held meanwhile, on a machine that is short of memory or whose disk stands still."""
EXCUSED_PART = 4
"""At most one round in so many may go wrong for that reason."""
MEMORY_SLACK = 12 << 20
DESCRIPTOR_SLACK = 4
HMAC_KEY = "abcdefghijklmnopqrstuvwxyz012345"


class Prober(threading.Thread):
    """Asks for every address in turn, without pause, and keeps who answered when."""

    def __init__(self, client: Node, names: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._names = names
        self._mac = bytes.fromhex(client.mac("eth0").replace(":", ""))
        with client.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        self._socket.bind(("eth0", 0x0806))
        self._socket.settimeout(PROBE_S)
        self._ended = threading.Event()
        self._answers: dict[str, deque[tuple[float, str]]] = {vip: deque(maxlen=100_000) for vip in VIPS}

    def run(self) -> None:
        addresses = [ipaddress.IPv4Address(vip) for vip in VIPS]
        next_at = time.monotonic()
        while not self._ended.is_set():
            if time.monotonic() >= next_at:
                for address in addresses:
                    self._socket.send(arp_request(self._mac, address))
                next_at = time.monotonic() + PROBE_S
            try:
                frame = self._socket.recv(2048)
            except TimeoutError:
                continue
            for address in addresses:
                if mac := arp_reply(frame, address.packed):
                    name = self._names.get(mac, mac)
                    self._answers[str(address)].append((time.monotonic(), name))

    def close(self) -> None:
        self._ended.set()
        self.join()
        self._socket.close()

    def since(self, vip: str, start: float) -> list[tuple[float, str]]:
        return [each for each in list(self._answers[vip]) if each[0] >= start]

    def holders(self, vip: str, seconds: float) -> set[str]:
        """Who has answered in the last so many seconds."""
        return {name for _, name in self.since(vip, time.monotonic() - seconds)}


@dataclass
class Size:
    """What a family of processes takes."""

    memory: int
    descriptors: dict[str, int]


@dataclass
class Outcome:
    disturbances: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    excused: int = 0
    """Rounds that went wrong while a process was kept from running by others."""
    calm_s: float = 0.0
    worst_settle_s: float = 0.0
    worst_after: str = ""
    failures: list[str] = field(default_factory=list)
    sizes: dict[str, list[Size]] = field(default_factory=dict)


class Router:
    """One of the two: its kad, its links, and what its configuration is at the moment."""

    def __init__(self, node: Node, number: int, lans: Sequence[Bridge], place: Path) -> None:
        self.node = node
        self.number = number
        self.lans = lans
        self.broken = place / f"broken-{number}"
        self.script = place / f"check-{number}"
        self.script.write_text(f"#!/bin/sh\n[ ! -e {self.broken} ]\n")
        self.script.chmod(0o755)
        self.priority = 100 + 50 * number
        self.with_third = False
        self.kad = Kad(node, self.text())
        self.killed_at = 0.0

    def text(self) -> str:
        """Two virtual routers that must never be lost, and a third that comes and goes."""
        tracking = ["track_script {", "check", "}", "track_interface {", "eth1 weight -30", "}"]
        secret = ["auth_hmac {", f"key 1 {HMAC_KEY}", "active_key 1", "}"]
        blocks = [
            f'vrrp_script check {{\nscript "{self.script}"\ninterval 1\nweight -60\n}}\n',
            vrrp_instance(
                "ONE", vrid=51, version=3, advert_int=ADVERT_S, priority=self.priority,
                addresses=[f"{VIPS[0]}/24"], extra=tracking,
            ),
            vrrp_instance(
                "TWO", vrid=52, version=3, advert_int=ADVERT_S, priority=300 - self.priority,
                addresses=[f"{VIPS[1]}/24"], extra=secret,
            ),
        ]  # fmt: skip
        if self.with_third:
            blocks.append(
                vrrp_instance(
                    "THREE", vrid=53, priority=self.priority, addresses=["192.0.2.102/24"],
                    password="s3cret", auth_type="AH",
                )
            )  # fmt: skip
        return configuration(*blocks, settings=["enable_script_security", "script_user root"])

    def is_whole(self) -> bool:
        """Whether every process of it runs, and answers."""
        try:
            return {"control", "vrrp"} <= set(pids_of(self.kad))
        except (KadError, OSError):
            return False

    def waited_s(self) -> float:
        """How long its VRRP process has waited for a processor so far, by the kernel's account."""
        pid = pids_of(self.kad).get("vrrp", 0) if self.is_whole() else 0
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9 if pid else 0.0

    def times_held(self) -> int:
        """How often the supervisor saw a late process that the kernel held, so that nobody could help it."""
        return self.kad.said().count("is late, but uninterruptible")

    def size(self) -> Size:
        roles = {"supervisor": self.kad.pid} | pids_of(self.kad)
        open_files = {role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in roles.items()}
        return Size(proportional_memory(list(roles.values())), open_files)


class World:
    """The network, both routers, the client; and everything that can be done to them."""

    def __init__(self, network: Network, seed: int, place: Path) -> None:
        self.random = random.Random(seed)
        self.lans = [network.bridge("lan"), network.bridge("second")]
        self.routers = []
        for number, label in enumerate(("a", "b")):
            node = network.node(label)
            node.attach(self.lans[0], f"192.0.2.{number + 1}/24", name="eth0")
            node.attach(self.lans[1], f"198.51.100.{number + 1}/24", name="eth1")
            self.routers.append(Router(node, number, self.lans, place))
        self.client = network.node("client")
        self.client.attach(self.lans[0], "192.0.2.9/24", name="eth0")
        names = {router.node.mac("eth0"): router.node.label for router in self.routers}
        self.prober = Prober(self.client, names)
        self.restore: list[Callable[[], None]] = []
        """What undoes the present disturbances."""

    def close(self) -> None:
        self.prober.close()
        for router in self.routers:
            router.kad.close()

    # Disturbances: each leaves what undoes it in ``restore`` -----------------------------------------------

    def reload(self, router: Router) -> None:
        router.priority = self.random.randrange(60, 241)
        router.with_third = self.random.random() < 0.5
        router.kad.configure(router.text())
        if router.is_whole():
            read_again(router.kad)

    def bad_reload(self, router: Router) -> None:
        good = router.text()
        router.kad.configure(good.replace("virtual_router_id 51", "virtual_router_id 999"))
        if router.is_whole():
            read_again(router.kad)
        self.restore.append(lambda: router.kad.configure(good))

    def kill_vrrp(self, router: Router) -> None:
        if time.monotonic() - router.killed_at > KILL_PAUSE_S:
            router.killed_at = time.monotonic()
            self._signal(router, "vrrp", signal.SIGKILL)

    def kill_control(self, router: Router) -> None:
        self._signal(router, "control", signal.SIGKILL)

    def stop_vrrp_a_moment(self, router: Router) -> None:
        pid = self._signal(router, "vrrp", signal.SIGSTOP)
        stand_still(self.random.uniform(0.05, 0.4))
        if pid:
            os.kill(pid, signal.SIGCONT)

    def kill_supervisor(self, router: Router) -> None:
        """Its children notice, withdraw and leave; then somebody starts it anew."""
        assert router.kad.process is not None
        family = descendants(router.kad.pid)
        os.kill(router.kad.pid, signal.SIGKILL)
        router.kad.process.wait(10)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 10)
        self.restore.append(router.kad.start)

    def stop_and_start(self, router: Router) -> None:
        router.kad.stop()
        self.restore.append(router.kad.start)

    def unplug(self, router: Router) -> None:
        self.lans[0].unplug(router.node, "eth0")
        self.restore.append(lambda: self.lans[0].replug(router.node, "eth0"))

    def unplug_the_other_link(self, router: Router) -> None:
        self.lans[1].unplug(router.node, "eth1")
        self.restore.append(lambda: self.lans[1].replug(router.node, "eth1"))

    def flap(self, router: Router) -> None:
        for _ in range(self.random.randrange(1, 5)):
            router.node.set_link("eth0", "down")
            router.node.set_link("eth0", "up")

    def fail_script(self, router: Router) -> None:
        router.broken.touch()
        self.restore.append(lambda: router.broken.unlink(missing_ok=True))

    def delete_address(self, router: Router) -> None:
        for vip in VIPS:
            if router.node.holds(vip):
                router.node.ip("addr", "del", f"{vip}/24", "dev", "eth0")

    def _signal(self, router: Router, role: str, number: int) -> int:
        pid = pids_of(router.kad).get(role, 0) if router.is_whole() else 0
        if pid:
            os.kill(pid, number)
        return pid

    # The run -----------------------------------------------------------------------------------------------

    def disturb(self) -> list[str]:
        """One to three things at once, on either node; the same node is not taken away twice."""
        done = []
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3))):
            name = self.random.choices(list(DISTURBANCES), list(DISTURBANCES.values()))[0]
            router = self.random.choice(self.routers[name in DEADLY :])
            if name in GOING_AWAY and any(word.split()[0] in GOING_AWAY for word in done):
                continue
            getattr(self, name)(router)
            done.append(f"{name} {router.node.label}")
        if self.random.random() < 0.5:
            # As long as it lasts one node alone has to do, too.
            stand_still(self.random.uniform(0.0, 1.5))
        return done

    def undo(self) -> None:
        while self.restore:
            self.restore.pop()()

    def holders(self) -> list[str] | None:
        """Who alone answers for each address; None where nobody or more than one does."""
        found = [self.prober.holders(vip, LOOK_S) for vip in VIPS]
        return (
            [holder for each in found for holder in each] if all(len(each) == 1 for each in found) else None
        )

    def settle(self) -> float | None:
        """Seconds until one node alone answers for each address, and goes on to; None: it does not."""
        start = time.monotonic()
        while (left := SETTLE_S - (time.monotonic() - start)) > 0:
            if wait_until(lambda: self.holders() is not None, left, every=PROBE_S) is None:
                break
            reached, found = time.monotonic() - start, self.holders()
            if not all(router.is_whole() for router in self.routers):
                continue
            if wait_until(lambda found=found: self.holders() != found, QUIET_S, every=PROBE_S) is None:
                return reached
        return None

    def calm(self, seconds: float) -> str:
        """Exactly one node answers for each, the same, without a gap; what was seen instead."""
        holders = self.holders()
        if holders is None:
            return "it was over before it began"
        start = time.monotonic()
        stand_still(seconds)
        for vip, holder in zip(VIPS, holders, strict=True):
            answers = self.prober.since(vip, start)
            if {name for _, name in answers} != {holder}:
                return f"{vip} was {holder}'s, and answered by {sorted({name for _, name in answers})}"
            times = [start, *(at for at, _ in answers), time.monotonic()]
            gap = max(after - before for before, after in itertools.pairwise(times))
            if gap > GAP_S:
                return f"{vip} was not answered for {gap:.2f} s"
        return ""


DISTURBANCES = {
    "reload": 3,
    "bad_reload": 1,
    "kill_vrrp": 2,
    "kill_control": 1,
    "stop_vrrp_a_moment": 1,
    "kill_supervisor": 1,
    "stop_and_start": 1,
    "unplug": 1,
    "unplug_the_other_link": 1,
    "flap": 1,
    "fail_script": 2,
    "delete_address": 1,
}
"""How often each, in proportion."""
DEADLY = {"kill_vrrp", "kill_control", "kill_supervisor", "stop_and_start"}
"""For the second node alone: what the first one's processes take is compared over their whole lives."""
GOING_AWAY = {"kill_supervisor", "stop_and_start", "unplug", "flap", "kill_vrrp", "stop_vrrp_a_moment"}
"""What takes a node out of service: two of them at once may leave nobody for longer."""


def rounds(world: World, until: float, outcome: Outcome) -> Iterator[str]:
    """Each round's failure, or ""."""
    while time.monotonic() < until:
        done = world.disturb()
        for each in done:
            name = each.split()[0]
            outcome.disturbances[name] = outcome.disturbances.get(name, 0) + 1
        world.undo()
        outcome.rounds += 1
        took_s = world.settle()
        if took_s is None:
            seen = {vip: sorted(world.prober.holders(vip, 1.0)) for vip in VIPS}
            yield f"round {outcome.rounds}: {done}: not one answer each within {SETTLE_S} s: {seen}"
            continue
        if took_s > outcome.worst_settle_s:
            outcome.worst_settle_s, outcome.worst_after = took_s, ", ".join(done)
        seconds = world.random.uniform(*CALM_S)
        outcome.calm_s += seconds
        before = [(router.waited_s(), router.times_held()) for router in world.routers]
        failure = world.calm(seconds)
        stood_still = any(
            router.waited_s() - waited_s > STARVED_S or router.times_held() > held
            for router, (waited_s, held) in zip(world.routers, before, strict=True)
        )
        if failure and stood_still and outcome.excused * EXCUSED_PART < outcome.rounds:
            outcome.excused += 1
            failure = ""
        yield f"round {outcome.rounds}: after {done}, in calm: {failure}" if failure else ""


def grown(label: str, sizes: Sequence[Size]) -> list[str]:
    """What the last size has more of than the first had, beyond what a moment's work explains."""
    first, last = sizes[0], sizes[-1]
    found = []
    if last.memory > first.memory + MEMORY_SLACK:
        found.append(f"{label}: memory grew from {first.memory >> 20} to {last.memory >> 20} MB")
    for role, count in last.descriptors.items():
        if count > first.descriptors.get(role, count) + DESCRIPTOR_SLACK:
            found.append(f"{label}: {role} has {count} descriptors, and had {first.descriptors[role]}")
    return found


def run(seed: int, seconds: float, *, tell: Callable[[str], None] = print) -> Outcome:
    """The whole of it. Stops at the first failure, which is told with both daemons' last words."""
    outcome = Outcome()
    place = Path(tempfile.mkdtemp(prefix="kad-soak-"))
    try:
        with Network("soak") as network:
            world = World(network, seed, place)
            try:
                _lead(world, seconds, outcome, tell)
            finally:
                world.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return outcome


def _lead(world: World, seconds: float, outcome: Outcome, tell: Callable[[str], None]) -> None:
    world.prober.start()
    for router in world.routers:
        router.kad.start()
    if world.settle() is None:
        outcome.failures.append("it did not begin")
        return
    until = time.monotonic() + seconds
    told_at = time.monotonic()
    for failure in rounds(world, until, outcome):
        if failure:
            outcome.failures.append(failure)
            for router in world.routers:
                tell(f"--- {router.node.label}\n" + "\n".join(router.kad.log.read_text().splitlines()[-60:]))
            return
        if outcome.rounds % 10 == 0:
            for router in world.routers:
                outcome.sizes.setdefault(router.node.label, []).append(router.size())
        if time.monotonic() - told_at > 60:
            told_at = time.monotonic()
            tell(summary(outcome))
    label = world.routers[0].node.label
    outcome.failures += grown(label, outcome.sizes[label]) if label in outcome.sizes else []


def summary(outcome: Outcome) -> str:
    lines = [
        f"{outcome.rounds} rounds, {sum(outcome.disturbances.values())} disturbances,"
        f" {outcome.calm_s:.0f} s of calm; slowest to settle: {outcome.worst_settle_s:.2f} s"
        f" ({outcome.worst_after}); excused, as the machine stood still: {outcome.excused}",
        "  " + ", ".join(f"{name} {count}" for name, count in sorted(outcome.disturbances.items())),
    ]
    for label, sizes in outcome.sizes.items():
        memory = " ".join(str(size.memory >> 20) for size in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
        lines.append(f"  {label}: PSS first, middle, last {memory} MB; descriptors {sizes[-1].descriptors}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    needs_namespaces()
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    outcome = run(options.seed, options.seconds, tell=lambda text: print(text, flush=True))
    print(summary(outcome))
    for failure in outcome.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return bool(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
