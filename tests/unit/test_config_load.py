"""load: statuses, refusal of reloads, straying, and that nothing it reads makes it raise."""

import gc
from pathlib import Path

import pytest

from kad.config.diff import new_errors
from kad.config.load import Loaded, load, worst_status
from kad.config.source import TextReader
from kad.errors import Diagnostic, ExitStatus, Severity
from kad.garbage import collector_paused
from tests.support.configuration import assert_as_annotated, read

INSTANCE = "interface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n10.0.0.1\n}"


def of_status(*statuses: int) -> list[Diagnostic]:
    return [Diagnostic(Severity.ERROR, "x", "x", exit_status=each) for each in statuses]


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ((), 0),
        ((0,), 0),
        ((0, 4), 4),
        ((4, 5), 5),
        ((6, 5), 6),
        ((6, 2, 5), 2),
    ],
)
def test_the_highest_class_is_the_status(found: tuple[int, ...], answer: int) -> None:
    assert worst_status(of_status(*found)) == answer


def test_a_missing_file_cannot_be_run() -> None:
    loaded = load("/no/such/file.conf")
    assert loaded.exit_status == ExitStatus.CANNOT_RUN
    assert not loaded.runnable


def test_an_empty_file_is_a_configuration() -> None:
    loaded = load("k", reader=TextReader({"k": ""}))
    assert (loaded.exit_status, loaded.diagnostics, loaded.runnable) == (0, (), True)


def instance(body: str) -> Loaded:
    return read(f"vrrp_instance A {{\n{INSTANCE}\n{body}\n}}")


def test_a_reload_is_refused_for_new_errors_only() -> None:
    running = instance("priorty 5")
    assert new_errors(running, ()) != []
    assert new_errors(running, running.error_identities) == []
    moved = read(f"\n\n\nvrrp_instance A {{\n{INSTANCE}\n\npriorty 5\n}}")
    assert new_errors(moved, running.error_identities) == []
    worse = instance("priorty 5\npriorty 6")
    assert [each.message for each in new_errors(worse, running.error_identities)] == [
        "unknown keyword 'priorty' in vrrp_instance"
    ]


def test_a_reload_is_refused_for_what_cannot_be_run_even_when_it_ran_before() -> None:
    broken = read("vrrp_instance A {\ninterface eth0\n}")
    assert new_errors(broken, broken.error_identities) != []


def test_findings_about_the_machine_never_refuse_a_reload() -> None:
    loaded = read(f"vrrp_instance A {{\n{INSTANCE.replace('eth0', 'absent0')}\n}}")
    assert loaded.diagnostics != () and loaded.exit_status == 5
    assert new_errors(loaded, ()) == []


def test_warnings_never_refuse_a_reload() -> None:
    loaded = instance("thread_timer_expired\nnopreempt")
    assert [each.code for each in loaded.diagnostics] == ["deprecated"]
    assert new_errors(loaded, ()) == []


def test_a_reading_leaves_nothing_for_the_garbage_collector() -> None:
    """With tens of thousands of servers it would stop control for as long as the reading took."""
    server = "real_server 10.1.0.1 80 {\nTCP_CHECK {\n}\n}"
    text = "\n".join(f"virtual_server 10.0.0.{n} 80 {{\n{server}\n}}" for n in range(1, 200))
    gc.collect()
    with collector_paused():
        loaded = load("k", reader=TextReader({"k": text}))
        assert len(loaded.config.check.virtual_servers) == 199
        assert gc.collect() < 10


def test_offline_judges_the_text_alone() -> None:
    text = f"vrrp_instance A {{\n{INSTANCE}\nnotify_master /no/such/script nobody-here\n}}"
    loaded = load("k", reader=TextReader({"k": text}))
    assert not any(each.machine for each in loaded.diagnostics)
    assert loaded.exit_status == ExitStatus.SCRIPT_SECURITY


def test_lines_that_keepalived_ignores_are_told() -> None:
    assert_as_annotated(
        """
vrrp_instance A {
mystery { # unknown-keyword
}
interface eth0 # keepalived-strays/0
virtual_router_id 1 # keepalived-strays/0
virtual_ipaddress { # keepalived-strays/0
10.0.0.1 # keepalived-strays/0
}
}
vrrp_instance B {
interface eth0
virtual_router_id 2
virtual_ipaddress {
10.0.0.2
}
}
"""
    )


def test_a_file_without_a_mistake_does_not_stray() -> None:
    assert_as_annotated(f"vrrp_instance A {{\n{INSTANCE}\n}}")


def test_what_a_person_can_bear_is_bounded() -> None:
    loaded = load("k", reader=TextReader({"k": "x y\n" * 5000}))
    assert len(loaded.diagnostics) == 2001
    assert loaded.diagnostics[-1].code == "findings-dropped"
    assert loaded.exit_status == 5


SAMPLES = sorted((Path(__file__).parents[2] / "conf").glob("*.conf"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_can_be_run(path: Path) -> None:
    """Offline: samples name interfaces that are not here. They are to be started from: nothing is wrong."""
    loaded = load(str(path), config_id="node")
    assert loaded.runnable and loaded.config.vrrp.instances
    assert loaded.exit_status == 0 and not any(
        each.severity in (Severity.FATAL, Severity.ERROR) for each in loaded.diagnostics
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe{{{}}}",
        b"vrrp_instance \xff {\n\xfe\n}",
        b"global_defs {\nvrrp_startup_delay " + b"9" * 900 + b"\n}",
        b"vrrp_instance A {\npriority \xd9\xa7\n}",
        b"static_rules {\ngoto 5 preference 010\n}",
        b"static_ipaddress {\n%\n::%1\n1.2.3.4/\xd9\xa3\n}",
        b"vrrp_script {\n}\nvrrp_script a b c {\n}",
        b"track_file f {\nfile\n}",
        b"virtual_server_group {\n}\nvirtual_server {\n}",
        b"vrrp_instance A {\nuse_vmac name\nuse_ipvlan group\n}",
        b"vrrp_instance A {\nnotify_master '\nnotify_backup \"\\\n}",
    ],
)
def test_nothing_a_file_holds_makes_it_raise(data: bytes) -> None:
    loaded = load("k", reader=TextReader({"k": data}))
    assert loaded.exit_status != 0
