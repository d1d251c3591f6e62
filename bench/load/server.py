"""A web server as a task, well-behaved: it ends when it is told to, once it has answered what it was asked.

The file /tmp/up tells that it listens. Answers every request with its host name and whether the connection ends. On
SIGTERM it takes no new connections, tells those it has that they end with their next answer, and closes idle ones after
a moment.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

IDLE = 0.5  # seconds that a connection without a question is kept once the server is to end


async def main() -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    name = socket.gethostname().encode()
    connections: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            while True:
                wait = IDLE if ending.is_set() else None
                asked = await asyncio.wait_for(question(reader, ending), wait)
                if not asked:
                    return
                last = ending.is_set() or b"connection: close" in asked.lower()
                end = b"Connection: close\r\n" if last else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(name), end, name))
                await writer.drain()
                if last:
                    return
        except (TimeoutError, ConnectionError):
            return
        finally:
            writer.close()
            connections.discard(task)

    server = await asyncio.start_server(answer, port=80, backlog=1024)
    Path("/tmp/up").touch()
    await ending.wait()
    server.close()
    if connections:
        await asyncio.wait(connections)


async def question(reader: asyncio.StreamReader, ending: asyncio.Event) -> bytes:
    """The next request; nothing when the client has hung up, or the server is to end and none came."""
    asking = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    told = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait({asking, told}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            await asyncio.wait({asking}, timeout=IDLE)
        return asking.result() if asking.done() else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        for each in (asking, told):
            each.cancel()


asyncio.run(main())
