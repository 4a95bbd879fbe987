"""The BFD child: takes its configuration and obeys; it opens no session so far."""

from __future__ import annotations

from kad.config.slices import decode_bfd
from kad.ipc.plain_child import PlainChild
from kad.runtime.process import ChildContext


def main(context: ChildContext) -> int:
    """The whole life of the child; its exit status."""
    notice = "BFD instances are understood, but not acted on yet: no sessions"
    return PlainChild(context, decode_bfd, notice).run()
