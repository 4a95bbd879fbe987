"""Plans for the IPVS table: complete, minimal, safe at every prefix."""

from hypothesis import given
from hypothesis import strategies as st

from kad.config.model.check import Forwarding, ForwardingMethod, Protocol, TunnelChecksum, TunnelType
from kad.kernel.ipvs import (
    IPV4_HOST_MASK,
    DestinationEntry,
    DestinationKey,
    Method,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    ipv6_mask,
)
from kad.kernel.links import AF_INET, AF_INET6
from kad_check.core.ipvs_plan import (
    Actual,
    ActualService,
    Change,
    Desired,
    PutDestination,
    PutService,
    RemoveDestination,
    RemoveService,
    Step,
    apply,
    destination_entry,
    plan,
    service_entries,
    service_keys,
    step,
)
from kad_check.core.ipvs_state import Destination, PoolState, Service

NAT = Forwarding()
DR = Forwarding(ForwardingMethod.DIRECT_ROUTE)
TUNNEL = Forwarding(ForwardingMethod.TUNNEL)


def web(last: int = 1, **settings: object) -> Service:
    return Service(4, Protocol.TCP, f"192.0.2.{last}", port=80, **settings)  # type: ignore[arg-type]


def server(last: int, weight: int = 1, forwarding: Forwarding = NAT) -> Destination:
    return Destination(f"198.51.100.{last}", 80, weight, forwarding)


def pool(name: str, services: list[Service], destinations: list[Destination]) -> PoolState:
    return PoolState(name, tuple(services), tuple(destinations))


def carry_out(desired: Desired, actual: Actual, owned: set[ServiceKey] | None = None) -> list[Step]:
    """Every command of the plan, applied one after the other."""
    done = []
    for change in list(plan(desired, actual, actual.keys() if owned is None else owned)):
        wanted = step(desired, actual, change)
        assert wanted is not None, f"{change} was planned for nothing"
        apply(actual, wanted)
        done.append(wanted)
    return done


# Into the kernel's words


def test_a_range_is_one_service_for_each_address() -> None:
    service = Service(4, Protocol.UDP, "10.0.0.254", "10.0.1.1", 53)
    assert [bytes(key.address) for key in service_keys(service)] == [
        bytes([10, 0, 0, 254]),
        bytes([10, 0, 0, 255]),
        bytes([10, 0, 1, 0]),
        bytes([10, 0, 1, 1]),
    ]
    assert {(key.family, key.protocol, key.port) for key in service_keys(service)} == {(AF_INET, 17, 53)}


def test_a_large_prefix_is_not_written_out_before_it_is_asked_for() -> None:
    service = Service(6, Protocol.TCP, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 80)
    assert next(service_keys(service)).address == bytes.fromhex("20010db8") + bytes(12)


def test_settings_of_a_service() -> None:
    (entry,) = service_entries(
        web(
            scheduler="mh",
            scheduler_flags=(1, 3),
            one_packet=True,
            persistence_timeout=50,
            persistence_granularity="255.255.0.0",
            persistence_engine="sip",
        )
    )
    flags = (
        ServiceFlag.SCHEDULER_1 | ServiceFlag.SCHEDULER_3 | ServiceFlag.ONE_PACKET | ServiceFlag.PERSISTENT
    )
    assert entry == ServiceEntry(
        ServiceKey(AF_INET, 6, bytes([192, 0, 2, 1]), 80), "mh", flags, 50, bytes([255, 255, 0, 0]), "sip"
    )


def test_granularity_counts_with_persistence_only() -> None:
    (plain,) = service_entries(web(persistence_granularity="255.0.0.0"))
    assert (plain.netmask, plain.timeout, plain.flags) == (IPV4_HOST_MASK, 0, 0)
    (six,) = service_entries(Service(6, None, fwmark=9, persistence_timeout=1, persistence_granularity="48"))
    assert six.netmask == ipv6_mask(48)
    assert six.key == ServiceKey(AF_INET6, 0, b"", 0, 9)
    (six_plain,) = service_entries(Service(6, None, fwmark=9))
    assert six_plain.netmask == ipv6_mask(128)


def test_tunnels() -> None:
    def of(**options: object) -> tuple[int, ...]:
        forwarding = Forwarding(ForwardingMethod.TUNNEL, **options)  # type: ignore[arg-type]
        entry = destination_entry(Destination("2001:db8::1", 0, 3, forwarding, 9, 8))
        assert (entry.weight, entry.upper_threshold, entry.lower_threshold) == (3, 9, 8)
        return entry.method, entry.tunnel_type, entry.tunnel_port, entry.tunnel_flags

    gue, gre = TunnelType.GUE, TunnelType.GRE
    assert of() == (Method.TUNNEL, 0, 0, 0)
    assert of(tunnel_type=gue, tunnel_port=6080, tunnel_checksum=TunnelChecksum.REMOTE) == (2, 1, 6080, 2)
    assert of(tunnel_type=gre, tunnel_checksum=TunnelChecksum.FULL) == (2, 2, 0, 1)
    assert destination_entry(server(1, forwarding=DR)).method == Method.DIRECT_ROUTE


# Plans


def test_start_from_nothing() -> None:
    desired = Desired([pool("a", [web()], [server(1), server(2, 0)])])
    actual: Actual = {}
    done = carry_out(desired, actual)
    assert [type(each).__name__ for each in done] == ["PutService", "PutDestination", "PutDestination"]
    assert all(each.new for each in done if not isinstance(each, RemoveService | RemoveDestination))
    assert list(plan(desired, actual, actual)) == []


def test_only_what_differs_is_sent() -> None:
    servers = [server(number) for number in range(1, 200)]
    actual: Actual = {}
    carry_out(Desired([pool("a", [web()], servers)]), actual)
    servers[57] = server(58, 7)
    done = carry_out(Desired([pool("a", [web()], servers)]), actual)
    assert done == [
        PutDestination(
            ServiceKey(AF_INET, 6, bytes([192, 0, 2, 1]), 80), destination_entry(server(58, 7)), new=False
        )
    ]


def test_a_changed_scheduler_edits_the_service_in_place() -> None:
    actual: Actual = {}
    carry_out(Desired([pool("a", [web()], [server(1)])]), actual)
    done = carry_out(Desired([pool("a", [web(scheduler="sh")], [server(1)])]), actual)
    assert len(done) == 1 and isinstance(done[0], PutService) and not done[0].new


def test_additions_come_before_removals_and_weight_before_none() -> None:
    actual: Actual = {}
    carry_out(Desired([pool("a", [web()], [server(1), server(2, 0)])]), actual)
    done = carry_out(Desired([pool("a", [web()], [server(3, 0), server(2, 1)])]), actual)
    last = [each.key[0][3] if isinstance(each, RemoveDestination) else _last(each) for each in done]
    assert last == [2, 3, 1]
    assert isinstance(done[-1], RemoveDestination)


def _last(done: Step) -> int:
    assert isinstance(done, PutDestination)
    return done.entry.address[3]


def test_only_our_own_services_are_removed() -> None:
    ours = ServiceEntry(ServiceKey(AF_INET, 6, bytes(4), 1), "rr")
    foreign = ServiceEntry(ServiceKey(AF_INET, 6, bytes(4), 2), "rr")
    actual: Actual = {entry.key: ActualService(entry) for entry in (ours, foreign)}
    assert carry_out(Desired(), actual, {ours.key}) == [RemoveService(ours.key)]
    assert list(actual) == [foreign.key]


def test_only_tunnels_lead_to_the_other_family() -> None:
    both = [web(), Service(6, Protocol.TCP, "2001:db8::1", port=80)]
    servers = [server(1), server(2, forwarding=TUNNEL), Destination("2001:db8::2", 80, 1, NAT)]
    actual: Actual = {}
    carry_out(Desired([pool("a", both, servers)]), actual)
    four, six = (actual[key] for key in (next(service_keys(each)) for each in both))
    assert [len(key[0]) for key in four.destinations] == [4, 4]
    assert sorted(len(key[0]) for key in six.destinations) == [4, 16]


def test_only_nat_changes_a_port() -> None:
    """A group of two ports and a mark: what is reached directly has each service's port, or none."""
    services = [web(), Service(4, Protocol.TCP, "192.0.2.1", port=81), Service(4, None, fwmark=7)]
    desired = Desired([pool("a", services, [server(1, forwarding=DR), server(2)])])
    actual: Actual = {}
    carry_out(desired, actual)
    found = [{(at[0][3], at[1]) for at in each.destinations} for each in actual.values()]
    assert found == [{(1, 80), (2, 80)}, {(1, 81), (2, 80)}, {(1, 0), (2, 80)}]
    assert list(plan(desired, actual, actual)) == []
    desired.pools["a"].put(destination_entry(server(1, 9, DR)))
    assert [each.service.port for each in plan(desired, actual, actual)] == [80, 81, 0]
    carry_out(desired, actual)
    desired.pools["a"].remove(destination_entry(server(1, forwarding=DR)).key)
    removed = carry_out(desired, actual)
    assert [each.key[1] for each in removed if isinstance(each, RemoveDestination)] == [80, 81, 0]


def test_two_servers_of_one_address_that_are_reached_directly_are_one() -> None:
    low, high = Destination("198.51.100.1", 80, 1, DR), Destination("198.51.100.1", 81, 2, DR)
    desired = Desired([pool("a", [web()], [low, high])])
    actual: Actual = {}
    carry_out(desired, actual)
    (service,) = actual.values()
    assert [(at[1], entry.weight) for at, entry in service.destinations.items()] == [(80, 2)]
    desired.pools["a"].remove(destination_entry(high).key)
    (kept,) = carry_out(desired, actual)
    assert isinstance(kept, PutDestination) and kept.entry.weight == 1


def test_a_service_in_two_pools_has_the_destinations_of_both() -> None:
    two = [pool("a", [web()], [server(1), server(2)]), pool("b", [web()], [server(2, 5), server(3)])]
    actual: Actual = {}
    desired = Desired(two)
    carry_out(desired, actual)
    (service,) = actual.values()
    weights = {key[0][3]: entry.weight for key, entry in service.destinations.items()}
    assert weights == {1: 1, 2: 5, 3: 1}
    # One pool gives a server up that the other one keeps.
    del desired.pools["b"].destinations[destination_entry(server(2)).key]
    change = Change(service.entry.key, destination_entry(server(2)).key)
    kept = step(desired, actual, change)
    assert isinstance(kept, PutDestination) and kept.entry.weight == 1


def test_of_a_service_in_two_pools_the_settings_of_the_first_hold() -> None:
    first = web(scheduler="lc", persistence_timeout=50)
    desired = Desired([pool("a", [first], [server(1)]), pool("b", [web()], [server(2)])])
    (entry,) = desired.services.values()
    assert (entry.scheduler, entry.timeout) == ("lc", 50)


def test_a_change_that_somebody_else_has_overtaken_asks_for_nothing() -> None:
    desired = Desired([pool("a", [web()], [server(1)])])
    key, at = next(iter(desired.services)), destination_entry(server(1)).key
    assert step(desired, {}, Change(key, at)) is None, "its service is not there"
    assert step(Desired(), {}, Change(key)) is None, "gone already"
    actual: Actual = {}
    carry_out(desired, actual)
    assert step(desired, actual, Change(key, at)) is None
    assert step(desired, actual, Change(key)) is None


# Every prefix is safe

_server = st.builds(server, st.integers(1, 5), st.integers(0, 2), st.sampled_from([NAT, DR, TUNNEL]))
_service = st.builds(web, st.integers(1, 3), scheduler=st.sampled_from(["rr", "wlc"]))
_pools = st.lists(
    st.tuples(
        st.lists(_service, min_size=1, max_size=2, unique_by=lambda each: each.address),
        st.lists(_server, max_size=5, unique_by=lambda each: each.key),
    ),
    max_size=3,
).map(lambda each: [pool(f"p{index}", *parts) for index, parts in enumerate(each)])


def usable(destinations: dict[DestinationKey, DestinationEntry]) -> bool:
    return any(entry.weight for entry in destinations.values())


@given(_pools, _pools, _pools)
def test_every_prefix_of_a_plan_is_safe(
    before: list[PoolState], wanted: list[PoolState], foreign: list[PoolState]
) -> None:
    actual: Actual = {}
    carry_out(Desired(foreign), actual)
    theirs = set(actual)
    carry_out(Desired(before), actual, set())
    owned = set(Desired(before).services) | set(Desired(wanted).services)
    desired = Desired(wanted)
    untouched = {key: dict(actual[key].destinations) for key in theirs - owned}
    usable_before = {key for key, there in actual.items() if usable(there.destinations)}
    usable_after = {key for key in desired.services if usable(desired.destinations(key))}
    before_services = {key: dict(there.destinations) for key, there in actual.items()}
    for change in list(plan(desired, actual, owned)):
        wanted_step = step(desired, actual, change)
        assert wanted_step is not None
        apply(actual, wanted_step)
        for key in usable_before & usable_after:
            assert usable(actual[key].destinations)
        for key, there in actual.items():
            allowed = set(before_services.get(key, {})) | set(desired.destinations(key))
            assert set(there.destinations) <= allowed
    assert {key: actual[key].destinations for key in untouched} == untouched
    for key, entry in desired.services.items():
        assert actual[key].entry == entry
        assert actual[key].destinations == desired.destinations(key)
    assert set(actual) == set(desired.services) | set(untouched)


@given(_pools, _pools, st.data())
def test_whoever_comes_after_a_death_in_the_middle_finishes(
    before: list[PoolState], wanted: list[PoolState], data: st.DataObject
) -> None:
    actual: Actual = {}
    carry_out(Desired(before), actual)
    desired = Desired(wanted)
    changes = list(plan(desired, actual, actual))
    for change in changes[: data.draw(st.integers(0, len(changes)))]:
        done = step(desired, actual, change)
        if done is not None:
            apply(actual, done)
    carry_out(desired, actual)
    assert list(plan(desired, actual, actual)) == []
    assert set(actual) == set(desired.services)


def test_a_pool_whose_state_is_the_very_same_is_taken_over_until_a_server_of_it_changes() -> None:
    one, two = pool("a", [web(1)], [server(1)]), pool("b", [web(2)], [server(2)])
    before = Desired((one, two))
    same = Desired((one, two), before)
    assert same.pools["a"] is before.pools["a"]
    same.pools["b"].put(destination_entry(server(2, weight=9)))
    after = Desired((pool("a", [web(1)], [server(1)]), two), same)
    assert after.pools["a"] is not same.pools["a"]
    assert after.pools["b"].destinations == Desired((two,)).pools["b"].destinations
