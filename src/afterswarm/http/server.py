"""Where handlers are served: a unix socket, or TCP with or without TLS. Connections end with the block that serves."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from afterswarm.http.children import children
from afterswarm.http.connection import Connection, Reader
from afterswarm.http.message import Handler
from afterswarm.http.stream import watch

HANDSHAKE = 10.0  # seconds


@asynccontextmanager
async def _accepting(handler: Handler) -> AsyncIterator[Callable[[], asyncio.Protocol]]:
    """A protocol factory whose connections all end with the context."""
    async with children() as spawn:
        closed = False

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert isinstance(reader, Reader)  # noqa: S101 - made below
            if closed:  # accepted by the kernel before, handed to us after
                writer.transport.abort()
                return
            watch(writer)
            task = spawn(Connection(reader, writer, handler).run())
            task.add_done_callback(lambda _: writer.close())  # cancelled before its first step, it has not

        try:
            yield lambda: asyncio.StreamReaderProtocol(Reader(), accept)
        finally:
            closed = True


def _bind_unix(path: str, mode: int) -> socket.socket:
    """Nobody can connect before the mode is right. A dead daemon's socket is replaced, a live one's is not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(Path(path).stat().st_mode):
                _refuse_live(path)
                Path(path).unlink()
        sock.bind(path)
        Path(path).chmod(mode)
    except OSError:
        sock.close()
        raise
    return sock


def _refuse_live(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) == 0:
            raise OSError(errno.EADDRINUSE, "another daemon listens there", path)


@asynccontextmanager
async def serve_unix(path: str | os.PathLike[str], handler: Handler, *, mode: int = 0o660) -> AsyncIterator[None]:
    """Serve until the context ends; the socket file goes with it."""
    name = os.fspath(path)
    loop = asyncio.get_running_loop()
    async with _accepting(handler) as factory:
        server = await loop.create_unix_server(factory, sock=_bind_unix(name, mode))
        try:
            yield
        finally:
            server.close()
            with suppress(FileNotFoundError):
                Path(name).unlink()


@asynccontextmanager
async def serve_tcp(host: str, port: int, handler: Handler, *, ssl: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve until the context ends; gives the port, which the kernel chooses for 0."""
    loop = asyncio.get_running_loop()
    timeout = HANDSHAKE if ssl else None
    async with _accepting(handler) as factory:
        server = await loop.create_server(factory, host, port, ssl=ssl, ssl_handshake_timeout=timeout)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
