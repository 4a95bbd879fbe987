"""The file that exists while the configuration is read."""

import os
import threading

import pytest

from kad.control.reload_files import ReloadFile

PATIENCE_S = 20


@pytest.fixture
def path(tmp_path):  # type: ignore[no-untyped-def]
    return str(tmp_path / "reload")


def create_beside(file: ReloadFile) -> bool:
    """Whether it comes back from that, in a thread that may be left behind."""
    thread = threading.Thread(target=file.create, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_it_is_there_for_everybody_and_goes(path: str) -> None:
    file = ReloadFile()
    file.configure(path)
    file.create()
    assert os.stat(path).st_mode & 0o777 == 0o644
    file.remove()
    assert not os.path.exists(path)


def test_a_fifo_in_its_place_is_not_waited_for(path: str) -> None:
    file = ReloadFile()
    file.configure(path)
    os.mkfifo(path)
    assert create_beside(file)


def test_a_fifo_that_is_read_keeps_its_mode(path: str) -> None:
    file = ReloadFile()
    file.configure(path)
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert create_beside(file)
        assert os.stat(path).st_mode & 0o777 == 0o600
    finally:
        os.close(reader)
