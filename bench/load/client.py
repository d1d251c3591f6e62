"""A steady client: so many requests a second, half on connections of their own, half on connections that it keeps.

Run as `client.py [--own] PORT RATE SECONDS ADDRESS…` (`--own`: all on connections of their own); ends after SECONDS or
with SIGTERM, and prints what became of the requests as JSON. A kept connection that its server has closed before it
answered is replaced once, as every HTTP client does.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from itertools import cycle

WAIT = 5.0  # seconds for an answer
KEPT = 24  # connections; while all are busy, further ones are made, so that nothing waits for an answer to another
DELAYED = 0.5  # seconds
OWN = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEEP = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    def __init__(self, addresses: list[str], port: int) -> None:
        self._addresses = cycle(addresses)
        self._port = port
        self._idle: list[Connection] = []
        self.requests = 0
        self.failures: Counter[str] = Counter()
        self.slowest = 0.0
        self.failed_at: list[float] = []  # when those that failed were begun, in seconds since the epoch
        self.delayed_at: list[float] = []  # likewise those that took longer than `DELAYED`

    async def ask(self, *, keep: bool) -> None:
        self.requests += 1
        began, when = time.monotonic(), time.time()
        address = next(self._addresses)
        try:
            async with asyncio.timeout(WAIT):
                await (self._kept(address) if keep else self._own(address))
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            way = "kept" if keep else "own"
            self.failed_at.append(when)
            self.failures[f"{way}, {address}: {type(error).__name__} {error}"] += 1
            print(
                f"{when:.2f} {way} {address} {error!r} after {time.monotonic() - began:.2f} s",
                file=sys.stderr,
                flush=True,
            )
            return
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        if took > DELAYED:
            self.delayed_at.append(when)

    async def _own(self, address: str) -> None:
        reader, writer = await asyncio.open_connection(address, self._port)
        try:
            await exchange((reader, writer), OWN)
        finally:
            writer.close()

    async def _kept(self, address: str) -> None:
        connection, back = self._idle.pop() if self._idle else None, None
        try:
            if connection:
                try:
                    back = await exchange(connection, KEEP)
                    return
                except (ConnectionError, EOFError):
                    connection[1].close()
            connection = await asyncio.open_connection(address, self._port)
            back = await exchange(connection, KEEP)
        finally:
            if back and len(self._idle) < KEPT:
                self._idle.append(back)
            elif connection:
                connection[1].close()


async def exchange(connection: Connection, question: bytes) -> Connection | None:
    """Ask; returns the connection if it can be used again."""
    reader, writer = connection
    writer.write(question)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(head[:40])
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    if b"connection: close" in head.lower():
        writer.close()
        return None
    return connection


async def main(port: int, rate: float, seconds: float, addresses: list[str], *, own: bool) -> None:
    client = Client(addresses, port)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while not over.is_set() and time.monotonic() - began < seconds:
            due = int((time.monotonic() - began) * rate)
            for number in range(client.requests, due):
                group.create_task(client.ask(keep=number % 2 == 0 and not own))
            await asyncio.sleep(1 / rate if rate < 200 else 0.005)
    took = time.monotonic() - began
    said = {
        "requests": client.requests,
        "failed": sum(client.failures.values()),
        "failures": dict(client.failures.most_common(20)),
        "slowest_seconds": round(client.slowest, 3),
        "failed_at": client.failed_at,
        "delayed_at": client.delayed_at,
        "per_second": round(client.requests / took, 1),
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--own"]
    asyncio.run(main(int(words[0]), float(words[1]), float(words[2]), words[3:], own="--own" in sys.argv))
