"""For tests of rows: a swarm that is alive behind the API, in real time, since real clients wait in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from afterswarm.http.client import Client
from afterswarm.http.server import serve_unix
from afterswarm.sim.engine_api import EngineApi
from afterswarm.sim.live import Live


@pytest.fixture
async def live(api: Any, host: Any, engine: Any, tmp_path: Path) -> AsyncIterator[Live]:
    """swarm-1 (this manager), swarm-2 (a manager too) and swarm-3 run what services ask for; see `sim.images`.

    `cli`, `sock` and `api` are of the same swarm: a test asks for them besides.
    """
    host.clock.run()
    async with AsyncExitStack() as stack:
        made = Live(host.cache, host.node_id, unseal=host.unseal, clock=host.clock, folder=tmp_path / "hosts")
        engine.more = EngineApi(made.agents[host.node_id].engine)
        for node_id in set(made.agents) - {host.node_id}:
            path = tmp_path / f"{node_id}.sock"
            await stack.enter_async_context(serve_unix(path, EngineApi(made.agents[node_id].engine)))
            host.engines[node_id] = Client.unix(path)
            stack.callback(host.engines[node_id].close)
        lives = [asyncio.create_task(made.run()), asyncio.create_task(api.app.follow(host.cache))]
        ready = asyncio.create_task(made.ready.wait())
        await asyncio.wait([ready, *lives], return_when=asyncio.FIRST_COMPLETED)
        yield made
        for life in [ready, *lives]:
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """`await eventually(look)`: what `look` (a coroutine function) returns once that is true, within ten seconds."""

    async def wait(look: Callable[[], Awaitable[Any]], within: float = 10.0) -> Any:
        found = None
        try:
            async with asyncio.timeout(within):
                while not (found := await look()):  # noqa: ASYNC110 - it is somebody else's world
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"still {found!r} after {within:g} s: {look.__qualname__}")
        return found

    return wait
