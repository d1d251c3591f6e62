"""The server against sockets and against our own client: everything Docker's clients do, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed, HttpError, Lost
from afterswarm.http.message import Request, Response, Stream, Upgraded
from afterswarm.http.server import serve_tcp, serve_unix


async def echo(request: Request) -> Response:
    body = await request.read()
    return Response(200, [("X-Method", request.method), ("X-Path", request.path)], body)


async def test_answers_and_keeps_the_connection(sock: str, raw: Any) -> None:
    async with serve_unix(sock, echo):
        client = await raw.to(sock)
        for n in (b"1", b"2"):
            client.say(b"POST /a?x=%s HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n%s" % (n, n))
            head = await client.head()
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            assert "X-Path: /a\r\n" in head
            assert await client.reader.readexactly(1) == n
        await client.close()


async def test_pipelined_requests_are_answered_in_order(sock: str, raw: Any) -> None:
    async with serve_unix(sock, echo):
        client = await raw.to(sock)
        client.say(b"".join(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" % n for n in range(3)))
        for n in range(3):
            assert f"X-Path: /{n}\r\n" in await client.head()
        await client.close()


async def test_the_socket_has_its_mode_and_goes_with_the_server(sock: str) -> None:
    async with serve_unix(sock, echo, mode=0o600):
        assert stat.S_IMODE(Path(sock).stat().st_mode) == 0o600
        with pytest.raises(OSError, match="another daemon"):
            async with serve_unix(sock, echo):
                pass
        assert Path(sock).exists()
    assert not Path(sock).exists()


async def test_a_dead_daemons_socket_is_replaced(sock: str) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(sock)
    async with serve_unix(sock, echo):
        assert (await Client.unix(sock).request("GET", "/")).status == 200


async def test_http_1_0_without_a_length(sock: str, raw: Any) -> None:
    async def count(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        return Response(200, [], body())

    async with serve_unix(sock, count):
        client = await raw.to(sock)
        client.say(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.all()).endswith(b"\r\n\r\none two")
        await client.close()


@pytest.mark.parametrize(
    "bad", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
)
async def test_bad_requests_get_400(sock: str, raw: Any, bad: bytes) -> None:
    async with serve_unix(sock, echo):
        client = await raw.to(sock)
        client.say(bad)
        assert (await client.all()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        await client.close()


async def test_a_body_that_breaks_its_framing_gets_400(sock: str, raw: Any) -> None:
    async with serve_unix(sock, echo):
        client = await raw.to(sock)
        client.say(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert (await client.head()).startswith("HTTP/1.1 400 ")
        await client.close()


async def test_a_handler_that_fails_is_logged_and_answers_500(sock: str, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Request) -> Response:
        raise KeyError("gone")

    async with serve_unix(sock, broken):
        client = Client.unix(sock)
        with caplog.at_level(logging.ERROR):
            reply = await client.request("GET", "/x")
        assert (reply.status, reply.message) == (500, "KeyError: 'gone'")
        assert "GET /x failed" in caplog.text
        client.close()


async def test_a_handler_may_raise_its_answer_and_too_large_is_413(sock: str) -> None:
    async def small(request: Request) -> Response:
        await request.read(limit=10)
        raise HttpError(404, "no such thing")

    async with serve_unix(sock, small):
        client = Client.unix(sock)
        assert (await client.request("POST", "/", body=b"x" * 10)).message == "no such thing"
        assert (await client.request("POST", "/", body=b"x" * 1_000_000)).status == 413
        client.close()


async def test_continue_is_said_when_the_body_is_wanted(sock: str, raw: Any) -> None:
    async with serve_unix(sock, echo):
        client = await raw.to(sock)
        client.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.head()).startswith("HTTP/1.1 100 ")
        client.say(b"ok")
        assert (await client.head()).startswith("HTTP/1.1 200 ")
        assert await client.reader.readexactly(2) == b"ok"
        await client.close()


async def test_head_has_a_length_and_no_body(sock: str, raw: Any) -> None:
    async def answer(_: Request) -> Response:
        return Response(200, [], b"hello")

    async with serve_unix(sock, answer):
        client = await raw.to(sock)
        client.say(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        text = await client.all()
        assert b"Content-Length: 5" in text
        assert text.endswith(b"\r\n\r\n")
        await client.close()


async def test_the_reader_is_not_outrun(sock: str) -> None:
    """A client that does not read stops the handler that writes."""
    made = 0

    async def much(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            nonlocal made
            for _ in range(1000):
                made += 1
                yield bytes(65536)

        return Response(200, [], body())

    async with serve_unix(sock, much), Client.unix(sock).stream("GET", "/") as reply:
        async for _ in reply.chunks():
            break
        for _ in range(50):
            await asyncio.sleep(0)
        assert made < 100


async def test_a_body_arrives_as_it_is_sent(sock: str) -> None:
    """And a writer whose reader does not read is stopped."""
    sent = 0
    read = asyncio.Event()

    async def slow(request: Request) -> Response:
        await read.wait()
        total = 0
        async for chunk in request.chunks():
            total += len(chunk)
        return Response.json(total)

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(500):
            sent += 1
            yield bytes(65536)

    async with serve_unix(sock, slow):

        async def release() -> None:
            for _ in range(200):
                await asyncio.sleep(0)
            assert sent < 100
            read.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(release())
            async with Client.unix(sock).stream("POST", "/", body=body()) as reply:
                assert (await reply.reply()).json() == 500 * 65536


async def test_an_early_answer_to_a_long_body_is_heard(sock: str) -> None:
    async def refuse(_: Request) -> Response:
        return Response.error(403, "no")

    async with serve_unix(sock, refuse):
        client = Client.unix(sock)
        reply = await client.request("POST", "/", body=bytes(8_000_000))
        assert (reply.status, reply.message) == (403, "no")
        client.close()


class Waiting:
    """A handler that never answers, and says when it starts and when it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        await request.read()
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


async def test_a_client_that_goes_away_cancels_its_handler(sock: str, raw: Any) -> None:
    handler = Waiting()
    async with serve_unix(sock, handler), asyncio.timeout(5):
        client = await raw.to(sock)
        client.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1")
        await handler.started.wait()
        await client.close()
        await handler.cancelled.wait()


async def test_a_client_that_goes_away_ends_a_silent_answer(sock: str, raw: Any) -> None:
    ended = asyncio.Event()

    async def follow(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                ended.set()

        return Response(200, [], body())

    async with serve_unix(sock, follow), asyncio.timeout(5):
        client = await raw.to(sock)
        client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.head()
        await client.close()
        await ended.wait()


async def test_a_client_that_has_ended_its_half_is_answered(sock: str, raw: Any) -> None:
    ended = asyncio.Event()

    async def later(_: Request) -> Response:
        await ended.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        return Response(200, [], b"late")

    async with serve_unix(sock, later), asyncio.timeout(5):
        client = await raw.to(sock)
        client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.sleep(0)
        client.writer.write_eof()
        ended.set()
        assert (await client.all()).endswith(b"late")
        await client.close()


async def test_closing_the_server_ends_its_connections(sock: str, raw: Any) -> None:
    handler = Waiting()
    async with asyncio.timeout(5):
        async with serve_unix(sock, handler):
            client = await raw.to(sock)
            client.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            await handler.started.wait()
        assert handler.cancelled.is_set()
        assert await client.all() == b""
        await client.close()


async def shout(request: Request) -> Upgraded:
    await request.read()

    async def run(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data.upper())
        await stream.write(b"end")

    return Upgraded(run, [("Connection", "Upgrade"), ("Upgrade", "tcp")], reason="UPGRADED")


async def test_upgraded_with_bytes_right_behind_the_head(sock: str, raw: Any) -> None:
    async with serve_unix(sock, shout), asyncio.timeout(5):
        client = await raw.to(sock)
        client.say(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}early"
        )
        assert (await client.head()).startswith("HTTP/1.1 101 UPGRADED\r\n")
        client.say(b" late")
        client.writer.write_eof()
        assert await client.all() == b"EARLY LATEend"
        await client.close()


async def test_upgraded_through_our_client(sock: str) -> None:
    async with serve_unix(sock, shout), asyncio.timeout(5):
        stream = await Client.unix(sock).upgrade("POST", "/", protocol="tcp", body=b"{}")
        await stream.write(b"a\nb\n")
        assert await stream.readline() == b"A\n"
        stream.write_eof()
        assert await stream.readline() == b"B\n"
        assert await stream.readline() == b"end"
        assert await stream.readline() == b""
        await stream.closed()


async def test_an_upgrade_that_is_refused_says_why(sock: str) -> None:
    async with serve_unix(sock, echo):
        with pytest.raises(HttpError, match="words") as refused:
            await Client.unix(sock).upgrade("POST", "/", protocol="tcp", body=b'{"message": "words"}')
        assert refused.value.status == 200


async def test_lines_longer_than_any_buffer(sock: str) -> None:
    async def back(_: Request) -> Upgraded:
        async def run(stream: Stream) -> None:
            await stream.write(await stream.readline())

        return Upgraded(run)

    line = bytes([65]) * 3_000_000 + b"\n"
    async with serve_unix(sock, back), asyncio.timeout(10):
        stream = await Client.unix(sock).upgrade("POST", "/", protocol="x")
        await stream.write(line)
        assert await stream.readline() == line
        await stream.closed()


# ---- TLS --------------------------------------------------------------------------------------------------------


async def who(request: Request) -> Response:
    assert request.peer is not None
    peer = request.peer
    return Response.json(
        [peer.address, peer.subject("commonName"), peer.subject("organizationalUnitName"), len(peer.der) > 100]
    )


async def test_both_sides_show_certificates(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve_tcp("127.0.0.1", 0, who, ssl=server_tls) as port:
        client = Client.tcp("127.0.0.1", port, client_tls, "server")
        reply = await client.request("GET", "/")
        assert reply.json() == ["127.0.0.1", ["client"], ["swarm-manager"], True]
        assert (await client.request("GET", "/")).status == 200
        client.close()


async def test_no_certificate_no_answer(server_tls: ssl.SSLContext, certificates: Path) -> None:
    anonymous = ssl.create_default_context(cafile=certificates / "ca.crt")
    async with serve_tcp("127.0.0.1", 0, who, ssl=server_tls) as port:
        with pytest.raises(ConnectFailed):
            await Client.tcp("127.0.0.1", port, anonymous, "server").request("GET", "/")


async def test_the_wrong_server_is_not_spoken_to(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve_tcp("127.0.0.1", 0, who, ssl=server_tls) as port:
        with pytest.raises(ConnectFailed):
            await Client.tcp("127.0.0.1", port, client_tls, "another").request("GET", "/")


async def test_upgraded_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve_tcp("127.0.0.1", 0, shout, ssl=server_tls) as port, asyncio.timeout(5):
        stream = await Client.tcp("127.0.0.1", port, client_tls, "server").upgrade("POST", "/", protocol="tcp")
        await stream.write(b"x" * 300_000)
        got = b""
        while len(got) < 300_000:
            got += await stream.read()
        assert got == b"X" * 300_000
        await stream.closed()


async def test_a_tls_client_that_goes_away_cancels_its_handler(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    handler = Waiting()
    async with serve_tcp("127.0.0.1", 0, handler, ssl=server_tls) as port, asyncio.timeout(5):
        client = Client.tcp("127.0.0.1", port, client_tls, "server")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.request("POST", "/"))
            await handler.started.wait()
            asking.cancel()
        await handler.cancelled.wait()


# ---- the client -------------------------------------------------------------------------------------------------


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match=r"nobody\.sock cannot be reached") as failed:
        await Client.unix(tmp_path / "nobody.sock").request("GET", "/")
    assert not isinstance(failed.value, Lost)


async def test_silence_ends_in_lost(sock: str) -> None:
    async with serve_unix(sock, Waiting()):
        with pytest.raises(Lost, match="did not answer"):
            await Client.unix(sock).request("GET", "/", timeout=0.05)


async def test_a_kept_connection_is_used_again_and_replaced_when_dead(sock: str) -> None:
    client = Client.unix(sock)
    async with serve_unix(sock, echo):
        await client.request("GET", "/")
        first = client._idle[0]
        await client.request("POST", "/", body=b"1")
        assert client._idle == [first]
    async with serve_unix(sock, echo):
        assert (await client.request("POST", "/", body=b"2")).body == b"2"
        assert client._idle != [first]
        client.close()


async def test_errors_inside_a_stream_come_out_as_they_are(sock: str) -> None:
    async with serve_unix(sock, echo):
        with pytest.raises(KeyError):
            async with Client.unix(sock).stream("GET", "/"):
                raise KeyError("mine")


async def test_lines(sock: str) -> None:
    async def answer(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for part in (b"a\nb", b"c\n", b"\nd"):
                yield part

        return Response(200, [], body())

    async with serve_unix(sock, answer), Client.unix(sock).stream("GET", "/") as reply:
        assert [line async for line in reply.lines()] == [b"a", b"bc", b"", b"d"]


async def test_the_kernel_notices_a_host_that_is_gone_and_spares_a_slow_reader() -> None:
    """A limit on what is under way would end `docker logs | less`."""

    async def handler(_: Request) -> Response:
        return Response(200)

    async with serve_tcp("127.0.0.1", 0, handler) as port:
        client = Client.tcp("127.0.0.1", port)
        assert (await client.request("GET", "/")).status == 200
        sock = client._idle[0]._writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 2
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        client.close()
