"""Requests and answers as handlers see them. No sockets here: a test makes a `Request` as easily as the server does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

import msgspec

from afterswarm.http.errors import HttpError
from afterswarm.http.stream import Stream

LARGEST_BODY = 16 * 1024 * 1024


class Headers:
    """Header fields in order, spelled as they came, found in any case."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = tuple(items)

    def get(self, name: str, default: str = "") -> str:
        """The first value of this name."""
        name = name.lower()
        return next((value for key, value in self._items if key.lower() == name), default)

    def all(self, name: str) -> list[str]:
        name = name.lower()
        return [value for key, value in self._items if key.lower() == name]

    def items(self) -> tuple[tuple[str, str], ...]:
        return self._items

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"Headers({list(self._items)!r})"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end of a TCP connection. `certificate` is `ssl.getpeercert()`'s, {} when none was shown."""

    address: str = ""
    port: int = 0
    certificate: dict[str, Any] = {}
    der: bytes = b""

    def subject(self, field: str) -> list[str]:
        """The values of a field of the certificate's subject, by its long name: "commonName"."""
        return [value for rdn in self.certificate.get("subject", ()) for key, value in rdn if key == field]


class Request:
    """One request. `path` is neither decoded nor stripped of an API version; `query` is decoded."""

    __slots__ = ("_body", "headers", "method", "path", "peer", "query", "target")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers | Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
        peer: Peer | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.peer = peer
        self.path, _, query = target.partition("?")
        self.query: dict[str, list[str]] = parse_qs(query, keep_blank_values=True)
        self._body = body

    def arg(self, name: str, default: str = "") -> str:
        """The first value of a query argument."""
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """A boolean query argument, as Docker reads them."""
        return self.arg(name).strip().lower() not in {"", "0", "no", "false", "none"}

    async def read(self, limit: int = LARGEST_BODY) -> bytes:
        """The whole body; 413 beyond `limit` bytes."""
        parts = bytearray()
        async for chunk in self.chunks():
            parts += chunk
            if len(parts) > limit:
                raise HttpError(413, f"request body larger than {limit} bytes")
        self._body = bytes(parts)
        return self._body

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. Once only, unless `read` was called before."""
        if isinstance(self._body, bytes):
            if self._body:
                yield self._body
            return
        async for chunk in self._body:
            yield chunk

    @property
    def has_body(self) -> bool:
        """Whether the client announced one."""
        if isinstance(self._body, bytes):
            return bool(self._body)
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"


class Body:
    """A body that holds something: it is let go of when the body is closed, read or not."""

    __slots__ = ("_chunks", "_release")

    def __init__(self, chunks: AsyncGenerator[bytes, None], release: Callable[[], Awaitable[None]]) -> None:
        self._chunks = chunks
        self._release = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        try:
            await self._chunks.aclose()
        finally:
            await self._release()


async def let_go(body: bytes | AsyncIterable[bytes]) -> None:
    """Close a body that can be closed."""
    aclose = getattr(body, "aclose", None)
    if aclose:
        await aclose()


class Response:
    """One answer. A body that is an iterator is sent as it comes, chunked unless `headers` give its length.

    Whoever sends it closes the iterator (`aclose`, if it has one), whatever happens.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterable[bytes] = b"",
    ) -> None:
        self.status = status
        self.headers = list(headers)
        self.body = body

    @staticmethod
    def json(obj: object, status: int = 200) -> Response:
        return Response(status, [("Content-Type", "application/json")], msgspec.json.encode(obj) + b"\n")

    @staticmethod
    def error(status: int, message: str) -> Response:
        """Docker's shape of an error."""
        return Response.json({"message": message}, status)


class Upgraded:
    """The connection stops speaking HTTP and `run` has it. 101, or 200 for Docker's hijack without `Upgrade`."""

    __slots__ = ("headers", "reason", "run", "status")

    def __init__(
        self,
        run: Callable[[Stream], Awaitable[None]],
        headers: Iterable[tuple[str, str]] = (),
        status: int = 101,
        reason: str = "",
    ) -> None:
        self.run = run
        self.headers = list(headers)
        self.status = status
        self.reason = reason


Handler = Callable[[Request], Awaitable[Response | Upgraded]]

__all__ = ["Body", "Handler", "Headers", "Peer", "Request", "Response", "Stream", "Upgraded", "let_go"]
