"""Tasks that live as long as a block. A `TaskGroup` would wrap the block's own errors in a group; this does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


@asynccontextmanager
async def children() -> AsyncIterator[Spawn]:
    """Give a function that starts tasks. They handle their own errors, and are cancelled when the block ends."""
    error: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        tasks: set[asyncio.Task[None]] = set()

        def spawn(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
            task = group.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return task

        try:
            yield spawn
        except asyncio.CancelledError:
            raise
        except BaseException as why:  # noqa: BLE001 - raised below
            error = why
        finally:
            for task in list(tasks):
                task.cancel()
    if error is not None:
        raise error
