"""The top level of a file: every part's rows together."""

from kad.config.grammar import bfd, check, globals, vrrp
from kad.config.model.globals import Globals
from kad.config.schema import ALL, Block

ROOT = Block(
    "(root)",
    (*globals.ROOT_ROWS, *vrrp.ROOT_ROWS, *check.ROOT_ROWS, *bfd.ROOT_ROWS),
    roles=ALL,
    model=Globals,
)
