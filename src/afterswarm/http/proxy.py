"""Hand a request on to another server and its answer back, unread: bodies both ways, upgrades, Docker's hijack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress

from afterswarm.http.client import Client, StreamedReply
from afterswarm.http.message import Body, Request, Response, Upgraded
from afterswarm.http.stream import Stream

# Between two neighbours only (RFC 9110, 7.6.1); `Expect` is answered by our server when the body is read.
_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
HALVES = "Afterswarm-Halves"  # between two daemons: an upgraded connection says in frames when a half ends

Edit = Callable[[Response], Response]


async def forward(
    request: Request, client: Client, *, target: str | None = None, edit: Edit | None = None, halves: bool = False
) -> Response | Upgraded:
    """The answer of `client`'s server to this request, at `target` if given. `edit` may change a plain answer.

    `halves`: the server is one of our daemons, over TLS, which knows no half-close: ask for frames that tell it.
    """
    upgrade = request.headers.get("upgrade")
    headers = _end_to_end(request.headers)
    if upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", upgrade)]
    if halves:
        headers.append((HALVES, "1"))
    body: bytes | AsyncIterator[bytes] = request.chunks() if request.has_body else b""
    if upgrade and body:
        body = await request.read()
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    asked = _ask(client, request.method, target or request.target, headers, body)
    reply = await anext(asked)
    if reply.head.hijacked:
        return _hijacked(reply, asked, upgrade, halves=HALVES in request.headers)
    answer = Response(reply.status, _end_to_end(reply.headers), Body(reply.chunks(), asked.aclose))
    if edit is None:
        return answer
    try:
        return edit(answer)
    except BaseException:
        await asked.aclose()
        raise


async def _ask(
    client: Client, method: str, target: str, headers: list[tuple[str, str]], body: bytes | AsyncIterator[bytes]
) -> AsyncGenerator[StreamedReply, None]:
    """The reply, with the connection open until this iterator is closed."""
    async with client.stream(method, target, headers=headers, body=body) as reply:
        yield reply


def _hijacked(
    reply: StreamedReply, asked: AsyncGenerator[StreamedReply, None], upgrade: str, *, halves: bool
) -> Upgraded:
    """`halves`: whoever asked us is one of our daemons, and wants frames."""

    async def run(client: Stream) -> None:
        server = reply.detach()
        try:
            await join(client.halved() if halves else client, server.halved() if HALVES in reply.headers else server)
        finally:
            await asked.aclose()

    headers = _end_to_end(reply.headers) + ([(HALVES, "1")] if halves else [])
    if reply.status == 101:
        headers += [("Connection", "Upgrade"), ("Upgrade", reply.headers.get("upgrade") or upgrade)]
    return Upgraded(run, headers, reply.status, reply.head.reason)


async def join(client: Stream, server: Stream) -> None:
    """Copy both ways. The client may end its half first; when the server ends, all is over."""
    async with asyncio.TaskGroup() as group:
        up = group.create_task(_copy(client, server))
        await _copy(server, client)
        up.cancel()


async def _copy(source: Stream, sink: Stream) -> None:
    with suppress(OSError):
        while data := await source.read():
            await sink.write(data)
    sink.write_eof()


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    fields = list(headers)
    named = {name.strip().lower() for key, value in fields if key.lower() == "connection" for name in value.split(",")}
    return [(key, value) for key, value in fields if key.lower() not in _HOP | named | {HALVES.lower()}]
