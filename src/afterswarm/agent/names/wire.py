"""What daemon and resolver say to each other over a Unix socket: JSON with its length, and sockets beside it."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
_HEAD = 5  # bytes: length of what follows, and how many sockets come with it
MOST = 16  # sockets of one message


def head(size: int, sockets: int) -> bytes:
    return size.to_bytes(4, "big") + sockets.to_bytes(1, "big")


class Inbox:
    """Puts together what comes in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._sockets: list[socket.socket] = []

    def receive(self, line: socket.socket) -> bool:
        """Take what is there; whether the other side still is. Raises `BlockingIOError`, `ConnectionError`."""
        came, fds, _, _ = socket.recv_fds(line, 1 << 18, MOST, socket.MSG_CMSG_CLOEXEC)
        self._sockets += [socket.socket(fileno=fd) for fd in fds]
        self._bytes += came
        return bool(came)

    def next(self) -> tuple[Json, list[socket.socket]] | None:
        """A whole message, if there is one."""
        if len(self._bytes) < _HEAD:
            return None
        end = _HEAD + int.from_bytes(self._bytes[:4], "big")
        if len(self._bytes) < end:
            return None
        count = self._bytes[4]
        message = json.loads(bytes(self._bytes[_HEAD:end]))
        del self._bytes[:end]
        sockets, self._sockets = self._sockets[:count], self._sockets[count:]
        return message, sockets

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def send(line: socket.socket, message: Json, sockets: Sequence[socket.socket] = ()) -> None:
    """A short message, into a buffer that is empty: the other side has answered everything."""
    data = json.dumps(message).encode()
    socket.send_fds(line, [head(len(data), len(sockets)) + data], [s.fileno() for s in sockets])
