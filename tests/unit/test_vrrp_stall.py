"""After standing still: what arrived is read first, what is stale counts for nothing, then it is decided."""

import pytest

from kad.config.model.vrrp import UnicastPeer
from kad_vrrp.core.advertiser import Adverts
from kad_vrrp.core.events import AdvertDelayed, AdvertReceived, TimeReached
from tests.support.vrrp_host import SECOND, instance
from tests.support.vrrp_playbook import Playbook

ADVERT_US = 100_000
CONFIG = instance(priority=100, advert_int_us=ADVERT_US)
DOWN_US = 3 * ADVERT_US + 156 * ADVERT_US // 256
SKEW_US = 156 * ADVERT_US // 256


def advert(priority: int, source: str = "10.0.0.2") -> AdvertReceived:
    data = Adverts(CONFIG, source, 1, old_checksum=False).of(priority)[0].data
    return AdvertReceived(1, data, source)


def hear_late(book: Playbook, priority: int, age_us: int) -> None:
    book.tell(AdvertDelayed(advert(priority), age_us))


def backup() -> Playbook:
    book = Playbook(CONFIG).start()
    book.hear(200)
    book.lines()
    return book


def test_a_backup_s_patience_begins_when_the_advert_arrived() -> None:
    book = backup()
    book.now_us += 3 * SECOND
    for age_us in (600_000, 400_000, 200_000):
        hear_late(book, 200, age_us)
    assert book.engine.deadline_us == book.now_us - 200_000 + DOWN_US
    assert book.engine.report().instances[0].drops == {"stale": 2}
    assert book.lines() == []


def test_stale_adverts_keep_no_dead_master_alive() -> None:
    book = backup()
    book.now_us += 10 * SECOND
    for age_us in range(9_900_000, 9_000_000, -ADVERT_US):
        hear_late(book, 200, age_us)
    book.tell(TimeReached())
    assert book.state() == "BACKUP", "it listens once more"
    assert book.engine.deadline_us == book.now_us + ADVERT_US + SKEW_US
    book.run_for(ADVERT_US + SKEW_US)
    assert book.state() == "MASTER"


def test_a_backup_that_overslept_listens_once_more_and_hears_the_living() -> None:
    book = backup()
    book.now_us += 10 * SECOND
    book.tell(TimeReached())
    assert "woke up" in book.logs()[-1]
    book.run_for(ADVERT_US // 2)
    book.hear(200)
    book.run_for(DOWN_US - 1)
    assert book.state() == "BACKUP"
    book.run_for(1)
    assert book.state() == "MASTER"


def test_it_listens_once_and_not_for_ever() -> None:
    book = backup()
    book.now_us += 10 * SECOND
    book.tell(TimeReached())
    book.now_us += 10 * SECOND
    book.tell(TimeReached())
    assert book.state() == "MASTER"


@pytest.mark.parametrize("late_us", [0, 1000, ADVERT_US])
def test_who_is_hardly_late_does_not_wait(late_us: int) -> None:
    book = backup()
    deadline_us = book.engine.deadline_us
    assert deadline_us is not None
    book.now_us = deadline_us + late_us
    book.tell(TimeReached())
    assert book.state() == "MASTER"


def test_a_master_sends_one_advert_for_all_it_missed() -> None:
    book = Playbook(CONFIG).start_as_master()
    book.now_us += 10 * SECOND
    book.tell(TimeReached())
    assert [line for line in book.lines() if line.startswith("advert")] == ["advert 100 to 224.0.0.18"]
    assert book.engine.deadline_us is not None
    assert book.engine.deadline_us <= book.now_us + ADVERT_US
    book.run_for(10 * ADVERT_US)
    assert len([line for line in book.lines() if line.startswith("advert")]) == 10


def test_a_master_does_not_yield_to_one_that_has_been_silent_since() -> None:
    book = Playbook(CONFIG).start_as_master()
    book.now_us += 10 * SECOND
    hear_late(book, 200, 9 * SECOND)
    assert book.state() == "MASTER"
    hear_late(book, 200, DOWN_US)
    assert book.state() == "BACKUP"
    assert book.engine.deadline_us == book.now_us + DOWN_US, "its own wait begins now"


def test_a_farewell_that_lay_there_is_obeyed_from_its_arrival() -> None:
    book = backup()
    book.now_us += 300_000
    hear_late(book, 0, 200_000)
    deadline_us = book.engine.deadline_us
    assert deadline_us is not None and deadline_us <= book.now_us - 200_000 + SKEW_US


def test_what_nobody_expects_is_counted_as_ever() -> None:
    book = Playbook(CONFIG).start()
    book.tell(AdvertDelayed(AdvertReceived(1, b"\x45" + bytes(40), "10.0.0.2"), SECOND))
    assert book.engine.report().drops == {"unknown_vrid": 1}


def test_unicast_too() -> None:
    config = instance(unicast=True, unicast_peers=(UnicastPeer("10.0.0.2"),), advert_int_us=ADVERT_US)
    book = Playbook(config).start()
    book.hear(200)
    book.now_us += 10 * SECOND
    book.tell(TimeReached())
    assert book.state() == "BACKUP"
