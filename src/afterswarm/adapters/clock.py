"""The wall clock."""

from __future__ import annotations

import asyncio
import time


class WallClock:
    """Implements `ports.Clock`."""

    def now(self) -> float:
        return time.time()  # noqa: TID251 - this is the one place

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
