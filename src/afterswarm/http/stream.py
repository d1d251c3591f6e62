"""A connection that no longer speaks HTTP: bytes both ways, with half-close where the transport has it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

CHUNK = 65_536
LONGEST_LINE = 64 * 1024 * 1024
CLOSING = 1.0  # seconds that a peer has to take in what was written before the connection is aborted
SILENT = 5  # seconds after which the kernel takes a peer for dead that answers nothing on an idle connection


class Stream:
    """Bytes both ways. `already` is what had arrived behind the HTTP head. Reads and writes raise `ConnectionError`."""

    __slots__ = ("_already", "_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, already: bytes = b"") -> None:
        self._reader = reader
        self._writer = writer
        self._already = bytearray(already)

    async def read(self, n: int = CHUNK) -> bytes:
        """At least one byte and at most `n`; b"" once the other side has ended its half."""
        if self._already:
            data = bytes(self._already[:n])
            del self._already[:n]
            return data
        return await self._more(n)

    async def readline(self) -> bytes:
        """A line with its newline; what is left, then b"", once the other side has ended its half."""
        seen = 0
        while (end := self._already.find(b"\n", seen)) < 0:
            seen = len(self._already)
            if seen > LONGEST_LINE:
                raise ConnectionAbortedError("line too long")
            data = await self._more(CHUNK)
            if not data:
                end = seen - 1
                break
            self._already += data
        line = bytes(self._already[: end + 1])
        del self._already[: end + 1]
        return line

    async def write(self, data: bytes) -> None:
        """Returns when the transport has room for more."""
        if self._writer.is_closing():
            raise ConnectionResetError("closed")
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        """End our half. TLS has no such thing: there, only `close` tells the other side, or see `halved`."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            with suppress(OSError):  # the other side is gone: it needs no telling
                self._writer.write_eof()

    def halved(self) -> Halved:
        """The same connection, if both ends agree to say in frames when a half ends."""
        return Halved(self._reader, self._writer, bytes(self._already))

    async def _more(self, n: int) -> bytes:
        return await self._reader.read(n)

    def close(self) -> None:
        """Both halves, at once for the caller; what was written is still delivered."""
        self._writer.close()

    async def closed(self) -> None:
        """Close, and wait (not for ever) until what was written is delivered."""
        await close(self._writer)


class Halved(Stream):
    """A stream with half-close over a transport that has none: four bytes of length before each piece, 0 at the end."""

    __slots__ = ("_left", "_raw")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, already: bytes = b"") -> None:
        super().__init__(reader, writer)
        self._raw = Stream(reader, writer, already)
        self._left: int | None = 0  # bytes of the present piece still to come; `None`: the half has ended

    async def write(self, data: bytes) -> None:
        if data:
            await super().write(len(data).to_bytes(4) + data)

    def write_eof(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(bytes(4))

    async def _more(self, n: int) -> bytes:
        if self._left == 0:
            self._left = await self._length() or None
        data = await self._raw.read(min(n, self._left)) if self._left else b""
        self._left = self._left - len(data) if self._left and data else None
        return data

    async def _length(self) -> int:
        head = b""
        while len(head) < 4:
            piece = await self._raw.read(4 - len(head))
            if not piece:
                return 0
            head += piece
        return int.from_bytes(head)


def watch(writer: asyncio.StreamWriter) -> None:
    """Have the kernel end an idle TCP connection whose other host is gone: `logs -f` would wait for ever.

    There is no limit (TCP_USER_TIMEOUT) for what is under way: it would also end a peer that lives and does not read
    on, such as `docker logs | less`.
    """
    sock = writer.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 2),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, SILENT - 2),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close and wait until all is delivered; after `CLOSING` seconds, drop it."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSING):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass  # the other side was faster
