"""A whole configuration, as every process's part of it."""

from msgspec import Struct

from kad.config.model.bfd import BfdConfiguration
from kad.config.model.check import CheckConfiguration
from kad.config.model.globals import Globals
from kad.config.model.vrrp import VrrpConfiguration


class Config(Struct, frozen=True):
    globals: Globals = Globals()
    vrrp: VrrpConfiguration = VrrpConfiguration()
    check: CheckConfiguration = CheckConfiguration()
    bfd: BfdConfiguration = BfdConfiguration()
