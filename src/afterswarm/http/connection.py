"""One connection of a client: requests in, answers out, until it ends or stops speaking HTTP.

h11 keeps the protocol; this file moves bytes. A client that goes away cancels its handler, so `logs -f` and `events`
end. On a unix socket the kernel tells a client that has gone from one that has only ended its half (a script that
pipes into `nc -N`): the second still gets its answer. TCP cannot tell, and there the end of input means gone, as for
Go's server.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import h11

from afterswarm.http.errors import HttpError
from afterswarm.http.message import Handler, Headers, Peer, Request, Response, Upgraded, let_go
from afterswarm.http.stream import CHUNK, Stream, close

log = logging.getLogger(__name__)

LARGEST_HEAD = 512 * 1024  # `X-Registry-Config` of a well-used machine is long
IDLE = 75.0  # seconds; clients keep idle connections for less
UNREAD = 2.0  # seconds given to a client that still sends a body which nobody wants


class Reader(asyncio.StreamReader):
    """Says at once when the other side ends its half, whether or not anybody reads."""

    at_end: Callable[[], object] | None = None

    def feed_eof(self) -> None:
        super().feed_eof()
        if self.at_end:
            self.at_end()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        if self.at_end:
            self.at_end()


class Connection:
    def __init__(self, reader: Reader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        self._peer = _peer(writer)

    async def run(self) -> None:
        try:
            while await self._exchange():
                self._h11.start_next_cycle()
        except (OSError, h11.RemoteProtocolError) as gone:
            log.debug("a client went away: %s", gone)
        except Exception:
            log.exception("a connection failed")
        finally:
            await close(self._writer)

    async def _exchange(self) -> bool:
        """One request and its answer; False when the connection is over."""
        try:
            request = await self._request()
        except h11.RemoteProtocolError as bad:
            if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE} and not self._reader.at_eof():
                await self._answer("", Response.error(400, f"bad request: {bad}"))
                await self._linger()
            return False
        if request is None:
            return False
        with self._cancelled_with_its_client():
            answer = await self._handle(request)
            if isinstance(answer, Response):
                await self._answer(request.method, answer)
        if isinstance(answer, Upgraded):
            await self._upgrade(answer)
            return False
        if self._h11.their_state is h11.SEND_BODY:
            await self._discard()
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def _request(self) -> Request | None:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                try:
                    async with asyncio.timeout(IDLE):
                        self._h11.receive_data(await self._reader.read(CHUNK))
                except TimeoutError:
                    return None
            elif isinstance(event, h11.Request):
                headers = Headers((k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers.raw_items())
                target = event.target.decode("latin-1")
                return Request(event.method.decode(), target, headers, self._body(), self._peer)
            elif isinstance(event, h11.ConnectionClosed):
                return None

    async def _body(self) -> AsyncIterator[bytes]:
        while self._h11.their_state is h11.SEND_BODY:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue and self._h11.our_state is h11.SEND_RESPONSE:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                self._h11.receive_data(await self._reader.read(CHUNK))
            elif isinstance(event, h11.Data):
                yield bytes(event.data)

    @contextmanager
    def _cancelled_with_its_client(self) -> Iterator[None]:
        task = asyncio.current_task()
        sock = self._writer.get_extra_info("socket")

        def ended() -> None:
            if task and (sock.family != socket.AF_UNIX or _hung_up(sock)):
                task.cancel("the client went away")

        self._reader.at_end = ended
        try:
            yield
        finally:
            self._reader.at_end = None

    async def _handle(self, request: Request) -> Response | Upgraded:
        try:
            return await self._handler(request)
        except HttpError as refused:
            return Response.error(refused.status, refused.message)
        except h11.RemoteProtocolError as bad:
            return Response.error(400, f"bad request: {bad}")
        except Exception as bug:
            log.exception("%s %s failed", request.method, request.path)
            return Response.error(500, f"{type(bug).__name__}: {bug}")

    async def _answer(self, method: str, answer: Response) -> None:
        body, headers = answer.body, list(answer.headers)
        if isinstance(body, bytes) and not _framed(answer) and answer.status not in {204, 304}:
            headers.append(("Content-Length", str(len(body))))
        reason = _reason(answer.status)
        try:
            fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            await self._send(h11.Response(status_code=answer.status, headers=fields, reason=reason))
            if isinstance(body, bytes):
                if body and method != "HEAD":
                    await self._send(h11.Data(data=body))
            elif method != "HEAD":
                async for chunk in body:
                    if chunk:
                        await self._send(h11.Data(data=chunk))
            await self._send(h11.EndOfMessage())
        finally:
            await let_go(body)

    async def _upgrade(self, answer: Upgraded) -> None:
        """h11 knows no hijack with 200, so the head is written by hand."""
        if self._h11.their_state is h11.SEND_BODY:
            await self._discard()
        reason = answer.reason.encode() or _reason(answer.status)
        lines = [b"HTTP/1.1 %d %s" % (answer.status, reason)]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in answer.headers]
        stream = Stream(self._reader, self._writer, self._h11.trailing_data[0])
        with suppress(ConnectionError):  # `run` is called even so: it holds the other end
            await stream.write(b"\r\n".join([*lines, b"\r\n"]))
        await answer.run(stream)

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            if self._writer.is_closing():
                raise ConnectionResetError("the client went away")
            self._writer.write(data)
            await self._writer.drain()

    async def _discard(self) -> None:
        """Take in a body that nobody wants: closing on unread bytes would make the kernel drop our answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(UNREAD):
                async for _ in self._body():
                    pass

    async def _linger(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(UNREAD):
                while await self._reader.read(CHUNK):
                    pass


def _framed(answer: Response) -> bool:
    return any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in answer.headers)


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _hung_up(sock: Any) -> bool:
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _peer(writer: asyncio.StreamWriter) -> Peer | None:
    address = writer.get_extra_info("peername")
    if not isinstance(address, tuple):
        return None
    tls = writer.get_extra_info("ssl_object")
    return Peer(
        address=address[0],
        port=address[1],
        certificate=(tls.getpeercert() or {}) if tls else {},
        der=(tls.getpeercert(binary_form=True) or b"") if tls else b"",
    )
