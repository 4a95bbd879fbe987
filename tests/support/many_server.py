"""A program: answers thousands of connections a second on every address, for measuring those who make them.

python -m tests.support.many_server tcp PORT | http PORT
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


def listener(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", port))
    made.listen(4096)
    made.setblocking(False)
    return made


def serve(kind: str, port: int) -> None:
    listening = listener(port)
    epoll = select.epoll()
    epoll.register(listening.fileno(), select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == listening.fileno():
                accept(listening, kind, epoll, open_now)
            else:
                answer(descriptor, epoll, open_now)


def accept(
    listening: socket.socket,
    kind: str,
    epoll: select.epoll,
    open_now: dict[int, socket.socket],
) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listening.accept()
            if kind == "tcp":
                connection.close()
                continue
            connection.setblocking(False)
            open_now[connection.fileno()] = connection
            epoll.register(connection.fileno(), select.EPOLLIN)


def answer(descriptor: int, epoll: select.epoll, open_now: dict[int, socket.socket]) -> None:
    connection = open_now[descriptor]
    try:
        data = connection.recv(4096)
        if data:
            connection.send(PAGE)
    except BlockingIOError:
        return
    except OSError:
        pass
    del open_now[descriptor]
    epoll.unregister(descriptor)
    connection.close()


def main(words: list[str]) -> None:
    kind, port = words
    serve(kind, int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
