"""The files of an SSL block: what is presented to servers.

Imported where there is such a block, or TLS is spoken: OpenSSL is a lot to load.
"""

from __future__ import annotations

import ssl

from kad.config.model.check import SslContext

WITHOUT_KEY = (
    "the certificate of the SSL block is not presented: no key for it is configured, nor in its file"
)


def load_files(context: ssl.SSLContext, settings: SslContext) -> str:
    """Have them presented; returns a complaint, or "". Raises OSError (ssl.SSLError is one) or ValueError for
    files that cannot be used."""
    if settings.ca_file:
        context.load_verify_locations(cafile=settings.ca_file)
    if not settings.certificate_file:
        return ""
    try:
        # A password is always given: without one OpenSSL would ask on the terminal.
        context.load_cert_chain(
            settings.certificate_file, settings.key_file or None, password=settings.password
        )
    except ssl.SSLError:
        if settings.key_file or not _has_certificate(settings.certificate_file):
            raise
        # As with keepalived, which looks for a key in no other file than that of 'key'.
        return WITHOUT_KEY
    return ""


def _has_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return False
    return True
