"""Any order of results, reloads and crashes: the kernel holds what the servers' states say, and no dead
server comes back by a restart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kad.config.model.check import CheckConfiguration
from kad_check.core.actions import Action, ChangeDestinations, Notify, Remember
from kad_check.core.events import CheckDone, Verdict
from tests.support.check_host import CheckHost, by_target, target
from tests.support.configuration import read

VS = "[10.0.0.1]:tcp:80"
SORRY = ("192.0.2.99", 80)
SERVERS = 4


def configuration(
    *,
    quorum: int,
    hysteresis: int,
    sorry: bool,
    inhibit: bool,
    alpha: bool,
    retry: int,
    servers: int = SERVERS,
    loop: int = 2,
    demanding: bool = False,
) -> CheckConfiguration:
    """Every server's checker examines the same in all of them; ``demanding``: more closely."""
    kinds = (
        ("TCP_CHECK", "", ""),
        ("HTTP_GET", "url {\n path /\n }", "http_protocol 1.1"),
        ("UDP_CHECK", "", "payload 0102"),
        ("TCP_CHECK", "", ""),
    )
    checks = [(kind, f"{always}\n{more if demanding else ''}") for kind, always, more in kinds]
    blocks = "\n".join(
        f"""real_server 192.0.2.{number + 1} 80 {{
            weight {number + 1}
            notify_up "/bin/r up {number}"
            notify_down "/bin/r down {number}"
            {checks[number][0]} {{
                {checks[number][1]}
                warmup 0
                retry {retry}
                delay_before_retry 1
            }}
        }}"""
        for number in range(servers)
    )
    text = f"""
    virtual_server 10.0.0.1 80 {{
        lvs_sched rr
        lvs_method DR
        protocol TCP
        delay_loop {loop}
        quorum {quorum}
        hysteresis {hysteresis}
        {"sorry_server 192.0.2.99 80" if sorry else ""}
        {"inhibit_on_failure" if inhibit else ""}
        {"alpha" if alpha else ""}
        {"virtualhost www.example" if demanding else ""}
        quorum_up "/bin/q up"
        quorum_down "/bin/q down"
        {blocks}
    }}
    """
    return read(text).config.check


CONFIGURATIONS = st.builds(
    configuration,
    quorum=st.integers(1, 10),
    hysteresis=st.integers(0, 3),
    sorry=st.booleans(),
    inhibit=st.booleans(),
    alpha=st.booleans(),
    retry=st.integers(1, 3),
    loop=st.integers(2, 3),
    demanding=st.booleans(),
)


def check_table(host: CheckHost) -> None:
    """The kernel's table is what the report says of the servers, and what the rules make of that."""
    (pool,) = host.engine.report().virtual_servers
    config = host.configuration.virtual_servers[0]
    table = host.table(VS)
    weight = 0
    for server, said in zip(config.real_servers, pool.real_servers, strict=True):
        key = server.address, server.port
        failing = any(not checker.up for checker in said.checkers)
        assert said.alive is not failing
        weight += said.weight if said.alive else 0
        serves = said.alive and not pool.sorry_in_use
        if serves:
            assert table.pop(key) == server.weight
        elif server.inhibit_on_failure:
            assert table.pop(key) == 0
    assert pool.weight == weight
    assert pool.sorry_in_use is (config.sorry_server is not None and not pool.has_quorum)
    if pool.sorry_in_use:
        assert table.pop(SORRY) == 1
    assert not table
    if pool.has_quorum:
        assert weight >= max(1, config.quorum - config.hysteresis)
    else:
        assert weight < config.quorum + config.hysteresis


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("results"), st.lists(st.booleans(), min_size=SERVERS, max_size=SERVERS)),
        st.tuples(st.just("crash"), st.none()),
        st.tuples(st.just("reload"), CONFIGURATIONS),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(CONFIGURATIONS, STEPS)
def test_the_kernel_holds_what_the_servers_are(
    first: CheckConfiguration, steps: list[tuple[str, object]]
) -> None:
    host = CheckHost(first)
    host.start()
    check_table(host)
    for what, how in steps:
        if what == "results":
            assert isinstance(how, list)
            good = {f"192.0.2.{number + 1}" for number, ok in enumerate(how) if ok}
            host.run(1.0, by_target({f"192.0.2.{n + 1}": f"192.0.2.{n + 1}" in good for n in range(SERVERS)}))
        elif what == "reload":
            assert isinstance(how, CheckConfiguration)
            alive = host.alive()
            host.reload(how, host.configuration)
            assert host.alive() == alive, "that is for the next checks to say"
        else:
            before = host.alive(), host.table(VS)
            host = host.reborn()
            host.start()
            assert (host.alive(), host.table(VS)) == before
            assert not host.notified(), "everything was told before"
        check_table(host)


def removal(host: CheckHost, address: str) -> list[Action]:
    """What the engine wants done when this server's failures have become a verdict; nothing of it is done."""
    name = f"[{address}]:tcp:80"
    while True:
        host.advance(host.now_us + 3_000_000)
        for number in sorted(host.running):
            del host.running[number]
            ok = target(host.checkers[number]) != address
            event = CheckDone(number, Verdict.SUCCESS if ok else Verdict.FAILURE, "" if ok else "refused")
            if ok:
                host.feed(event)
                continue
            actions = host.engine.handle(event, host.now_us)
            if not host.alive()[name]:
                return actions
            host.carry_out(actions)


@settings(deadline=None, max_examples=100)
@given(CONFIGURATIONS, st.integers(0, SERVERS - 1), st.integers(0, 20))
def test_a_dead_server_stays_dead_wherever_its_removal_was_cut_off(
    first: CheckConfiguration, which: int, cut: int
) -> None:
    host = CheckHost(first, answer_scripts=False)
    host.start()
    host.run(3.0, lambda checker, step: True)
    address = f"192.0.2.{which + 1}"
    name = f"[{address}]:tcp:80"
    actions = removal(host, address)
    told = sum(isinstance(action, Notify) for action in host.done)
    host.carry_out(actions[:cut])
    next_life = host.reborn()
    next_life.start()
    check_table(next_life)
    done = actions[:cut]
    if not any(isinstance(action, Remember) for action in done):
        assert not any(isinstance(action, ChangeDestinations | Notify) for action in done)
        assert next_life.alive()[name], "a verdict that was not recorded is made anew"
        return
    assert not next_life.alive()[name]
    assert next_life.table(VS).get((address, 80), 0) == 0
    wanted = f"/bin/r down {which}"
    assert wanted in next_life.notified(), "it is not known to have ended"
    assert sum(isinstance(action, Notify) for action in host.done) >= told
