"""Questions that come by TCP: one connection, any number of questions, one at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Protocol

IDLE = 10.0  # seconds of a connection
MOST = 200  # connections


class Asked(Protocol):
    def __call__(self, question: bytes, source: str, *, stream: bool, reply: Callable[[bytes], object]) -> None: ...


class Streams:
    """`asked` is called with each question, and calls back once it has the answer."""

    def __init__(self, selector: BaseSelector, now: Callable[[], float], asked: Asked) -> None:
        self.selector = selector
        self.now = now
        self.asked = asked
        self.open: set[Stream] = set()
        self.finishing = False

    def accept(self, place: socket.socket) -> None:
        try:
            connection, client = place.accept()
        except OSError:
            return
        if len(self.open) >= MOST:
            connection.close()
            return
        connection.setblocking(False)  # noqa: FBT003
        self.open.add(Stream(self, connection, client[0]))

    def sweep(self) -> None:
        now = self.now()
        for stream in [s for s in self.open if s.until <= now]:
            stream.close()

    def finish(self) -> None:
        """No more questions; those that were asked are answered."""
        self.finishing = True
        for stream in [s for s in self.open if not s.waiting]:
            stream.close()


class Stream:
    def __init__(self, streams: Streams, connection: socket.socket, source: str) -> None:
        self.until = streams.now() + IDLE
        self.waiting = False  # for an answer
        self._streams = streams
        self._connection = connection
        self._source = source
        self._in = bytearray()
        self._out = bytearray()
        self._asking = False
        streams.selector.register(connection, EVENT_READ, self._read)

    def close(self) -> None:
        if self in self._streams.open:
            self._streams.open.discard(self)
            self._streams.selector.unregister(self._connection)
            self._connection.close()

    def _read(self) -> None:
        try:
            came = self._connection.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        self._in += came
        if came and len(self._in) < 1 << 17:
            self._next()
        else:
            self.close()

    def _next(self) -> None:
        """Ask what has come whole; again and again while answers are there at once."""
        if self._asking:
            return
        self._asking = True
        while self in self._streams.open and not self.waiting and not self._out:
            size = int.from_bytes(self._in[:2], "big")
            if len(self._in) < 2 + max(size, 1):
                break
            question = bytes(self._in[2 : 2 + size])
            del self._in[: 2 + size]
            self.waiting = True
            self._streams.asked(question, self._source, stream=True, reply=self._reply)
        self._asking = False

    def _reply(self, reply: bytes) -> None:
        self.waiting = False
        if self not in self._streams.open:
            return  # its client did not wait
        if not reply:
            self.close()
            return
        self._out += len(reply).to_bytes(2, "big") + reply
        self._write()

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._out[:sent]
        if self._out:
            self._streams.selector.modify(self._connection, EVENT_WRITE, self._write)
            return
        self._streams.selector.modify(self._connection, EVENT_READ, self._read)
        if self._streams.finishing:
            self.close()
        else:
            self._next()
