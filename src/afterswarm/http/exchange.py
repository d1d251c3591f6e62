"""The client's end of one connection: a request out, an answer in, again if both ended well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import h11

from afterswarm.http.errors import Lost
from afterswarm.http.message import Headers
from afterswarm.http.stream import CHUNK, Stream, close

LARGEST_HEAD = 512 * 1024
HIJACKED = ("application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream")


class Head:
    """Status line and header fields of an answer."""

    __slots__ = ("headers", "hijacked", "reason", "status")

    def __init__(self, event: h11.Response | h11.InformationalResponse, method: str) -> None:
        self.status = event.status_code
        self.reason = bytes(event.reason).decode("latin-1")
        self.headers = Headers((k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers.raw_items())
        # Docker answers `attach` and `exec` of clients that do not ask to upgrade with 200 and then raw bytes.
        self.hijacked = self.status == 101 or (
            self.status == 200
            and method == "POST"
            and self.headers.get("content-type") in HIJACKED
            and "content-length" not in self.headers
            and "transfer-encoding" not in self.headers
        )


class Exchange:
    """One connection to a server. Every method raises `Lost` when the other side goes away or talks nonsense."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        self._method = ""
        self.idle_since = 0.0

    async def begin(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> None:
        """Send the head of a request. `headers` say how long the body is or that it is chunked."""
        self._method = method
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send(h11.Request(method=method, target=target.encode("latin-1"), headers=fields))

    async def body(self, body: bytes | AsyncIterator[bytes]) -> None:
        """Send the body, and with it the rest of the request."""
        if isinstance(body, bytes):
            if body:
                await self._send(h11.Data(data=body))
        else:
            async for chunk in body:
                if chunk:
                    await self._send(h11.Data(data=chunk))
        await self._send(h11.EndOfMessage())

    async def head(self) -> Head:
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return Head(event, self._method)
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return Head(event, self._method)
            elif not isinstance(event, h11.Data):
                raise Lost("the connection was closed before an answer came")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        while self._h11.their_state is h11.SEND_BODY:
            event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    def detach(self) -> Stream:
        """The raw connection after an answer that hijacked it."""
        return Stream(self._reader, self._writer, self._h11.trailing_data[0])

    def again(self) -> bool:
        """Make ready for the next request, if the connection can have one."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return self.alive

    @property
    def alive(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing() and self._reader.exception() is None

    def drop(self) -> None:
        """Close without waiting; what is not sent yet is not worth it."""
        self._writer.transport.abort()

    async def close(self) -> None:
        await close(self._writer)

    async def _event(self) -> object:
        while True:
            try:
                event = self._h11.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._h11.receive_data(await self._reader.read(CHUNK))
            except (OSError, h11.RemoteProtocolError) as gone:
                raise Lost(f"the connection broke: {gone}") from gone

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if not data:
            return
        if self._writer.is_closing():
            raise Lost("the connection broke")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as gone:
            raise Lost(f"the connection broke: {gone}") from gone
