"""The proxy between our own client and our own server: what it must let through unchanged."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from afterswarm.http.client import Client
from afterswarm.http.errors import HttpError
from afterswarm.http.message import Handler, Request, Response, Stream, Upgraded
from afterswarm.http.proxy import HALVES, forward
from afterswarm.http.server import serve_tcp, serve_unix

Proxied = Callable[[Handler], Any]


@pytest.fixture
def proxied(tmp_path: Path) -> Proxied:
    """Serve a handler behind a proxy; gives the proxy's socket."""

    @asynccontextmanager
    async def serve(handler: Handler) -> AsyncIterator[str]:
        front, back = str(tmp_path / "front.sock"), str(tmp_path / "back.sock")
        client = Client.unix(back)
        async with (
            serve_unix(back, handler),
            serve_unix(front, lambda request: forward(request, client)),
            asyncio.timeout(10),
        ):
            yield front

    return serve


async def show(request: Request) -> Response:
    headers = [("X-One", "1"), ("X-One", "2"), ("Connection", "X-Hop"), ("X-Hop", "no")]
    said = {"method": request.method, "target": request.target, "headers": dict(request.headers.items())}
    return Response(201, [*headers, ("Content-Type", "application/json")], Response.json(said).body)


async def test_target_headers_and_status_are_kept_and_hops_are_not(proxied: Proxied) -> None:
    async with proxied(show) as front:
        headers = [("X-Registry-Auth", "secret"), ("Connection", "close, X-Own"), ("X-Own", "x"), ("TE", "trailers")]
        reply = await Client.unix(front).request("GET", "/v1.41/x%2Fy?a=b%20c&d", headers=headers)
    assert reply.status == 201
    assert reply.headers.all("x-one") == ["1", "2"]
    assert "x-hop" not in reply.headers
    said = reply.json()
    assert (said["method"], said["target"]) == ("GET", "/v1.41/x%2Fy?a=b%20c&d")
    assert said["headers"]["X-Registry-Auth"] == "secret"
    assert not {"TE", "X-Own"} & set(said["headers"])


async def test_long_bodies_both_ways(proxied: Proxied) -> None:
    async def back(request: Request) -> Response:
        return Response(200, [], request.chunks())

    async def body() -> AsyncIterator[bytes]:
        for n in range(200):
            yield bytes([n]) * 50_000

    async with proxied(back) as front, Client.unix(front).stream("POST", "/", body=body()) as reply:
        got = await reply.read()
    assert got == b"".join(bytes([n]) * 50_000 for n in range(200))


async def test_an_answer_comes_piece_by_piece(proxied: Proxied) -> None:
    go = asyncio.Event()

    async def slowly(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            await go.wait()
            yield b"second"

        return Response(200, [], body())

    async with proxied(slowly) as front, Client.unix(front).stream("GET", "/") as reply:
        chunks = reply.chunks()
        assert await anext(chunks) == b"first"
        go.set()
        assert await anext(chunks) == b"second"


async def test_head_has_the_length_of_the_other_server(proxied: Proxied) -> None:
    async def back(_: Request) -> Response:
        return Response(200, [("Content-Length", "12345")])

    async with proxied(back) as front:
        reply = await Client.unix(front).request("HEAD", "/")
    assert reply.headers.get("content-length") == "12345"
    assert reply.body == b""


async def test_answers_without_a_body(proxied: Proxied) -> None:
    async def back(request: Request) -> Response:
        return Response(int(request.path[1:]))

    async with proxied(back) as front:
        client = Client.unix(front)
        for status in (204, 304, 200):
            assert (await client.request("POST", f"/{status}")).status == status


async def test_a_client_that_goes_away_is_gone_for_the_other_server_too(proxied: Proxied) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def follow(_: Request) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with proxied(follow) as front, asyncio.TaskGroup() as group:
        asking = group.create_task(Client.unix(front).request("GET", "/events"))
        await started.wait()
        asking.cancel()
        await ended.wait()


async def test_half_a_body_is_not_taken_for_a_whole_one(proxied: Proxied, raw: Any) -> None:
    whole = asyncio.Event()
    broken = asyncio.Event()

    async def back(request: Request) -> Response:
        try:
            await request.read()
            whole.set()
        finally:
            broken.set()
        return Response(200)

    async with proxied(back) as front:
        client = await raw.to(front)
        client.say(b"POST /build HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await client.close()
        await asyncio.wait({asyncio.ensure_future(broken.wait())}, timeout=2)
    assert not whole.is_set()


async def shout(request: Request) -> Upgraded:
    said = await request.read()

    async def run(stream: Stream) -> None:
        await stream.write(said)
        while data := await stream.read():
            await stream.write(data.upper())
        await stream.write(b" bye")

    if request.headers.get("upgrade"):
        return Upgraded(run, [("Connection", "Upgrade"), ("Upgrade", "tcp")], reason="UPGRADED")
    return Upgraded(run, [("Content-Type", "application/vnd.docker.raw-stream")], status=200)


@pytest.mark.parametrize(
    ("fields", "status"), [(b"Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED"), (b"", "200 OK")]
)
async def test_docker_s_hijack(proxied: Proxied, raw: Any, fields: bytes, status: str) -> None:
    async with proxied(shout) as front:
        client = await raw.to(front)
        client.say(b"POST /exec/x/start HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n" + fields + b"\r\n{}early ")
        assert (await client.head()).startswith(f"HTTP/1.1 {status}\r\n")
        client.say(b"late")
        client.writer.write_eof()
        assert await client.all() == b"{}EARLY LATE bye"
        await client.close()


async def test_much_through_an_upgraded_connection(proxied: Proxied) -> None:
    async with proxied(shout) as front:
        stream = await Client.unix(front).upgrade("POST", "/session", protocol="h2c")

        async def send() -> None:
            for _ in range(100):
                await stream.write(b"x" * 65_536)
            stream.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = 0
            while data := await stream.read():
                got += len(data)
        assert got == 100 * 65_536 + len(b" bye")
        await stream.closed()


async def test_half_close_between_two_daemons_over_tls(
    tmp_path: Path, raw: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TLS has none: the daemons agree on frames, and neither the client nor the engine sees any of it."""
    seen: list[Request] = []

    async def engine(request: Request) -> Upgraded:
        seen.append(request)
        return await shout(request)

    back, front = str(tmp_path / "back.sock"), str(tmp_path / "front.sock")
    own = Client.unix(back)
    async with (
        asyncio.timeout(10),
        serve_unix(back, engine),
        serve_tcp("127.0.0.1", 0, lambda request: forward(request, own), ssl=server_tls) as port,
    ):
        other = Client.tcp("127.0.0.1", port, client_tls, "server")
        async with serve_unix(front, lambda request: forward(request, other, halves=True)):
            for fields, status in ((b"Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED"), (b"", "200 OK")):
                client = await raw.to(front)
                client.say(
                    b"POST /exec/x/start HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n" + fields + b"\r\n{}early "
                )
                head = await client.head()
                assert head.startswith(f"HTTP/1.1 {status}\r\n")
                client.say(b"x" * 300_000)
                client.writer.write_eof()
                assert await client.all() == b"{}EARLY " + b"X" * 300_000 + b" bye"
                assert "halves" not in head.lower()
                await client.close()
    assert not any(HALVES in request.headers for request in seen)


async def test_when_the_server_ends_the_client_need_not_say_more(proxied: Proxied) -> None:
    async def short(_: Request) -> Upgraded:
        async def run(stream: Stream) -> None:
            await stream.write(b"over")

        return Upgraded(run)

    async with proxied(short) as front:
        stream = await Client.unix(front).upgrade("POST", "/", protocol="tcp")
        assert await stream.readline() == b"over"
        assert await stream.read() == b""
        await stream.closed()


async def test_a_refused_upgrade_is_a_plain_answer(proxied: Proxied) -> None:
    async def back(_: Request) -> Response:
        return Response.error(409, "container is paused")

    async with proxied(back) as front:
        with pytest.raises(HttpError, match="container is paused") as refused:
            await Client.unix(front).upgrade("POST", "/", protocol="tcp")
    assert refused.value.status == 409
