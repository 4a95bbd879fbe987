"""The health checker: takes its configuration and obeys; it checks nothing and leaves IPVS alone so far."""

from __future__ import annotations

from kad.config.slices import decode_check
from kad.ipc.plain_child import PlainChild
from kad.runtime.process import ChildContext


def main(context: ChildContext) -> int:
    """The whole life of the child; its exit status."""
    notice = "virtual servers are understood, but not acted on yet: no checks, no IPVS"
    return PlainChild(context, decode_check, notice).run()
