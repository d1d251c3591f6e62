"""A connection that no longer speaks HTTP: bytes both ways, with half-close where the transport has it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK = 65_536
LONGEST_LINE = 64 * 1024 * 1024
CLOSING = 1.0  # seconds that a peer has to take in what was written before the connection is aborted


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
        return await self._reader.read(n)

    async def readline(self) -> bytes:
        """A line with its newline; what is left, then b"", once the other side has ended its half."""
        seen = 0
        while (end := self._already.find(b"\n", seen)) < 0:
            seen = len(self._already)
            if seen > LONGEST_LINE:
                raise ConnectionAbortedError("line too long")
            data = await self._reader.read(CHUNK)
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
        """End our half. TLS has no such thing: there, only `close` tells the other side."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            with suppress(OSError):  # the other side is gone: it needs no telling
                self._writer.write_eof()

    def close(self) -> None:
        """Both halves, at once for the caller; what was written is still delivered."""
        self._writer.close()

    async def closed(self) -> None:
        """Close, and wait (not for ever) until what was written is delivered."""
        await close(self._writer)


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
