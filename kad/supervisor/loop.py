"""From the options to the daemon's exit status: locks, imports, shared memory, then the supervisor's loop."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping

import kad
from kad.errors import ExitStatus, in_words
from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.journal import Journal
from kad.runtime.pidfile import PidFile, PidFileInUse, pid_file_path
from kad.runtime.process import Options, become_subreaper, raise_nofile_limit, set_title
from kad.runtime.rundir import RunDirectory, RunDirectoryInUse
from kad.runtime.systemd import ServiceManager
from kad.supervisor import signals
from kad.supervisor.daemonise import Starter, daemonise
from kad.supervisor.spawn import ENTRIES, Mains
from kad.supervisor.supervisor import Supervisor

SECOND_DAEMON = "stop that one, or give this one -p, -r, -c, -b and --run-dir of its own"


def run(options: Options, entries: Mapping[Role, str] = ENTRIES) -> int:
    """Be the daemon. Returns its exit status when everything has stopped.

    ``kad.supervisor.signals.block`` should have been called first thing in the process: only what comes
    before that can kill the daemon.
    """
    signals.block()
    os.umask(options.umask_with(None))
    starter = Starter(quiet=options.log_console) if options.foreground else daemonise()
    logs.open(None, options, direct=True)
    logs.info(f"Starting kad v{kad.__version__}")
    try:
        status = _supervise(options, entries, starter)
    except (RunDirectoryInUse, PidFileInUse, OSError) as error:
        text = in_words(error)
        if not isinstance(error, OSError):
            text += f" ({SECOND_DAEMON})"
        logs.error(text)
        starter.tell(ExitStatus.FATAL, text)
        status = ExitStatus.FATAL
    except Exception as error:  # noqa: BLE001 (the last frame: the children withdraw when we are gone)
        for line in "".join(traceback.format_exception(error)).splitlines():
            logs.error(line)
        starter.tell(ExitStatus.SOFTWARE, repr(error))
        status = ExitStatus.SOFTWARE
    logs.info(f"Stopped kad v{kad.__version__}")
    logs.close()
    return int(status)


def _supervise(options: Options, entries: Mapping[Role, str], starter: Starter) -> int:
    pid_file = PidFile.acquire(pid_file_path(options, None))
    # Exporters look for a process whose command line begins with keepalived.
    title = "kad: supervisor" if options.program == "kad" else f"{options.program} (kad: supervisor)"
    set_title(title, options.program)
    try:
        pid_file.write(os.getpid())
    except OSError as error:
        # A full disk: the lock holds all the same.
        logs.warning(f"pid file {pid_file.path}: {in_words(error)}")
    try:
        run_directory = RunDirectory.acquire(options)
    except BaseException:
        pid_file.remove()
        raise
    manager = ServiceManager.from_environment()
    if not options.foreground:
        manager.main_pid(os.getpid())
    raise_nofile_limit()
    become_subreaper()
    journal = Journal.create()
    mains = Mains(_wanted(options, entries))
    queue = signals.SignalQueue()
    return Supervisor(options, mains, run_directory, pid_file, journal, queue, manager, starter).run()


def _wanted(options: Options, entries: Mapping[Role, str]) -> dict[Role, str]:
    """The roles that may ever run: those -P, -C and -B leave out need not be in memory."""
    left_out = {
        Role.VRRP: not options.run_vrrp,
        Role.CHECK: not options.run_check,
        Role.BFD: not options.run_bfd,
    }
    return {role: entry for role, entry in entries.items() if not left_out.get(role)}
