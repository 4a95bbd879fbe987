"""Which services are ours, over lives of the check child."""

from kad.config.model.check import Protocol
from kad.kernel.ipvs import Timeouts
from kad_check.core.ipvs_plan import service_keys
from kad_check.core.ipvs_state import PoolState, Service
from kad_check.io.ipvs_record import PREFIX, General, OwnServices
from tests.support.ipvs_shell import Memory


def web(last: int, **settings: object) -> Service:
    return Service(4, Protocol.TCP, f"192.0.2.{last}", port=80, **settings)  # type: ignore[arg-type]


def pool(name: str, *services: Service) -> PoolState:
    return PoolState(name, services, ())


def test_a_claim_holds_until_the_next_settlement() -> None:
    memory = Memory()
    own = OwnServices(memory, {})
    own.claim([pool("a", web(1)), pool("b", web(2))])
    own.claim([pool("a", web(3))])
    everything = {key for last in (1, 2, 3) for key in service_keys(web(last))}
    assert set(OwnServices(memory, dict(memory)).service_keys()) == everything, "killed in between"
    own.settle([pool("a", web(3))])
    assert set(own.service_keys()) == set(service_keys(web(3)))
    assert set(OwnServices(memory, dict(memory)).service_keys()) == set(service_keys(web(3)))


def test_settings_are_no_part_of_whose_it_is() -> None:
    memory = Memory()
    own = OwnServices(memory, {})
    own.claim([pool("a", web(1))])
    before = dict(memory)
    own.claim([pool("a", web(1, scheduler="rr", persistence_timeout=9))])
    assert memory == before


def test_a_range_takes_no_more_room_than_an_address() -> None:
    memory = Memory()
    own = OwnServices(memory, {})
    own.claim([pool("a", Service(6, Protocol.TCP, "2001:db8::", "2001:db8::ffff", 80))])
    assert sum(map(len, memory.values())) < 500
    assert sum(1 for _ in OwnServices(memory, dict(memory)).service_keys()) == 65536


def test_the_first_life_is_told_from_later_ones() -> None:
    memory = Memory({"other": b"a record of the engine's"})
    own = OwnServices(memory, dict(memory))
    assert own.is_first_life
    own.claim([])
    assert not OwnServices(memory, dict(memory)).is_first_life
    own.settle([])
    assert memory["other"] == b"a record of the engine's"
    own.set_general(General(timeouts_before=Timeouts(900, 120, 300)))
    assert OwnServices(memory, dict(memory)).general.timeouts_before == Timeouts(900, 120, 300)


def test_long_names_and_names_alike_have_records_of_their_own() -> None:
    memory = Memory()
    own = OwnServices(memory, {})
    own.claim([pool("x" * 1000 + end, web(number)) for number, end in enumerate("ab", 1)])
    assert len([key for key in memory if key.startswith(PREFIX)]) == 3
    assert all(len(key) < 100 for key in memory)


def test_a_record_that_does_not_decode_is_as_if_not_there() -> None:
    memory = Memory({PREFIX + "00": b"\xc1garbage", PREFIX + "general": b"\x93"})
    own = OwnServices(memory, dict(memory))
    assert list(own.service_keys()) == []
    assert memory == {}


def test_a_full_journal_is_counted() -> None:
    class Full(Memory):
        def write(self, key: str, value: bytes) -> bool:
            return False

    own = OwnServices(Full(), {})
    own.claim([pool("a", web(1))])
    assert own.refused == 2
    assert set(own.service_keys()) == set(service_keys(web(1))), "this life knows all the same"
