"""A steady client: so many requests a second, each on a connection of its own, none waiting for another."""

from __future__ import annotations

import asyncio
import itertools
import time

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One request: when it was sent (epoch seconds), how long it took (seconds), the status (0: no answer)."""

    at: float
    took: float
    status: int

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Steady:
    """`rate` requests a second to http://host:port/path until `stop`; results gather in `samples`."""

    def __init__(self, host: str, port: int, path: str, rate: float = 50.0, patience: float = 10.0) -> None:
        self.host, self.port, self.path = host, port, path
        self.rate, self.patience = rate, patience
        self.samples: list[Sample] = []
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Send until `stopping` is set, then wait for the last answers."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            sent = 0
            while not self.stopping.is_set():
                group.create_task(self.ask())
                sent += 1
                await asyncio.sleep(max(0.0, begun + sent / self.rate - time.monotonic()))

    async def ask(self) -> None:
        at, begun, status = time.time(), time.monotonic(), 0
        try:
            async with asyncio.timeout(self.patience):
                status = await self.status()
        except (OSError, TimeoutError, ValueError, IndexError):
            pass  # recorded as no answer
        self.samples.append(Sample(at, time.monotonic() - begun, status))

    async def status(self) -> int:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            head = f"GET {self.path} HTTP/1.1\r\nHost: clinic\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            line = await reader.readline()
            await reader.read()
            return int(line.split()[1])
        finally:
            writer.close()

    def answered(self) -> int:
        return sum(s.ok for s in self.samples)


def longest_gap(samples: list[Sample], begun: float, ended: float) -> float:
    """Longest time in seconds between two good answers (and from `begun` to the first, from the last to `ended`)."""
    answers = sorted(s.at + s.took for s in samples if s.ok)
    marks = [begun, *(a for a in answers if begun <= a <= ended), ended]
    return max(b - a for a, b in itertools.pairwise(marks))
