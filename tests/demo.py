"""Two nodes and a client on one machine: what kad does when things go well, and when they do not.

Run by ``make demo``. Each node is a network namespace with a real ``kad -f conf/demo-*.conf``. The times
shown are the kernel's receive times of the packets, not this program's. Who holds the address is told by who
answers for it and by where the client sends, never by a ping, which a dead daemon's kernel answers as well.
The exit status is not 0 when anything does not happen as it should.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.support.capture import Advert, Capture
from tests.support.daemon import Kad
from tests.support.namespaces import Network, wait_until
from tests.support.neighbours import who_answers

CONF = Path(__file__).parents[1] / "conf"
VIP, SECOND_VIP = "192.0.2.100", "192.0.2.101"
ADVERT_INT = 1.0
SLACK = 0.25
"""Seconds that a busy machine may add. How late kad itself is, the bench measures."""


class DidNotHappenError(Exception):
    """Something that the demonstration shows did not happen."""


class Demo:
    def __init__(self, network: Network, scratch: Path) -> None:
        self.started = time.time()
        lan = network.bridge()
        self.a, self.b, self.client = (network.node(label) for label in ("a", "b", "client"))
        for node, address in (
            (self.a, "192.0.2.1/24"),
            (self.b, "192.0.2.2/24"),
            (self.client, "192.0.2.9/24"),
        ):
            node.attach(lan, address, name="eth0")
        self.labels = {self.a.mac("eth0"): "a", self.b.mac("eth0"): "b"}
        self.kad_a = Kad(self.a, (CONF / "demo-a.conf").read_text(), name="demo-a.conf")
        self.kad_b = Kad(self.b, (CONF / "demo-b.conf").read_text(), name="demo-b.conf")
        self.capture = Capture(self.client, "eth0")
        self.monitor = scratch / "addresses-of-a"
        with self.monitor.open("w") as file:
            self.a.start(["ip", "-4", "monitor", "address"], stdout=file)

    def close(self) -> None:
        self.capture.close()
        self.kad_a.close()
        self.kad_b.close()

    # What is seen ------------------------------------------------------------------------------------------

    def adverts(self, label: str, since: float) -> list[Advert]:
        source = {"a": "192.0.2.1", "b": "192.0.2.2"}[label]
        return [x for x in self.capture.adverts(vrid=51, source=source) if x.time_us >= since * 1e6]

    def first_advert(self, label: str, since: float, seconds: float) -> float:
        """When (seconds, wall clock) this node first advertised after ``since``."""
        happened = wait_until(lambda: bool(self.adverts(label, since)), seconds)
        if happened is None:
            raise DidNotHappenError(f"no advertisement from {label} within {seconds:.1f} s")
        return self.adverts(label, since)[0].time_us / 1e6

    def last_advert(self, label: str) -> float:
        return self.adverts(label, 0)[-1].time_us / 1e6

    def answers(self, address: str = VIP) -> str:
        macs = who_answers(self.client, "eth0", address)
        return "+".join(sorted(self.labels.get(mac, mac) for mac in macs)) or "nobody"

    def client_sends_to(self) -> str:
        entries = self.client.ip_json("neigh", "show", VIP, "dev", "eth0")
        return self.labels.get(entries[0].get("lladdr", ""), "?") if entries else "?"

    def client_talks(self) -> None:
        """One packet to nobody, so that the client has learnt whom to send to."""
        with self.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
            anything.sendto(b"", (VIP, 9))
        wait_until(lambda: self.client_sends_to() in self.labels.values(), 2)

    # What is said ------------------------------------------------------------------------------------------

    def say(self, text: str, at: float | None = None) -> None:
        moment = (time.time() if at is None else at) - self.started
        print(f"  {moment:8.3f} s   {text}", flush=True)

    def quote(self, lines: list[str]) -> None:
        for line in lines:
            print(f"               | {line[:120]}", flush=True)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            raise DidNotHappenError(what)

    def require_answer(self, expected: str, address: str = VIP) -> None:
        found = self.answers(address)
        self.require(found == expected, f"{address} is answered by {found}, not by {expected}")
        self.say(f"{address} is answered by {found}")

    # The scenes --------------------------------------------------------------------------------------------

    def election(self) -> None:
        start = time.time()
        self.kad_a.start()
        # On a busy machine b could be ready so much earlier that its interval ends first, and rightly.
        self.kad_a.wait_for("(demo) Entering BACKUP STATE")
        self.kad_b.start()
        self.say("kad started on a (priority 150) and b (priority 100)")
        first = self.first_advert("a", start, 20)
        self.say(
            f"a is MASTER, {first - start:.3f} s after its start (3 intervals, its skew, its start)", first
        )
        self.kad_b.wait_for("(demo) Entering BACKUP STATE")
        self.require_answer("a")
        self.client_talks()
        self.require(self.client_sends_to() == "a", "the client does not send to a")
        self.require(not self.adverts("b", start), "b advertised in the presence of a")

    def kill_the_daemon(self) -> None:
        silent = self.last_advert("a")
        killed = time.time()
        self.kad_a.kill_all()
        self.say("kill -9 of every process of the daemon on a", killed)
        first = self.first_advert("b", killed, 8)
        due = 3 * ADVERT_INT + (256 - 100) / 256 * ADVERT_INT
        late = (first - silent - due) * 1000
        self.say(
            f"b is MASTER, {first - silent:.3f} s after a's last word, {late:+.2f} ms from when due", first
        )
        self.require(-0.001 <= late / 1000 <= SLACK, "the take-over came at another time than it should")
        moved = wait_until(lambda: self.client_sends_to() == "b", 2)
        self.require(moved is not None, "the client still sends to a")
        found = self.answers()
        self.require("b" in found, f"{VIP} is answered by {found}")
        self.say(
            "the client, told by gratuitous ARP, sends to b (a's kernel still has the dead daemon's address)"
        )

    def preemption(self) -> None:
        start = time.time()
        self.kad_a.start()
        self.say("kad started again on a")
        gone = wait_until(lambda: not self.a.holds(VIP), 10)
        self.require(gone is not None, "the address the dead daemon left was not removed")
        self.say("the address that the dead daemon left on a is removed")
        self.require_answer("b")
        first = self.first_advert("a", start, 20)
        self.say(f"a is MASTER again, {first - start:.3f} s after its start", first)
        self.kad_b.wait_for("(demo) Entering BACKUP STATE", times=2)
        self.require(wait_until(lambda: not self.b.holds(VIP), 2) is not None, "b keeps the address")
        self.require_answer("a")
        self.require(
            wait_until(lambda: self.client_sends_to() == "a", 2) is not None, "the client sends to b"
        )

    def kill_a_child(self) -> None:
        self.wait_for_fresh_advert()
        self.lose_child(signal.SIGKILL, "kill -9 of the VRRP process on a", 2 * ADVERT_INT)

    def stop_a_child(self) -> None:
        self.wait_for_fresh_advert()
        self.lose_child(
            signal.SIGSTOP, "SIGSTOP of the VRRP process on a: alive, and does nothing", 2.5 * ADVERT_INT
        )

    def wait_for_fresh_advert(self) -> None:
        self.first_advert("a", time.time(), 3)

    def lose_child(self, number: signal.Signals, what: str, longest_gap: float) -> None:
        deleted = self.monitor.read_text().count("Deleted")
        old = self.kad_a.vrrp_pid()
        moment = time.time()
        os.kill(old, number)
        self.say(f"{what} (process {old})", moment)
        new = self.kad_a.new_vrrp_pid(old)
        self.say(f"replaced by process {new} after {(time.time() - moment) * 1000:.0f} ms")
        first = self.first_advert("a", moment, 3)
        self.say(f"a advertises, {(first - moment) * 1000:.1f} ms after the blow", first)
        wait_until(lambda: bool(self.adverts("b", moment)), 4.5 * ADVERT_INT)
        self.require(not self.adverts("b", moment), "b took over")
        gap = longest([x.time_us / 1e6 for x in self.adverts("a", moment - 2 * ADVERT_INT)])
        self.require(gap <= longest_gap, f"a was silent for {gap:.3f} s")
        self.require(self.monitor.read_text().count("Deleted") == deleted, "the address left a")
        self.say(f"b never took over, the address never left a; longest silence {gap:.3f} s")
        self.require_answer("a")

    def reload_of_a_broken_file(self) -> None:
        good, moment = self.kad_a.config.read_text(), time.time()
        self.kad_a.configure(
            good.replace("priority 150", "priorty 50").replace("advert_int 1", "advert_int never")
        )
        self.say("kadctl reload on a, the file having two mistakes now")
        status = self.reload(self.kad_a)
        self.require(status.returncode == 1, f"kadctl left with status {status.returncode}")
        for mistake in ("unknown keyword 'priorty'", "'never' is not a number", "refused"):
            self.require(mistake in status.stdout + status.stderr, f"nothing said: {mistake}")
        self.first_advert("a", time.time(), 3)
        gap = longest([x.time_us / 1e6 for x in self.adverts("a", moment - ADVERT_INT)])
        self.require(gap < 1.5 * ADVERT_INT, f"a was silent for {gap:.3f} s")
        self.say(f"a goes on as it was; longest silence {gap:.3f} s")
        self.kad_a.configure(good)
        self.require_answer("a")

    def reload(self, kad: Kad) -> subprocess.CompletedProcess[str]:
        done = kad.kadctl("reload")
        text = (done.stdout + done.stderr).replace(f"{kad.directory}/", "")
        self.quote([line for line in text.splitlines() if line.strip()])
        return done

    def good_reload(self) -> None:
        good, moment = self.kad_a.config.read_text(), time.time()
        for kad in (self.kad_a, self.kad_b):
            kad.configure(kad.config.read_text().replace(f"{VIP}/24", f"{VIP}/24\n        {SECOND_VIP}/24"))
        self.say("kadctl reload on both, the files having a second address now")
        for kad in (self.kad_b, self.kad_a):
            moment = time.time()
            self.require(self.reload(kad).returncode == 0, "the reload was not accepted")
        self.require(good != self.kad_a.config.read_text(), "the file did not change")
        added = wait_until(lambda: self.a.holds(SECOND_VIP), 5)
        self.require(added is not None, "the second address was not added")
        self.say(f"the second address is there, {(time.time() - moment) * 1000:.0f} ms after the reload")
        self.require_answer("a", SECOND_VIP)
        self.require_answer("a")
        newest = self.first_advert("a", time.time(), 3)
        listed = {len(x.addresses) for x in self.adverts("a", newest)}
        self.require(listed == {2}, f"a advertises {listed} addresses")
        gap = longest([x.time_us / 1e6 for x in self.adverts("a", moment - ADVERT_INT)])
        self.require(gap < 1.5 * ADVERT_INT, f"a was silent for {gap:.3f} s")
        self.require(not self.adverts("b", moment), "b took over")
        self.say(f"a stayed MASTER; longest silence {gap:.3f} s")

    def orderly_stop(self) -> None:
        moment = time.time()
        status = self.kad_a.stop()
        self.say(f"SIGTERM to kad on a: it left with status {status} after {time.time() - moment:.3f} s")
        self.require(status == 0, "the stop failed")
        goodbye = [x for x in self.adverts("a", moment) if x.priority == 0]
        self.require(bool(goodbye), "a did not say goodbye with priority 0")
        first = self.first_advert("b", moment, 3)
        said = goodbye[-1].time_us / 1e6
        self.say(
            f"b is MASTER, {(first - said) * 1000:.1f} ms after a's goodbye (its skew is 609.4 ms)", first
        )
        self.require_answer("b")
        self.require(not self.a.holds(VIP), "the address stayed on a")


SCENES: list[tuple[str, Callable[[Demo], None]]] = [
    ("Election", Demo.election),
    ("The master's whole daemon is killed", Demo.kill_the_daemon),
    ("It returns, and preempts", Demo.preemption),
    ("A child of the master is killed: nobody notices", Demo.kill_a_child),
    ("A child of the master hangs", Demo.stop_a_child),
    ("A reload of a broken file changes nothing", Demo.reload_of_a_broken_file),
    ("A reload of a good one", Demo.good_reload),
    ("An orderly stop", Demo.orderly_stop),
]


def longest(times: list[float]) -> float:
    return max((b - a for a, b in itertools.pairwise(times)), default=float("inf"))


def perform(demo: Demo) -> int:
    for number, (title, scene) in enumerate(SCENES, 1):
        print(f"\n{number}. {title}", flush=True)
        try:
            scene(demo)
        except (DidNotHappenError, AssertionError, OSError) as error:
            print(f"\nDID NOT HAPPEN: {error}", flush=True)
            for kad in (demo.kad_a, demo.kad_b):
                print(f"\n--- the log on {kad.node.label}\n{kad.log.read_text()}")
            return 1
    print(f"\nAll of it happened, in {time.time() - demo.started:.1f} s.")
    return 0


def become_root_of_a_namespace() -> NoReturn:
    """For an ordinary user: the same again as root of a user namespace of its own, where that is allowed."""
    unshare = shutil.which("unshare")
    if unshare is None or "KAD_DEMO_INSIDE" in os.environ:
        sys.exit("the demonstration needs root, or a kernel that lets users make namespaces")
    os.environ["KAD_DEMO_INSIDE"] = "1"
    inside = 'mount -t tmpfs tmpfs /run && exec "$0" -m tests.demo'
    os.execv(unshare, ["unshare", "-Urnm", "sh", "-c", inside, sys.executable])


def main() -> int:
    if os.geteuid() != 0:
        become_root_of_a_namespace()
    scratch = Path(tempfile.mkdtemp(prefix="kad-demo-"))
    try:
        with Network("demo") as network:
            demo = Demo(network, scratch)
            try:
                return perform(demo)
            finally:
                demo.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
