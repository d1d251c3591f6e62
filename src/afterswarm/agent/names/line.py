"""The daemon's end of what it says to the resolver (`wire`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from afterswarm.agent.names import wire

REFUSED = 0.02  # seconds between tries


async def connect(path: Path) -> tuple[Line, wire.Json]:
    """And what the resolver said first. Raises `OSError` when there is none."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    line = Line(made)
    try:
        made.connect(str(path))
        hello, _ = await line.hear()
    except BaseException:
        line.close()
        raise
    return line, hello


class Line:
    """One thing at a time. Raises `EOFError` when the resolver ends meanwhile."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._inbox = wire.Inbox()

    def close(self) -> None:
        self._inbox.close()
        self._socket.close()

    def is_over(self) -> bool:
        """Whether the other side has ended; to be asked between messages."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def say(self, message: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        """And wait until it is done."""
        data = msgspec.json.encode(message)
        first = wire.head(len(data), len(sockets))
        if sockets:
            socket.send_fds(self._socket, [first], [s.fileno() for s in sockets])
        else:
            self._socket.send(first)
        await asyncio.get_running_loop().sock_sendall(self._socket, data)
        await self.hear()

    async def give(self) -> dict[str, list[socket.socket]]:
        """The sockets that it answers on, by address."""
        await asyncio.get_running_loop().sock_sendall(self._socket, wire.head(13, 0) + b'{"give":true}')
        found: dict[str, list[socket.socket]] = {}
        while True:
            message, sockets = await self.hear()
            if "at" not in message:
                return found
            found[message["at"]] = sockets

    async def hear(self) -> tuple[wire.Json, list[socket.socket]]:
        while (came := self._inbox.next()) is None:
            await self._readable()
            if not self._inbox.receive(self._socket):
                raise EOFError("the resolver has ended")
        return came

    async def ended(self) -> None:
        """Until the other side has ended."""
        while not self.is_over():
            await self._readable()
        self.close()

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._socket)
