"""From what was read to what may run: the judgement, and the generation made of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from kad.config.diagnostics import render
from kad.config.diff import new_errors
from kad.config.model.globals import Globals
from kad.config.slices import roles, slices, supervisor_settings
from kad.control.dump import dump
from kad.errors import Diagnostic, ExitStatus, Severity
from kad.ipc.messages import Generation, Role

if TYPE_CHECKING:
    from kad.config.load import Loaded
    from kad.config.model.config import Config
    from kad.config.transcript import Transcript
    from kad.runtime.process import Options

SHOWN_LIMIT = 200
"""Findings shown to whoever asked for a reload; the log has them all."""

NO_CONFIGURATION = 6
"""keepalived's status when there is no file to read."""
BAD_CONFIGURATION = 2
"""keepalived's status when a child cannot run what was read."""

FORMER_LIMIT = 16
"""Generations whose errors are remembered, beside the first."""
FORMER_ERRORS_LIMIT = 4096
"""Errors remembered of them all; then the oldest go, but the first's and the latest's."""

_FIXED = "fixed"
GLOBALS = "globals"
"""Names of control's own objects."""


class Fixed(Struct, frozen=True):
    """What a reload cannot change, since names of files, sockets and tables hang on it."""

    net_namespace: str = ""
    net_namespace_ipvs: str | None = None
    instance: str = ""
    nftables: str = ""
    nftables_ipvs: str = ""
    tmp_config_directory: str = ""
    disable_local_igmp: bool = False


_NOTHING = Diagnostic(
    Severity.WARNING,
    "nothing-to-run",
    "nothing to run: no vrrp_instance, no virtual_server, no bfd_instance; what ran is taken away",
)
_globals_decoder = msgspec.msgpack.Decoder(Globals)
_fixed_decoder = msgspec.msgpack.Decoder(Fixed)


class Candidate(Struct, frozen=True):
    """A reading that was judged. ``generation`` None: it cannot run, see ``refusal``."""

    generation: Generation | None
    refusal: str = ""
    exit_status: int = 0
    """The daemon's, when this was its first load."""
    shown: str = ""
    """For whoever asked: the findings that are news, and those about this machine."""
    diagnostics: tuple[Diagnostic, ...] = ()
    dump: tuple[str, ...] = ()
    """``-d``: the configuration, for the log."""
    digest: str = ""
    """Of the files read; "" where they could not be."""
    transcript: Transcript | None = None
    save_directory: str = ""
    """Its config_save_dir, whether it can run or not."""

    def is_text_of(self, running: Generation | None) -> bool:
        """It says what runs already. It may be refused all the same: by a test, or because a child died."""
        return running is not None and self.digest == running.source_digest


def globals_of(generation: Generation | None) -> Globals:
    """global_defs of what runs."""
    encoded = generation.slices.get(Role.CONTROL, {}).get(GLOBALS) if generation is not None else None
    return Globals() if encoded is None else _globals_decoder.decode(encoded)


def judge(loaded: Loaded, options: Options, running: Generation | None, *, force: bool = False) -> Candidate:
    """May this run? ``running`` None: it is the first load, which tolerates what keepalived tolerates."""
    fatal = [finding for finding in loaded.diagnostics if _prevents(finding)]
    if fatal:
        return Candidate(
            None,
            _first_line(fatal[0]),
            daemon_status(fatal[0]),
            _shown(fatal),
            loaded.diagnostics,
            digest=loaded.digest,
        )
    news = new_errors(loaded, _accepted(running))
    refusal = _refusal(loaded.config, running, news, force=force)
    if not refusal and not force and running is not None:
        refusal = _failed_test(loaded, running)
    generation = None if refusal else make_generation(loaded, options, running)
    status = BAD_CONFIGURATION if refusal else 0
    dumped = dump(loaded.config) if options.dump_configuration else ()
    findings = loaded.diagnostics + loaded.dormant
    machine = [finding for finding in loaded.diagnostics if finding.machine]
    if running is not None and running.roles and generation is not None and not generation.roles:
        findings += (_NOTHING,)
        machine.append(_NOTHING)
    shown = _shown([*news, *machine])
    return Candidate(generation, refusal, status, shown, findings, dumped, loaded.digest)


def make_generation(loaded: Loaded, options: Options, running: Generation | None) -> Generation:
    """The next generation, complete."""
    config = loaded.config
    wanted = wanted_roles(roles(config), options)
    parts = slices(_with_one_reader(config, wanted))
    kept: dict[Role, dict[str, bytes]] = {role: parts.get(role, {}) for role in wanted}
    kept[Role.CONTROL] = {
        _FIXED: msgspec.msgpack.encode(fixed_of(config)),
        GLOBALS: msgspec.msgpack.encode(config.globals),
    }
    return Generation(
        number=running.number + 1 if running is not None else 1,
        source_digest=loaded.digest,
        slices=kept,
        accepted_errors=loaded.error_identities,
        formerly_accepted=remembered_errors(running),
        roles=wanted,
        settings=supervisor_settings(config),
    )


def remembered_errors(running: Generation | None) -> tuple[tuple[str, ...], ...]:
    """What the next generation knows of those before it: errors that ran once refuse no reload."""
    if running is None:
        return ()
    former, latest = list(running.formerly_accepted), running.accepted_errors
    if latest and latest not in former[:1]:
        former = former[:1] + [each for each in former[1:] if each != latest] + [latest]
    if len(former) > FORMER_LIMIT + 1:
        del former[1]
    while len(former) > 2 and sum(map(len, former)) > FORMER_ERRORS_LIMIT:
        del former[1]
    return tuple(former)


def _accepted(running: Generation | None) -> list[str]:
    known = (running.accepted_errors, *running.formerly_accepted) if running is not None else ()
    return [identity for each in known for identity in each]


def _with_one_reader(config: Config, wanted: Sequence[Role]) -> Config:
    """The common pipe's reader is started by the check child if there is one, as in keepalived."""
    if Role.CHECK not in wanted or config.globals.notify_fifo_script is None:
        return config
    settings = msgspec.structs.replace(config.vrrp.settings, notify_fifo_script=None)
    return msgspec.structs.replace(config, vrrp=msgspec.structs.replace(config.vrrp, settings=settings))


def wanted_roles(needed: Sequence[Role], options: Options) -> tuple[Role, ...]:
    """The children to run: those needed, or all with --all, without those left out (-P, -C, -B)."""
    left_out = {
        Role.VRRP: not options.run_vrrp,
        Role.CHECK: not options.run_check,
        Role.BFD: not options.run_bfd,
    }
    every = (Role.CHECK, Role.VRRP, Role.BFD)
    return tuple(role for role in every if (options.run_all or role in needed) and not left_out[role])


def fixed_of(config: Config) -> Fixed:
    settings = config.globals
    return Fixed(
        net_namespace=settings.net_namespace,
        net_namespace_ipvs=settings.net_namespace_ipvs,
        instance=settings.instance,
        nftables=settings.firewall.nftables,
        nftables_ipvs=settings.firewall.ipvs_nftables,
        tmp_config_directory=settings.reloading.tmp_config_directory,
        disable_local_igmp=settings.disable_local_igmp,
    )


def daemon_status(finding: Diagnostic) -> int:
    """What the daemon exits with for it; ``kad -t`` has numbers of its own."""
    no_file = finding.code in ("configuration-missing", "configuration-unreadable")
    return NO_CONFIGURATION if no_file else BAD_CONFIGURATION


def _prevents(finding: Diagnostic) -> bool:
    """keepalived does not run a keyword without its argument either (exit status 2)."""
    return not finding.machine and (
        finding.severity is Severity.FATAL or finding.exit_status == ExitStatus.MISSING_ARGUMENT
    )


def _refusal(config: Config, running: Generation | None, news: Sequence[Diagnostic], *, force: bool) -> str:
    if running is None:
        return ""
    changed = _fixed_changes(config, running)
    if changed:
        return f"{', '.join(changed)} cannot change while kad runs: restart it"
    # Where nothing runs there is nothing to protect: it is judged as at a start.
    if news and not force and running.roles:
        count = "a new error" if len(news) == 1 else f"{len(news)} new errors"
        return f"{count} in the text: {_first_line(news[0])}"
    return ""


def _failed_test(loaded: Loaded, running: Generation) -> str:
    """reload_check_config: what the test of a configuration would not call good is not run."""
    if not loaded.exit_status or not globals_of(running).reloading.check_config:
        return ""
    return f"reload_check_config is set, and a test of the configuration answers {loaded.exit_status}"


def _fixed_changes(config: Config, running: Generation) -> list[str]:
    data = running.slices.get(Role.CONTROL, {}).get(_FIXED)
    if data is None:
        return []
    before, after = _fixed_decoder.decode(data), fixed_of(config)
    # keepalived ignores ``instance`` at a reload; a changed name would leave files under the old one.
    return [name for name in Fixed.__struct_fields__ if getattr(before, name) != getattr(after, name)]


def _first_line(finding: Diagnostic) -> str:
    return render(finding).partition("\n")[0]


def _shown(findings: Sequence[Diagnostic]) -> str:
    lines = [render(finding) for finding in findings[:SHOWN_LIMIT]]
    if len(findings) > SHOWN_LIMIT:
        lines.append(f"and {len(findings) - SHOWN_LIMIT} more, in the log")
    return "\n".join(lines)
