"""Names of a configuration, read before there is a daemon."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kad.control.names import may_name_anything, with_configured_names
from kad.runtime.process import Options


def options_for(tmp_path: Path, text: str, **given: str) -> Options:
    file = tmp_path / "kad.conf"
    file.write_text(text)
    file.chmod(0o644)
    return Options(config_file=str(file), **given)


NAMED = "instance one\nuse_pid_dir\nnet_namespace blue\n"


def test_names_are_found(tmp_path: Path) -> None:
    options = with_configured_names(options_for(tmp_path, NAMED))
    assert (options.instance, options.use_pid_dir, options.net_namespace) == ("one", True, "blue")


def test_command_line_comes_first(tmp_path: Path) -> None:
    options = with_configured_names(options_for(tmp_path, NAMED, net_namespace="red"))
    assert (options.instance, options.net_namespace) == ("one", "red")


def test_names_in_included_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text(NAMED)
    (tmp_path / "more.conf").chmod(0o644)
    options = with_configured_names(options_for(tmp_path, f"include {tmp_path}/more.conf\n"))
    assert options.instance == "one"


@pytest.mark.parametrize(
    "text", ["", "vrrp_instance VI_1 {\n virtual_router_id 3\n}\n", "vrrp_sync_group G {\n}\n"]
)
def test_most_configurations_are_not_read_twice(tmp_path: Path, text: str) -> None:
    options = options_for(tmp_path, text)
    assert not may_name_anything(options.config_file)
    assert with_configured_names(options) is options


@pytest.mark.parametrize("text", ["instance\n", "net_namespace\n", "\x00instance {{{{", "$X = instance"])
def test_broken_configurations_name_nothing(tmp_path: Path, text: str) -> None:
    options = with_configured_names(options_for(tmp_path, text))
    assert (options.instance, options.net_namespace, options.use_pid_dir) == ("", "", False)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o644)
    options = Options(config_file=str(tmp_path / "fifo"))
    signal.alarm(20)
    try:
        assert with_configured_names(options).instance == ""
    finally:
        signal.alarm(0)


def test_missing_file_names_nothing(tmp_path: Path) -> None:
    options = Options(config_file=str(tmp_path / "none"))
    assert with_configured_names(options).instance == ""
