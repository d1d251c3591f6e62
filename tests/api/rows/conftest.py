"""For tests of rows: a swarm that is alive behind the API, in real time, since real clients wait in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.control import ca, seal
from afterswarm.control.keys import ca_key
from afterswarm.http.client import Client
from afterswarm.http.server import serve_unix
from afterswarm.model.cluster import Cluster
from afterswarm.model.node import NodeReport
from afterswarm.sim.engine_api import EngineApi
from afterswarm.sim.live import Live

NEWEST = "/usr/local/bin/docker"


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
    """`await eventually(look)`: what `look` (a coroutine function) returns once that is true, within half a minute."""

    async def wait(look: Callable[[], Awaitable[Any]], within: float = 30.0) -> Any:
        found = None
        try:
            async with asyncio.timeout(within):
                while not (found := await look()):  # noqa: ASYNC110 - it is somebody else's world
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"still {found!r} after {within:g} s: {look.__qualname__}")
        return found

    return wait


class Seen:
    """What a command line shows of services and nodes, once it has come to that."""

    def __init__(self, cli: Any, eventually: Callable[..., Awaitable[Any]]) -> None:
        self.cli, self.eventually = cli, eventually

    async def ps(self, name: str, *fields: str) -> list[list[str]]:
        shown = "|".join(f"{{{{.{field}}}}}" for field in fields)
        listed = await self.cli("service", "ps", "--no-trunc", "-f", "desired-state=running", "--format", shown, name)
        return [line.split("|") for line in listed.splitlines()]

    async def runs_on(self, name: str, **expected: int) -> None:
        """Wait until so many tasks run on each host, `swarm_1=2`, and no others."""
        wanted = {host.replace("_", "-"): count for host, count in expected.items()}

        async def there() -> bool:
            found = await self.ps(name, "Node", "CurrentState")
            running = all(state.startswith("Running") for _, state in found)
            return running and Counter(node for node, _ in found) == wanted

        await self.eventually(there)

    async def waits(self, name: str, why: str) -> None:
        async def said() -> bool:
            return [f'"no suitable node ({why})"'] in await self.ps(name, "Error")

        await self.eventually(said)
        assert [state.split()[0] for _, state in await self.ps(name, "ID", "CurrentState")].count("Pending")

    async def says(self, api: Any, hostname: str, **described: Any) -> None:
        """What the node says of itself is so from now on."""

        async def said() -> NodeReport | None:
            found = (r for r in api.stored(NodeReport) if r.description.hostname == hostname)
            return next((r for r in found if r.session_with), None)  # after the first word of its session

        report = await self.eventually(said)
        await api.write(replace(report, description=replace(report.description, **described)))


@pytest.fixture
def seen(cli: Any, live: Live, eventually: Any) -> Seen:
    return Seen(cli, eventually)


@pytest.fixture
async def rooted(api: Any) -> None:
    """The swarm has a root certificate of its own."""
    cluster = api.stored(Cluster)[0]
    root = ca.found(api.host.clock.now())
    sealed = seal.seal(b"k" * 32, ca_key(cluster.id), root.key.encode())
    await api.write(replace(cluster, ca_cert=root.cert, ca_key=sealed))


@pytest.fixture
def newest(engine: Any, program: Callable[[str], Any]) -> Any:
    """The newer docker command line, with an engine of its age: it says all that it can."""
    if not Path(NEWEST).exists():
        pytest.skip(f"there is no {NEWEST}")
    engine.api = "1.50"
    return program(NEWEST)
