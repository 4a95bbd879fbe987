"""Runs the measurements asked for (all without a name) on both daemons in turn and prints the table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import bfd, checks, servers
from tests.bench import measurements as m
from tests.bench.stage import PROGRAMS, NotMeasuredError, Program, Row, at_most, within
from tests.support.daemon import Kad, Keepalived
from tests.support.namespaces import reason_not_possible

Measure = Callable[[Program], m.Values]
Judge = Callable[[float, float], bool]
Columns = list[tuple[str, str, str, str, Judge | None]]
"""Key, what it is, unit, target in words, target."""

MEASUREMENTS: dict[str, tuple[Measure, Columns]] = {}


def measure(name: str, function: Measure, *columns: tuple[str, str, str, str, Judge | None]) -> None:
    MEASUREMENTS[name] = (function, list(columns))


for count, start, factor in ((1, 200, 0.0), (100, 220, 2.5), (1020, 400, 1.5)):
    measure(
        f"masters-{count}",
        partial(m.masters, count=count),
        ("start", f"start -> all {count} advertise", "ms", f"<= {start}", at_most(start)),
        ("worst", f"  … the worst of {m.STARTS}", "ms", "", None),
        (
            "cpu",
            f"vrrp cpu, {count} masters at 1 s",
            "s/min",
            f"<= {factor}x" if factor else "",
            within(factor) if factor else None,
        ),
        ("memory", f"whole daemon, PSS, {count} masters", "MB", "<= 60", at_most(60)),
        ("stop", f"stop, {count} masters", "ms", "", None),
    )
for count in (100, 1020):
    measure(
        f"backups-{count}",
        partial(m.backups, count=count),
        ("together", f"vrrp cpu, {count} backups at 1 s", "s/min", "<= 2x", within(2)),
        ("spread", "  … masters speak spread over the second", "s/min", "<= 2x", within(2)),
    )
for interval, tries in ((1, 3), (0.1, 10), (0.01, 10)):
    measure(
        f"take-over-{interval:g}",
        partial(m.take_over, advert_int=interval, tries=tries),
        ("killed", f"take-over after kill -9 at {interval:g} s, late", "ms", "<= 0.5", at_most(0.5)),
        ("worst", "  … the worst", "ms", "", None),
        ("stopped", f"take-over after stop at {interval:g} s, late", "ms", "<= 0.5", at_most(0.5)),
    )
measure(
    "lost-child",
    partial(m.lost_child, tries=20),
    ("silence", "kill -9 of vrrp child at 0.1 s -> next advert", "ms", "<= 20", at_most(20)),
    ("worst", "  … the worst of 20", "ms", "<= 20", at_most(20)),
    ("taken", "  … peer took over, of 20", "", "0", at_most(0)),
    ("left", "  … the address left, of 20", "", "0", at_most(0)),
)
measure(
    "reload",
    partial(m.reload_one_of_many, count=1020),
    ("applied", "reload, 1020, one address: applied", "ms", "<= 300", at_most(300)),
    ("gap", "  … longest silence at 1 s", "ms", "<= 1010", at_most(1010)),
    ("lost", "  … masterships lost", "", "0", at_most(0)),
)
for hogs in (False, True):
    measure(
        f"cadence-{'hogs' if hogs else 'idle'}",
        partial(m.cadence, hogs=hogs),
        ("mean", f"master at 10 ms{', 4 hogs' if hogs else ''}: time between adverts", "ms", "", None),
        ("p99", "  … p99", "ms", "<= 1x" if hogs else "<= 10.5", within(1) if hogs else at_most(10.5)),
        ("worst", "  … the longest", "ms", "", None),
    )
measure(
    "reload-vmacs",
    partial(m.reload_adds_vmacs, count=100),
    ("gap", "reload adds 100 VMACs: longest silence at 10 ms", "ms", "", None),
    ("made", "  … until they are there", "ms", "", None),
)
measure(
    "parse-65000",
    m.parse_many,
    ("took", "-t, 65,024 instances of one loop", "s", "<= 60", at_most(60)),
    ("memory", "  … memory at most", "MB", "", None),
)
for count, limit in ((100, 200), (1000, 250), (10000, 600)):
    measure(
        f"test-{count}",
        partial(m.config_test, servers=count),
        ("took", f"-t, {count} real servers", "ms", f"<= {limit}", at_most(limit)),
    )
for kind, name, judge in (
    ("tcp", "TCP", within(1)),
    ("http", "HTTP", within(1)),
    ("tls", "TLS (nginx, P-256)", None),
):
    measure(
        f"checks-{kind}",
        partial(checks.cost_of_checks, kind=kind),
        ("cost", f"{name} checks, 1000 a second, cpu each", "us", "<= 1x" if judge else "", judge),
        ("rate", "  … checks a second", "", "", None),
    )
measure(
    "many-servers",
    partial(servers.many_servers, count=10_000),
    ("start", "start -> 10,000 real servers in IPVS", "ms", "", None),
    ("commands", "  … commands sent for 11,000 entries", "", "11000", at_most(11_000)),
    ("memory", "  … checker's memory each, PSS", "bytes", "", None),
    ("reload", "  … reload with one changed", "ms", "<= 2000", at_most(2000)),
    ("changed", "  … commands it sends", "", "1", at_most(1)),
)
for count, interval in ((1, 50), (10, 50), (100, 50), (1, 10), (10, 10), (100, 10)):
    half = count == 100
    measure(
        f"bfd-cpu-{count}x{interval}",
        partial(bfd.cpu, count=count, interval_ms=interval),
        (
            "cpu",
            f"bfd cpu, {count} neighbours at {interval} ms",
            "s/min",
            "<= 0.5x" if half else "",
            within(0.5) if half else None,
        ),
        ("lost", "  … sessions lost meanwhile", "", "0", at_most(0)),
    )
for interval, ours, theirs in ((10, 500, 100), (50, 1900, 440), (300, 7000, 2200)):
    measure(
        f"bfd-capacity-{interval}",
        partial(bfd.capacity, counts={Kad: ours, Keepalived: theirs}, interval_ms=interval),
        ("carried", f"neighbours at {interval} ms that half a core carries", "", "", None),
        ("lost", f"  … sessions lost, of {ours} and {theirs}", "", "0", at_most(0)),
    )
for interval in (10, 50):
    for realtime, suffix, words in ((True, "", ""), (False, "-default", ", default priority")):
        measure(
            f"bfd-act-{interval}{suffix}",
            partial(bfd.act, interval_ms=interval, realtime=realtime),
            ("late", f"loss at {interval} ms x3 -> vrrp leaves, late{words}", "ms", "<= 0.5", at_most(0.5)),
            ("worst", "  … the worst", "ms", "", None),
        )
        measure(
            f"bfd-told-{interval}{suffix}",
            partial(bfd.told, interval_ms=interval, realtime=realtime),
            (
                "late",
                f"loss at {interval} ms x3 -> subscriber told, late{words}",
                "ms",
                "<= 0.5",
                at_most(0.5),
            ),
            ("worst", "  … the worst", "ms", "", None),
        )
    measure(
        f"bfd-hung-{interval}",
        partial(bfd.hung, interval_ms=interval),
        (
            "took",
            f"bfd hangs at {interval} ms x3 -> subscriber told",
            "ms",
            f"<= {3 * interval}.5",
            at_most(3 * interval + 0.5),
        ),
        ("worst", "  … the worst", "ms", "", None),
    )
for hogs, realtime in ((False, False), (True, False), (False, True), (True, True)):
    name = f"{'hogs' if hogs else 'idle'}{'-realtime' if realtime else ''}"
    measure(
        f"bfd-lateness-{name}",
        partial(bfd.lateness, hogs=hogs, realtime=realtime),
        ("p50", f"bfd timers, 10 at 10 ms, {name}, late, p50", "us", "", None),
        ("p99", "  … p99", "us", "", None),
        ("worst", "  … the worst", "us", "", None),
    )
measure(
    "death-to-removal",
    partial(servers.death_to_removal, tries=8),
    ("least", "a server dies -> removed, delay_loop 1, retry 1", "ms", "", None),
    ("median", "  … the median", "ms", "", None),
    ("worst", "  … the worst of 8", "ms", "<= 2050", at_most(2050)),
)
measure(
    "reload-37000",
    partial(servers.reload_beside_adverts, count=37_000),
    ("reload", "reload, 37,000 real servers, one changed", "ms", "<= 2000", at_most(2000)),
    ("changed", "  … commands it sends", "", "1", at_most(1)),
    ("gap", "  … longest silence of an instance at 1 s", "ms", "<= 1010", at_most(1010)),
)


def values_of(name: str, function: Measure, program: Program) -> m.Values:
    print(f"… {name}: {Path(program.program).name}", file=sys.stderr, flush=True)
    try:
        return function(program)
    except (NotMeasuredError, AssertionError, OSError) as error:
        print(f"  not measured: {error}", file=sys.stderr, flush=True)
        return {}


def rows_of(name: str) -> list[Row]:
    function, columns = MEASUREMENTS[name]
    kad, keepalived = (values_of(name, function, program) for program in PROGRAMS)
    rows = []
    for key, what, unit, target, judge in columns:
        ours, theirs = kad.get(key), keepalived.get(key)
        met = None if judge is None else ours is not None and judge(ours, theirs or 0.0)
        rows.append(Row(what, unit, ours, theirs, target, met))
    return rows


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def line(row: Row) -> str:
    ratio = "" if not row.kad or not row.keepalived else f"{row.kad / row.keepalived:.2f}"
    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    return (
        f"{row.what:47} {row.unit:6} {number(row.kad):>8} {number(row.keepalived):>10} {ratio:>7}"
        f"  {row.target:9} {verdict}"
    )


def main(names: list[str]) -> int:
    if reason := reason_not_possible():
        print(f"cannot measure: {reason}", file=sys.stderr)
        return 1
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        print(
            f"no such measurement: {' '.join(unknown)}\nthere are: {' '.join(MEASUREMENTS)}", file=sys.stderr
        )
        return 2
    print(" beside ".join(m.version(program) for program in PROGRAMS))
    print(f"{'':47} {'':6} {'kad':>8} {'keepalived':>10} {'ratio':>7}  target")
    rows = []
    for name in names or MEASUREMENTS:
        measured = rows_of(name)
        rows += measured
        print("\n".join(map(line, measured)), flush=True)
    if path := os.environ.get("KAD_BENCH_JSON"):
        Path(path).write_text(json.dumps([row.__dict__ for row in rows], indent=1))
    # What was missed, or could not be measured.
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
