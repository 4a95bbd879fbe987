"""The words of the command line mean what they mean to keepalived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.command_line import OPTIONS, CommandLine, Mode, Takes, parse, usage
from kad.runtime.process import Options

PLAIN = {
    "-P": {"run_check": False},
    "-C": {"run_vrrp": False},
    "-B": {"run_bfd": False},
    "-l": {"log_console": True},
    "-D": {"log_detail": 1},
    "-G": {"log_syslog": False},
    "-X": {"release_vips": True},
    "-V": {"keep_vips_at_stop": True},
    "-I": {"keep_ipvs_at_stop": True},
    "-R": {"respawn": False},
    "-n": {"foreground": True},
    "-d": {"dump_configuration": True},
    "-a": {"log_address_changes": True},
    "-e": {"include_all": True},
    "--ignore-sigint": {"ignore_sigint": True},
    "--all": {"run_all": True, "run_vrrp": True, "run_check": True, "run_bfd": True},
}

WITH_VALUE = {
    "-f": ("--use-file", "config_file"),
    "-i": ("--config-id", "config_id"),
    "-s": ("--namespace", "net_namespace"),
    "-p": ("--pid", "pid_file"),
    "-r": ("--vrrp_pid", "vrrp_pid_file"),
    "-c": ("--checkers_pid", "checkers_pid_file"),
    "-b": ("--bfd_pid", "bfd_pid_file"),
}


def good(*words: str) -> CommandLine:
    line = parse(words)
    assert not line.errors
    return line


@pytest.mark.parametrize(("word", "values"), PLAIN.items())
def test_options_without_a_value(word: str, values: dict[str, object]) -> None:
    assert good(word).values == values


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_letter_and_name_are_the_same_option(option) -> None:
    value = ["7"] if option.takes is Takes.VALUE else []
    words = ([f"--{option.name}", *value], [f"-{option.letter}", *value] if option.letter else None)
    lines = [parse(each) for each in words if each]
    assert not lines[0].errors
    for line in lines:
        assert (line.values, line.mode) == (lines[0].values, lines[0].mode)


def test_every_field_is_one_of_the_options() -> None:
    fields = {name for option in OPTIONS for name, _ in option.sets}
    fields |= {option.field for option in OPTIONS if option.field}
    fields |= {"log_detail", "log_facility", "log_file", "umask"}
    assert fields <= set(Options.__struct_fields__)


@pytest.mark.parametrize(("letter", "name", "field"), [(k, *v) for k, v in WITH_VALUE.items()])
def test_options_with_a_value_in_every_spelling(letter: str, name: str, field: str) -> None:
    for words in ([letter, "x/y"], [f"{letter}x/y"], [name, "x/y"], [f"{name}=x/y"]):
        assert good(*words).values == {field: "x/y"}


def test_no_two_options_share_a_letter_or_name() -> None:
    letters = [option.letter for option in OPTIONS if option.letter]
    names = [option.name for option in OPTIONS]
    assert len(set(letters)) == len(letters)
    assert len(set(names)) == len(names)


def test_clusters_and_a_value_at_their_end() -> None:
    line = good("-nlDDf", "a.conf")
    assert line.values == {
        "foreground": True,
        "log_console": True,
        "log_detail": 2,
        "config_file": "a.conf",
    }
    assert line.paths == {"config_file"}


def test_long_names_may_be_shortened_while_one_is_meant() -> None:
    assert good("--use", "a").values == {"config_file": "a"}
    assert good("--log-d").values == {"log_detail": 1}
    # log-console, log-detail, log-facility and log-file begin like this.
    assert parse(["--log"]).errors == ["Unknown option --log"]
    # A whole name counts, though others begin with it.
    assert good("--check").values == {"run_vrrp": False}


@pytest.mark.parametrize("words", [["-q"], ["--what"], ["--vrrp=3"], ["-nq"], ["--"], ["-"]])
def test_unknown_options_fail(words: list[str]) -> None:
    unknown = words[0] not in ("--", "-")
    assert bool(parse(words).errors) == unknown


@pytest.mark.parametrize("words", [["-f"], ["--use-file"], ["--use-file="], ["-n", "-p"], ["--signum"]])
def test_missing_values_fail(words: list[str]) -> None:
    assert parse(words).errors[0].startswith("Missing parameter for option -")


def test_everything_unknown_is_said() -> None:
    assert parse(["-q", "--what", "-n"]).errors == ["Unknown option -q", "Unknown option --what"]


def test_stray_arguments_are_let_be_wherever_they_stand() -> None:
    line = good("one", "-n", "two", "--", "-f", "three")
    assert line.values == {"foreground": True}
    assert line.strays == ["one", "two", "-f", "three"]


def test_the_last_word_on_a_matter_counts() -> None:
    assert good("-P", "--all").values["run_check"] is True
    assert good("--all", "-P").values["run_check"] is False
    assert good("-f", "a", "-f", "b").values == {"config_file": "b"}


@pytest.mark.parametrize(
    ("words", "log"),
    [(["-t"], ""), (["-tLOG"], "LOG"), (["--config-test"], ""), (["--config-test=LOG"], "LOG")],
)
def test_configuration_test(words: list[str], log: str) -> None:
    line = good(*words, "--offline", "stray")
    assert (line.mode, line.test_log, line.offline, line.strays) == (Mode.TEST, log, True, ["stray"])


@pytest.mark.parametrize("word", ["0", "7", "local0", "local7", "user", "daemon"])
def test_log_facilities(word: str) -> None:
    assert good("-S", word).values == {"log_facility": word}


@pytest.mark.parametrize("word", ["8", "local8", "mail", "", "LOCAL0"])
def test_invalid_log_facility_is_said_and_not_fatal(word: str) -> None:
    line = parse([f"-S{word}"] if word else ["--log-facility", "nothing"])
    assert not line.values
    assert not line.errors
    assert line.warnings[0].startswith("Invalid log facility")


@pytest.mark.parametrize(
    ("text", "value"), [("022", 0o22), ("0x12", 0x12), ("18", 18), ("0", 0), ("0777", 0o777)]
)
def test_umask_is_a_number_as_c_writes_it(text: str, value: int) -> None:
    assert good("-u", text).values == {"umask": value}


@pytest.mark.parametrize("text", ["08", "-1", "1000", "01000", "x", "1.5"])
def test_impossible_umask_is_said(text: str) -> None:
    line = parse([f"--umask={text}"])
    assert not line.values
    assert line.warnings == [f"Invalid umask '{text}'"]


def test_log_file_lives_in_the_temporary_directory_unless_it_says_where() -> None:
    assert parse(["-g"], "/var/tmp").values == {"log_file": "/var/tmp/keepalived.log"}
    assert parse(["-gx.log"], "/var/tmp").values == {"log_file": "/var/tmp/x.log"}
    assert parse(["--log-file=/a/x.log"], "/var/tmp").values == {"log_file": "/a/x.log"}


def test_what_does_nothing_yet_is_said() -> None:
    line = good("-x", "-A", "sock", "-m", "--debug=Tp")
    assert len(line.not_acting) == 4
    assert not line.values
    assert all("does nothing" in text for text in line.not_acting)


@pytest.mark.parametrize(("word", "mode"), [("-v", Mode.VERSION), ("-h", Mode.HELP), ("-T", Mode.GENHASH)])
def test_options_that_act_at_once(word: str, mode: Mode) -> None:
    line = parse([word, "--nonsense"])
    assert (line.mode, line.errors) == (mode, [])


def test_usage_shows_every_option_within_a_terminal() -> None:
    text = usage("kad")
    for option in OPTIONS:
        assert f"--{option.name}" in text
    assert max(map(len, text.splitlines())) <= 100
    groups = [line for line in text.splitlines()[1:] if line.endswith(":")]
    assert len(groups) == len(set(groups)), "each group stands once"


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    line = parse(words)
    known = Options(**line.values)
    assert isinstance(known, Options)
