"""What the BFD process leaves for its next life."""

from __future__ import annotations

import socket

from kad.ipc.messages import Role
from kad.runtime.clock import monotonic_us
from kad.runtime.journal import Area, Journal
from kad_bfd.core.actions import Remember
from kad_bfd.io.shell import Shell

SO_TIMESTAMPNS = 35


def test_a_record_is_never_older_than_the_last_sign_of_life() -> None:
    """Killed in the turn in which a session came up, after a long sleep: the session is still up."""
    journal = Journal.create({role: Area(4, 512) for role in Role})
    heartbeat, records = journal.heartbeat(Role.BFD), journal.records(Role.BFD)
    heartbeat.tick(monotonic_us() - 300_000)
    shell = Shell(records, on_stopped=lambda: None, longest_patience_us=lambda: 0, is_alive=heartbeat.tick)
    before_us = monotonic_us()
    shell.perform(Remember("peer", b"record"))
    assert records.load() == {"peer": b"record"}
    assert heartbeat.ticked_at_us >= before_us


def test_the_kernel_stamps_packets_from_its_birth_on() -> None:
    """It begins a while after it is asked to: not when the first packet may be there already."""
    journal = Journal.create({role: Area(4, 512) for role in Role})
    shell = Shell(
        journal.records(Role.BFD),
        on_stopped=lambda: None,
        longest_patience_us=lambda: 0,
        is_alive=journal.heartbeat(Role.BFD).tick,
    )
    with shell._stamping as asking:
        assert asking.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS)
