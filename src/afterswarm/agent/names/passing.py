"""Passing DNS questions on, byte for byte, and their answers back; without waiting for any of them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

PATIENCE = 2.0  # seconds for each server; a container's own resolver gives up after four or five
SERVERS = 2  # asked at most
AT_ONCE = 200  # questions being passed on
_FAILED = (2, 5)  # SERVFAIL, REFUSED: another server may do better

Done = Callable[[bytes], None]


class Passing:
    """Callbacks of `selector` take no argument. `sweep` what takes too long, as often as it is to be noticed."""

    def __init__(self, selector: BaseSelector, now: Callable[[], float], port: int) -> None:
        self.selector = selector
        self.now = now
        self.port = port
        self.open: set[Asked] = set()

    def ask(self, question: bytes, servers: Iterable[str], *, stream: bool, done: Done) -> None:
        """`done` gets the first good answer, or else a bad one; empty when nobody gave any. `stream`: by TCP."""
        if len(self.open) >= AT_ONCE:
            done(b"")
            return
        asked = Asked(self, question, list(servers)[:SERVERS], stream=stream, done=done)
        self.open.add(asked)
        asked.next()

    def sweep(self) -> None:
        now = self.now()
        for asked in [a for a in self.open if a.deadline <= now]:
            asked.next()


class Asked:
    """One question on its way. Each server is asked from a port of its own: strangers' answers do not arrive."""

    def __init__(self, passing: Passing, question: bytes, servers: list[str], *, stream: bool, done: Done) -> None:
        self.deadline = 0.0
        self._passing = passing
        self._question = question
        self._servers = servers
        self._stream = stream
        self._done = done
        self._socket: socket.socket | None = None
        self._came = b""
        self._bad = b""

    def next(self) -> None:
        self._close()
        while self._servers:
            try:
                self._begin(self._servers.pop(0))
            except (OSError, ValueError):  # no such way, or no address
                self._close()
            else:
                return
        self._end(self._bad)

    def _begin(self, server: str) -> None:
        self.deadline = self._passing.now() + PATIENCE
        self._came = b""
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        found = socket.getaddrinfo(server.encode("ascii"), self._passing.port, type=kind, flags=socket.AI_NUMERICHOST)
        family, _, _, _, place = found[0]
        self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        failed = self._socket.connect_ex(place)
        if failed not in (0, errno.EINPROGRESS):
            raise OSError(failed, "connect")
        if self._stream:
            self._passing.selector.register(self._socket, EVENT_WRITE, self._send)
        else:
            self._socket.send(self._question)
            self._passing.selector.register(self._socket, EVENT_READ, self._receive)

    def _send(self) -> None:
        assert self._socket  # noqa: S101 - it is its callback
        try:
            self._socket.sendall(len(self._question).to_bytes(2, "big") + self._question)  # fits an empty buffer
        except OSError:
            self.next()
        else:
            self._passing.selector.modify(self._socket, EVENT_READ, self._receive)

    def _receive(self) -> None:
        assert self._socket  # noqa: S101 - it is its callback
        try:
            came = self._socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self.next()
            return
        if not self._stream:
            self._judge(came)
        elif not came:
            self.next()
        else:
            self._came += came
            if len(self._came) >= 2 and len(self._came) - 2 >= int.from_bytes(self._came[:2], "big"):
                self._judge(self._came[2:])

    def _judge(self, reply: bytes) -> None:
        if len(reply) < 12 or reply[:2] != self._question[:2] or not reply[2] & 0x80:
            if self._stream:
                self.next()
        elif reply[3] & 15 in _FAILED and self._servers:
            self._bad = reply
            self.next()
        else:
            self._end(reply)

    def _end(self, reply: bytes) -> None:
        self._close()
        self._passing.open.discard(self)
        self._done(reply)

    def _close(self) -> None:
        if self._socket is not None:
            if self._socket.fileno() in self._passing.selector.get_map():
                self._passing.selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
