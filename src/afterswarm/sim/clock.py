"""A clock that follows the event loop's time: virtual when the loop's is."""

from __future__ import annotations

import asyncio


class LoopClock:
    """Implements `ports.Clock`: `epoch` seconds when the loop's time is 0."""

    def __init__(self, epoch: float = 0.0) -> None:
        self.epoch = epoch

    def now(self) -> float:
        return self.epoch + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
