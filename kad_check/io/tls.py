"""TLS as a health check wants it: whether it can be spoken, not whether anybody should be trusted."""

from __future__ import annotations

import ssl
import warnings

from kad.config.model.check import SslContext

_IGNORE_UNEXPECTED_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
_LEGACY_SERVER_CONNECT = getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0)


def client_context(settings: SslContext | None) -> ssl.SSLContext:
    """No verification, as keepalived's; every version and cipher that this OpenSSL still knows.

    ``settings``: the SSL block, what is presented to servers. Raises OSError (ssl.SSLError is one) or
    ValueError for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A server that cannot do better is up all the same, and closing without a goodbye is common.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.options |= _IGNORE_UNEXPECTED_EOF | _LEGACY_SERVER_CONNECT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    if settings is not None:
        if settings.ca_file:
            context.load_verify_locations(cafile=settings.ca_file)
        if settings.certificate_file:
            # A password is always given: without one OpenSSL would ask on the terminal.
            context.load_cert_chain(
                settings.certificate_file, settings.key_file or None, password=settings.password
            )
    return context
