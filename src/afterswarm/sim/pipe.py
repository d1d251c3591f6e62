"""Two ends of a connection in memory: as much of `http.Stream` as sessions use, and a cable that can be cut."""

from __future__ import annotations

import asyncio


class Pipe:
    """One end. What is written while the cable is cut is lost, and nobody hears of it, as with a power cut."""

    def __init__(self) -> None:
        self.closed = False
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._other = self
        self._cut = False

    async def readline(self) -> bytes:
        """A line; b"" once the other end is closed."""
        return await self._lines.get()

    async def write(self, data: bytes) -> None:
        if self.closed or (self._other.closed and not self._cut):
            raise ConnectionResetError("closed")
        if not self._cut:
            for line in data.splitlines(keepends=True):
                self._other._lines.put_nowait(line)  # noqa: SLF001 - of the same kind

    def close(self) -> None:
        if not self.closed and not self._cut:
            self._other._lines.put_nowait(b"")  # noqa: SLF001
        self.closed = True

    def cut(self) -> None:
        """Nothing passes any more, either way."""
        self._cut = self._other._cut = True  # noqa: SLF001


def pipes() -> tuple[Pipe, Pipe]:
    """Two ends of one connection."""
    one, two = Pipe(), Pipe()
    one._other, two._other = two, one  # noqa: SLF001
    return one, two
