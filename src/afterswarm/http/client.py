"""HTTP/1.1 towards one server: the local engine, another host's daemon, the etcd gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from afterswarm.http.children import children
from afterswarm.http.errors import ConnectFailed, HttpError, Lost
from afterswarm.http.exchange import Exchange, Head
from afterswarm.http.message import Headers
from afterswarm.http.stream import Stream, watch

log = logging.getLogger(__name__)

CONNECTING = 5.0  # seconds
POOLED = 4  # idle connections kept
KEPT = 30.0  # seconds; less than servers keep them, so that few requests meet a closing one
SAFE = {"GET", "HEAD"}  # asked again on a new connection when a kept one turns out to be dead

Opener = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
Fields = Iterable[tuple[str, str]]


class Reply(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def message(self) -> str:
        """The words of an error, in Docker's shape or plain."""
        try:
            words = msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return self.body.decode(errors="replace").strip()
        return str(words.get("message", words)) if isinstance(words, dict) else str(words)


class StreamedReply:
    """An answer whose body comes as it is read."""

    def __init__(self, exchange: Exchange, head: Head) -> None:
        self._exchange = exchange
        self.head = head
        self.status = head.status
        self.headers = head.headers

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self._exchange.chunks()

    async def lines(self) -> AsyncIterator[bytes]:
        """Lines without their newline; the last one may be cut."""
        rest = bytearray()
        async for chunk in self.chunks():
            rest += chunk
            if b"\n" in chunk:
                *whole, tail = rest.split(b"\n")
                for line in whole:
                    yield bytes(line)
                rest = tail
        if rest:
            yield bytes(rest)

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def reply(self) -> Reply:
        return Reply(self.status, self.headers, await self.read())

    def detach(self) -> Stream:
        """The raw connection, when `head.hijacked`."""
        return self._exchange.detach()


class Client:
    """Requests to one server. A body without a Content-Type is JSON.

    Raises `ConnectFailed` when the server is not there, `Lost` (which is one) when it goes away meanwhile.
    """

    def __init__(self, opener: Opener, where: str, host: str) -> None:
        self.where = where
        self._opener = opener
        self._host = host
        self._idle: list[Exchange] = []

    @classmethod
    def unix(cls, path: str | os.PathLike[str]) -> Client:
        name = os.fspath(path)
        return cls(lambda: asyncio.open_unix_connection(name), f"unix://{name}", "docker")

    @classmethod
    def tcp(
        cls,
        host: str,
        port: int,
        ssl: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
        server_hostname: str | None = None,
    ) -> Client:
        """With `ssl`, the certificate must be for `server_hostname` if the context checks names.

        A function is asked for the context at each connection.
        """
        name = (server_hostname or host) if ssl else None

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            context = ssl() if callable(ssl) else ssl
            reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
            watch(writer)
            return reader, writer

        return cls(connect, f"{'https' if ssl else 'http'}://{host}:{port}", f"{host}:{port}")

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Fields = (),
        body: bytes = b"",
        timeout: float | None = 30,
    ) -> Reply:
        """One whole exchange, on a kept connection if there is one."""
        try:
            async with asyncio.timeout(timeout):
                kept = self._kept()
                if kept:
                    try:
                        return await self._whole(kept, method, target, headers, body)
                    except Lost:
                        if method not in SAFE:
                            raise
                return await self._whole(await self.connect(), method, target, headers, body)
        except TimeoutError as late:
            raise Lost(f"{self.where} did not answer within {timeout} seconds") from late

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Fields = (),
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> AsyncIterator[StreamedReply]:
        """The answer as it comes, on a connection of its own. A body that is an iterator is sent meanwhile."""
        exchange = await self.connect()
        try:
            await exchange.begin(method, target, self._fields(method, headers, body))
            async with children() as spawn:
                spawn(_send(exchange, body))
                yield StreamedReply(exchange, await exchange.head())
        finally:
            exchange.drop()

    async def upgrade(
        self, method: str, target: str, *, headers: Fields = (), protocol: str, body: bytes = b""
    ) -> Stream:
        """The raw connection after 101; `HttpError` with the server's words when it answers otherwise."""
        exchange = await self.connect()
        try:
            fields = [("Connection", "Upgrade"), ("Upgrade", protocol), *headers]
            await exchange.begin(method, target, self._fields(method, fields, body))
            await exchange.body(body)
            head = await exchange.head()
            if head.status == 101:
                return exchange.detach()
            reply = await StreamedReply(exchange, head).reply()
        except BaseException:
            exchange.drop()
            raise
        exchange.drop()
        raise HttpError(reply.status, reply.message)

    async def connect(self) -> Exchange:
        try:
            async with asyncio.timeout(CONNECTING):
                return Exchange(*await self._opener())
        except TimeoutError as late:
            raise ConnectFailed(f"{self.where} did not accept a connection within {CONNECTING:.0f} seconds") from late
        except OSError as why:
            raise ConnectFailed(f"{self.where} cannot be reached: {why.strerror or why}") from why

    def close(self) -> None:
        """Drop the connections that are kept."""
        while self._idle:
            self._idle.pop().drop()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and its connections with it
            self.close()

    async def _whole(self, exchange: Exchange, method: str, target: str, headers: Fields, body: bytes) -> Reply:
        kept = False
        try:
            await exchange.begin(method, target, self._fields(method, headers, body))
            await exchange.body(body)
            reply = await StreamedReply(exchange, await exchange.head()).reply()
            kept = reply.status != 101 and exchange.again() and len(self._idle) < POOLED
            if kept:
                exchange.idle_since = asyncio.get_running_loop().time()
                self._idle.append(exchange)
            return reply
        finally:
            if not kept:
                exchange.drop()

    def _kept(self) -> Exchange | None:
        oldest = asyncio.get_running_loop().time() - KEPT
        while self._idle:
            exchange = self._idle.pop()
            if exchange.alive and exchange.idle_since > oldest:
                return exchange
            exchange.drop()
        return None

    def _fields(self, method: str, headers: Fields, body: bytes | AsyncIterator[bytes]) -> list[tuple[str, str]]:
        fields = list(headers)
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            fields.insert(0, ("Host", self._host))
        if isinstance(body, bytes):
            if (body or method not in SAFE) and "content-length" not in names:
                fields.append(("Content-Length", str(len(body))))
            if body and "content-type" not in names:
                fields.append(("Content-Type", "application/json"))
        elif not names & {"content-length", "transfer-encoding"}:
            fields.append(("Transfer-Encoding", "chunked"))
        return fields


async def _send(exchange: Exchange, body: bytes | AsyncIterator[bytes]) -> None:
    """Never fails: a server may answer before it has read all, and if it is gone, reading its answer says so."""
    try:
        await exchange.body(body)
    except Lost:
        pass
    except Exception:
        log.debug("a request ended in its body", exc_info=True)
        exchange.drop()  # half a body must not pass for a whole one
