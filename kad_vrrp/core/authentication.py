"""Which way of authentication an instance's configuration asks for. Pure."""

from collections.abc import Callable

from kad.addresses import INET
from kad.config.model.vrrp import AuthType, VrrpInstance
from kad_vrrp.core.auth import Authenticator
from kad_vrrp.core.auth_header import AuthenticationHeader
from kad_vrrp.core.auth_trailer import SignedTrailer
from kad_vrrp.core.context import Context
from kad_vrrp.core.timers import VERSION_2


def authenticator_for(
    config: VrrpInstance,
    former: Authenticator | None,
    context: Context,
    complain: Callable[[str, str], None],
) -> Authenticator | None:
    """The present one, told of the configuration, or another if it is of another kind; None: none is needed.

    A password needs none: it is the same in every advert.
    """
    wanted: type[Authenticator] | None = None
    if config.auth_hmac is not None:
        wanted = SignedTrailer
    elif config.auth_type is AuthType.AH and config.version == VERSION_2 and config.family == INET:
        wanted = AuthenticationHeader
    if former is not None and type(former) is wanted:
        former.configure(config)
        return former
    if former is not None:
        former.forget()
    if wanted is SignedTrailer:
        return SignedTrailer(config, context, complain)
    return None if wanted is None else AuthenticationHeader(config, context)
