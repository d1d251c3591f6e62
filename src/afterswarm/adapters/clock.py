"""The wall clock, which wakes its sleepers together.

On an idle host a wake-up costs more than what is done then (0.2 ms against some 0.02 on a virtual machine): looks that
happen ten times a second in five places are cheaper when they happen at the same moment. Beats are sent at whole
tenths of a second (`agent.beat_sender`), so sleepers wake half-way between them, when the last ones have come.
"""

from __future__ import annotations

import asyncio
import time

TICK = 0.1  # seconds


class WallClock:
    """Implements `ports.Clock`. A sleep of a tick or longer may be half a tick shorter or longer."""

    def now(self) -> float:
        return time.time()  # noqa: TID251 - this is the one place

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the host sleeps

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds if seconds < TICK else until_tick(self.now(), seconds))


def until_tick(now: float, seconds: float) -> float:
    """About `seconds`: from `now` to a moment half-way between two whole ticks, never less than half of it."""
    ticks = round((now + seconds) / TICK - 0.5)
    return max((ticks + 0.5) * TICK - now, seconds / 2)
