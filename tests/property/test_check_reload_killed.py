"""A checker process killed anywhere in a reload: its next life has the servers the reload would have left."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kad.config.model.check import CheckConfiguration
from kad_check.core.events import ConfigurationChanged
from tests.support.check_host import CheckHost
from tests.support.configuration import read

PORTS = (81, 82, 83)
"""Each server is examined at each once at the most: two checkers that examine the same are not told apart."""
SERVERS = (11, 12)

checker = st.tuples(st.sampled_from(PORTS), st.booleans(), st.sampled_from((0, 3)))
"""What it examines, whether with alpha, and how often it tries again."""
real_servers = st.lists(st.lists(checker, max_size=3, unique_by=lambda each: each[0]), min_size=1, max_size=2)


def configuration(servers: list[list[tuple[int, bool, int]]]) -> CheckConfiguration:
    blocks = ""
    for host, checkers in zip(SERVERS, servers, strict=False):
        checks = "".join(
            f"TCP_CHECK {{\nconnect_port {port}\nwarmup 0\nretry {retry}\n{'alpha' if alpha else ''}\n}}\n"
            for port, alpha, retry in checkers
        )
        blocks += f"real_server 192.0.2.{host} 80 {{\n{checks}}}\n"
    loaded = read(f"virtual_server 10.0.0.1 80 {{\nlvs_sched rr\nprotocol TCP\ndelay_loop 5\n{blocks}}}\n")
    return loaded.config.check


def killed_after(host: CheckHost, new: CheckConfiguration, actions: int) -> CheckHost:
    """The next life, which is given the generation that the last one had begun to become."""
    old = host.configuration
    asked = host.engine.handle(ConfigurationChanged(host.generation + 1, new, old), host.now_us)
    host.carry_out(asked[:actions])
    next_life = host.reborn()
    next_life.generation = host.generation
    next_life.reload(new, old)
    return next_life


@settings(max_examples=30)
@given(
    before=real_servers,
    after=real_servers,
    failing=st.sets(st.sampled_from(PORTS)),
    well_s=st.sampled_from((0, 3)),
    ill_s=st.sampled_from((0, 4, 6, 12)),
)
@example([[(81, False, 3)]], [[(81, False, 3), (82, True, 0)]], {81}, 3, 4)
def test_wherever_it_is_killed_the_same_servers_are_up(
    before: list[list[tuple[int, bool, int]]],
    after: list[list[tuple[int, bool, int]]],
    failing: set[int],
    well_s: int,
    ill_s: int,
) -> None:
    host = CheckHost(configuration(before))
    host.start()
    host.run(well_s, lambda checker, step: True)
    host.run(ill_s, lambda checker, step: checker.connection.port not in failing)
    new = configuration(after)
    reloaded = deepcopy(host)
    actions = len(reloaded.reload(new, host.configuration))
    for kill in range(actions + 1):
        next_life = killed_after(deepcopy(host), new, kill)
        assert next_life.alive() == reloaded.alive(), f"killed after {kill} of {actions} actions"
        assert next_life.kernel == reloaded.kernel
