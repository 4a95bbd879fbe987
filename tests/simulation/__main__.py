"""``make sim SEED=… HOURS=… NODES=…``: stories of simulated networks, one after the other.

Without HOURS one story, the one of this seed. With it story after story, of the seeds that follow, until so
many virtual hours have passed. A story that ends badly prints its last lines and how to play it again.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import sys

from tests.simulation.story import Account, tell
from tests.simulation.witness import Violation

HOUR_US = 3_600_000_000
REPORT_EVERY = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--nodes", type=int, default=0)
    wanted = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if wanted.seed is None else wanted.seed
    os.nice(19)
    # Most of what is made is gone with the next event, and hardly any of it in cycles.
    gc.set_threshold(50_000, 20, 50)
    total, stories = Account(), 0
    while True:
        try:
            account = tell(seed + stories, count=wanted.nodes)
        except Violation as violation:
            print(violation)
            return 1
        total.merge(account)
        stories += 1
        if total.virtual_us >= wanted.hours * HOUR_US:
            break
        if stories % REPORT_EVERY == 0:
            report(seed, stories, total)
    report(seed, stories, total)
    print(f"history {total.history:x}; faults: {dict(total.injected.most_common())}")
    return 0


def report(seed: int, stories: int, total: Account) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    hours = total.virtual_us / HOUR_US
    faults = total.injected.total()
    print(
        f"seeds {seed} to {seed + stories - 1}: {hours:.1f} virtual hours, {faults} faults, "
        f"{total.packets['sent']} adverts in {seconds:.0f} s of CPU, "
        f"{hours * 3600 / seconds:.0f} times as fast as the clock",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
