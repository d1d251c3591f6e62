"""Tasks that live as long as a block, where a `TaskGroup` alone would say too much or too little.

It would wrap the block's own errors in a group (`children`), and it forgets that it was cancelled when one of its tasks
has failed at the same time (`apart`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

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


async def apart(work: Coroutine[None, None, None]) -> None:
    """Run `work` as a task, and raise what it raises. To be cancelled meanwhile ends it and is never forgotten."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (failure := task.exception()):
            log.debug("failed while it was to end", exc_info=failure)
        raise
    task.result()
