"""HTTP_GET with several URLs: which is asked for when, and what the server is for it."""

from __future__ import annotations

import itertools

from msgspec.structs import replace

from kad.config.model.check import Checker, Url
from kad_check.core.texts import url_line
from tests.support.check_host import SECOND, CheckHost
from tests.support.configuration import SECURE, read

VS = "[10.0.0.1]:tcp:80"
ONE = ("192.0.2.11", 80)
VS_SERVER = "[192.0.2.11]:tcp:80"


def host(more: str = "", *, globals: str = "", urls: int = 3) -> CheckHost:
    each = "".join(f"url {{\npath /{n}\nstatus_code 200\n}}\n" for n in range(urls))
    loaded = read(
        f"""
        virtual_server 10.0.0.1 80 {{
            lvs_sched rr
            lvs_method NAT
            protocol TCP
            delay_loop 6
            real_server 192.0.2.11 80 {{
                HTTP_GET {{
                    warmup 0
                    retry 2
                    delay_before_retry 1
                    {each}
                    {more}
                }}
            }}
        }}
        """,
        f"{SECURE}\n{globals}",
    )
    assert not loaded.diagnostics, loaded.diagnostics
    made = CheckHost(loaded.config.check)
    made.start()
    return made


class Server:
    """Judges by what is broken, and notes what was asked for and when."""

    def __init__(self, made: CheckHost) -> None:
        self.made = made
        self.broken: set[int] = set()
        self.asked: list[tuple[float, int]] = []

    def __call__(self, _checker: Checker, step: int) -> bool:
        self.asked.append((self.made.now_us // (SECOND // 10) / 10, step))
        return step not in self.broken

    def take(self, seconds: float) -> tuple[list[int], list[int]]:
        """The URLs asked for meanwhile, and the whole seconds between the questions."""
        self.asked.clear()
        self.made.run(seconds, self)
        times = [at for at, _ in self.asked]
        return [step for _, step in self.asked], [round(b - a) for a, b in itertools.pairwise(times)]


def test_one_url_a_period_in_turn() -> None:
    made = host()
    steps, pauses = Server(made).take(40)
    assert steps == [0, 1, 2, 0, 1, 2, 0]
    assert set(pauses) == {6}
    assert made.table(VS) == {ONE: 1}


def test_the_url_that_fails_is_repeated_and_after_it_works_again_all_are_asked() -> None:
    made = host()
    server = Server(made)
    server.take(20)
    server.broken = {1}
    steps, _ = server.take(30)
    failing = steps[steps.index(1) :]
    assert set(failing) == {1}, "nothing else is asked for while it fails"
    assert made.table(VS) == {}
    server.broken = set()
    steps, pauses = server.take(30)
    assert steps[:5] == [1, 0, 1, 2, 0]
    assert set(pauses) == {6}
    assert made.table(VS) == {ONE: 1}


def test_the_first_failure_is_believed_until_all_urls_have_worked_once() -> None:
    made = host()
    server = Server(made)
    server.broken = {2}
    steps, _ = server.take(14)
    assert (steps, made.table(VS)) == ([0, 1, 2], {})


def test_retries_are_used_before_the_server_is_down() -> None:
    made = host()
    server = Server(made)
    server.take(14)
    server.broken = {0}
    steps, pauses = server.take(6.5)
    assert (steps, pauses, made.table(VS)) == ([0, 0], [1], {ONE: 1})
    steps, _ = server.take(1)
    assert (steps, made.table(VS)) == ([0], {})


def test_fast_recovery_does_not_wait_between_urls_while_the_server_comes_up() -> None:
    made = host("fast_recovery")
    server = Server(made)
    server.take(20)
    server.broken = {1}
    server.take(30)
    assert made.table(VS) == {}
    server.broken = set()
    steps, pauses = server.take(13)
    assert steps[:4] == [1, 0, 1, 2]
    assert pauses[:3] == [0, 0, 0], "a period is for servers that are up"
    assert made.table(VS) == {ONE: 1}


def test_failures_that_change_nothing_are_told_where_that_is_wanted() -> None:
    said = "HTTP_GET on service [192.0.2.11]:tcp:80 failed: refused."
    for more, globals, times in (
        ("", "", 0),
        ("log_all_failures", "", 1),
        ("", "checker_log_all_failures", 1),
    ):
        made = host(more, globals=globals)
        server = Server(made)
        server.take(14)
        server.broken = {0}
        server.take(5.5)
        assert made.table(VS) == {ONE: 1}
        assert made.logged().count(said) == times, made.logged()


def test_what_works_while_the_server_is_down_is_told_in_keepalived_s_words() -> None:
    """Its order too: the URL it was down for, then all of them once more."""
    made = host()
    server = Server(made)
    server.take(20)
    assert not told_of_urls(made), "nothing of a server that is up"
    server.broken = {1}
    server.take(30)
    server.broken = set()
    server.take(40)
    assert told_of_urls(made) == [f"HTTP status code success to {VS_SERVER} url(/{n})" for n in (1, 0, 1, 2)]


def test_what_was_looked_at_last_has_the_word() -> None:
    url = Url("/a", digest=bytes(16))
    assert url_line(url, VS_SERVER) == f"MD5 digest success to {VS_SERVER} url(/a)"
    assert url_line(replace(url, regex="ok"), VS_SERVER) == f"Regex match success to {VS_SERVER} url(/a)"


def told_of_urls(made: CheckHost) -> list[str]:
    return [line for line in made.logged() if " success to " in line]
