"""``python -m tests.support.roles OPTIONS``: the supervisor with fake roles; OPTIONS is JSON."""

from __future__ import annotations

import sys

from kad.supervisor import signals

signals.block()

import msgspec  # noqa: E402

from kad.ipc.messages import Role  # noqa: E402
from kad.runtime.process import Options  # noqa: E402
from kad.supervisor.loop import run  # noqa: E402

ENTRIES = dict.fromkeys(Role, "tests.support.roles.fake:main")

if __name__ == "__main__":
    sys.exit(run(msgspec.json.decode(sys.argv[1], type=Options), ENTRIES))
