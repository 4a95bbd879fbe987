"""``genhash``: fetches a page as HTTP_GET does and prints the digest that the configuration wants.

A program of its own, options and output as keepalived's. The page is read within a check's limits, and
the digest is of its body as it came.
"""

from __future__ import annotations

import getopt
import socket
import ssl
import struct
import sys
from collections.abc import Iterator, Sequence
from hashlib import md5
from typing import Literal, NoReturn

from msgspec import Struct
from msgspec.structs import replace

from kad.addresses import parse_address
from kad.config.model.check import Connection, HttpGet, Schedule, Url
from kad.config.numbers import whole_number
from kad.runtime.clock import monotonic_us
from kad_check.core.dialogues.http import request_of
from kad_check.core.dialogues.http_response import (
    BODY_LIMIT,
    HEADER_LIMIT,
    HttpResponse,
    MalformedChunkError,
    MalformedResponseError,
)
from kad_check.io.tls import client_context

FAILURE = 1
READ_SIZE = 64 * 1024
_MILLION = 1_000_000
_MANDATORY = frozenset({"server", "port", "url"})
_LETTERS = "hTvSIs:H:V:p:u:m:P:t:"
_NAMES = {
    "help": "h",
    "genhash": "T",
    "verbose": "v",
    "use-ssl": "S",
    "use-sni": "I",
    "server=": "s",
    "hash=": "H",
    "use-virtualhost=": "V",
    "port=": "p",
    "url=": "u",
    "fwmark=": "m",
    "protocol=": "P",
    "timeout=": "t",
}
_USAGE = """Usage: genhash -s ADDRESS -p PORT -u URL [OPTION...]
  -s, --server=ADDRESS        address of the server
  -p, --port=PORT             its port
  -u, --url=URL               path of the page
  -S, --use-ssl               speak TLS
  -I, --use-sni               say the virtual host in the TLS handshake
  -V, --use-virtualhost=NAME  virtual host to ask for (default: address and port)
  -P, --protocol=VERSION      1.0 (default), 1.0c (with Connection: close) or 1.1
  -m, --fwmark=MARK           mark of the packets
  -t, --timeout=SECONDS       limit of the whole request (default: none)
  -H, --hash=NAME             accepted; the digest is always MD5
  -v, --verbose               show what was received
  -h, --help                  show this"""

Protocol = Literal["1.0", "1.0C", "1.1"]
_PROTOCOLS: dict[str, Protocol] = {"1.0": "1.0", "1.0c": "1.0C", "1.0C": "1.0C", "1.1": "1.1"}


class UsageError(Exception):
    """The command line cannot be followed; the text says why, empty: only how to write it."""


class FetchError(Exception):
    """There is no page; the text says why."""


class Order(Struct, frozen=True):
    """What the command line asks for. ``timeout_us`` 0: no limit."""

    server: str = ""
    port: int = 0
    url: str = ""
    ssl: bool = False
    sni: bool = False
    virtualhost: str = ""
    protocol: Protocol = "1.0"
    fwmark: int = 0
    timeout_us: int = 0
    verbose: bool = False


class Page(Struct, frozen=True):
    header: bytes
    body: bytes
    took_us: int


def command() -> NoReturn:
    """The program ``genhash``."""
    sys.exit(main(sys.argv[1:]))


def main(words: Sequence[str]) -> int:
    """Returns the exit status: 0, or 1 with a reason on stderr (keepalived: 0 where there is no page)."""
    try:
        order = order_of(words)
    except UsageError as error:
        print(*filter(None, (str(error), _USAGE)), sep="\n", file=sys.stderr)
        return FAILURE
    try:
        page = fetch(order)
    except FetchError as error:
        print(f"Connection failed: {error}", file=sys.stderr)
        return FAILURE
    print(*(report(page, order.url) if order.verbose else (md5(page.body).hexdigest(),)), sep="\n")
    return 0


def order_of(words: Sequence[str]) -> Order:
    """Raises UsageError."""
    try:
        options, strays = getopt.gnu_getopt(list(words), _LETTERS, list(_NAMES))
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    if strays:
        raise UsageError(f"Unexpected argument(s): {' '.join(strays)}")
    long_names = {f"--{name.rstrip('=')}": letter for name, letter in _NAMES.items()}
    order, given = Order(), set()
    for name, value in options:
        field, content = _read_option(long_names.get(name, name[1:]), value)
        if field:
            order = replace(order, **{field: content})
            given.add(field)
    if not given >= _MANDATORY:
        raise UsageError
    return order


def _read_option(letter: str, value: str) -> tuple[str, object]:
    """(field, value); no field: nothing comes of it. Raises UsageError."""
    match letter:
        case "h":
            raise UsageError
        case "v" | "S" | "I":
            return {"v": "verbose", "S": "ssl", "I": "sni"}[letter], True
        case "s":
            address = parse_address(value)
            if not address:
                raise UsageError(f"server should be an IP, not {value}")
            return "server", address
        case "V" | "u":
            return {"V": "virtualhost", "u": "url"}[letter], value
        case "p":
            return "port", _number(value, "port number", 1, 65535)
        case "m":
            return "fwmark", _number(value, "fwmark", 0, (1 << 32) - 1)
        case "t":
            return "timeout_us", _number(value, "timeout", 0, (1 << 32) - 1) * _MILLION
        case "P":
            if value not in _PROTOCOLS:
                raise UsageError(f"invalid HTTP protocol version '{value}'")
            return "protocol", _PROTOCOLS[value]
        case _:
            return "", None


def _number(text: str, what: str, low: int, high: int) -> int:
    number = whole_number(text, high, low)
    if number is None:
        raise UsageError(f"invalid {what} '{text}'")
    return number


# Fetching ------------------------------------------------------------------------------------------------


def fetch(order: Order) -> Page:
    """One request. Raises FetchError."""
    began_us = monotonic_us()
    url = Url(order.url, virtualhost=order.virtualhost)
    check = HttpGet(Schedule(), Connection(order.server, order.port), (url,), protocol=order.protocol)
    try:
        with _connect(order) as connected:
            connected.sendall(request_of(check, url))
            header, body = _read(connected, order, began_us)
    except MalformedResponseError as error:
        raise FetchError(str(error)) from None
    except ssl.SSLError as error:
        raise FetchError(f"TLS: {error.reason}") from None
    except OSError as error:
        raise FetchError(error.strerror or str(error)) from None
    return Page(header, body, monotonic_us() - began_us)


def _connect(order: Order) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in order.server else socket.AF_INET)
    try:
        if order.fwmark:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", order.fwmark))
        opened.settimeout(order.timeout_us / _MILLION or None)
        opened.connect((order.server, order.port))
        if not order.ssl:
            return opened
        name = order.virtualhost if order.sni else ""
        return client_context(None).wrap_socket(opened, server_hostname=name or None)
    except BaseException:
        opened.close()
        raise


def _read(connected: socket.socket, order: Order, began_us: int) -> tuple[bytes, bytes]:
    """(header, body as it came). Where the body is not as announced it is all that came, to the end."""
    received, body, wrong = bytearray(), bytearray(), False
    response = HttpResponse(lambda raw, _decoded: body.extend(raw))
    while len(received) < HEADER_LIMIT + BODY_LIMIT:
        if order.timeout_us:
            left_us = began_us + order.timeout_us - monotonic_us()
            if left_us <= 0:
                raise TimeoutError("timed out")
            connected.settimeout(left_us / _MILLION)
        data = connected.recv(READ_SIZE)
        received += data
        try:
            if not wrong and (response.receive(data) if data else response.end()):
                return bytes(received[: response.header_length]), bytes(body)
        except MalformedChunkError:
            wrong = True
        if not data and not response.status:
            raise FetchError("no data received")
        if not data:
            return bytes(received[: response.header_length]), bytes(received[response.header_length :])
    raise FetchError(f"a body of more than {BODY_LIMIT} bytes")


# Showing -------------------------------------------------------------------------------------------------


def report(page: Page, url: str) -> Iterator[str]:
    """What --verbose prints, line by line."""
    digest = md5(page.body)
    yield _title("    HTTP Header Buffer    ")
    yield from dump(page.header)
    yield _title(" HTTP Header Ascii Buffer ")
    yield page.header.decode("latin-1").replace("\r\n", "\n")
    yield _title("        HTML Buffer        ")
    yield from dump(page.body)
    yield ""
    yield _title("    HTML hash resulting    ")
    yield from dump(digest.digest())
    yield _title(" HTML hash final resulting ")
    yield digest.hexdigest()
    yield ""
    yield f"Global response time for [{url}] = {page.took_us} usecs"


def _title(text: str) -> str:
    return f"-----------------------[{text}]-----------------------"


def dump(data: bytes) -> Iterator[str]:
    """Sixteen bytes a line: where, in hexadecimal, as text."""
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        first, second = (" ".join(f"{byte:02x}" for byte in half) for half in (part[:8], part[8:]))
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield f"{at:04}  {first:<23} - {second:<23}   {text:<16}"
