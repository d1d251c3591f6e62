"""A manager's port 2377 with real TLS on the loopback, in front of a simulated store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from afterswarm.agent.trust import csr
from afterswarm.agent.trust.enrol import join
from afterswarm.agent.trust.identity import Credentials
from afterswarm.control import founding, seal
from afterswarm.control.cache import Cache
from afterswarm.control.dispatch import Dispatcher
from afterswarm.control.joining import Joining
from afterswarm.daemon.gate import router
from afterswarm.http.client import Client
from afterswarm.http.message import Handler, Request, Response
from afterswarm.http.server import serve_tcp, serve_unix
from afterswarm.model.base import Change
from afterswarm.model.cluster import SwarmSpec
from afterswarm.model.node import NodeReport
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimStore


class Manager:
    """One founded swarm, its first manager, and what answers there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SimStore(1)
        self.view = self.store.client("first")
        self.clock = LoopClock()
        self.cache = Cache(self.view, self.clock)
        self.credentials = Credentials(folder / "first")
        self.engine_path = folder / "engine.sock"
        self.is_manager = True
        self.port = 0
        self.routes: dict[tuple[str, str], Handler] = {}

    async def found(self, now: float) -> None:
        self.clock.epoch = now - asyncio.get_running_loop().time()
        pair = csr.generate()
        made = founding.found(
            pair.csr,
            address="127.0.0.1",
            spec=SwarmSpec(),
            pools=["10.0.0.0/8"],
            subnet_size=24,
            data_path_port=4789,
            now=now,
        )
        self.cluster, self.node, self.key = made.cluster, made.node, made.enrolment.cluster_key
        self.credentials.adopt(made.enrolment, ca=made.ca, key=pair.key)
        said = NodeReport(id=made.node.id, address="127.0.0.1")
        self.store.apply([Change(None, o) for o in (made.cluster, made.node, said)], seen=self.store.rev)
        self.joining = Joining(self.cache, self.clock, self.unseal, self.key)
        self.dispatcher = Dispatcher(self.cache, made.node.id, self.unseal, self.clock)
        self.routes |= {
            ("GET", "/ca"): self.joining.ca,
            ("POST", "/join"): self.joining.join,
            ("POST", "/renew"): self.joining.renew,
            ("POST", "/session"): self.dispatcher.session,
        }

    def unseal(self, object_id: str, sealed: str) -> bytes:
        return seal.unseal(self.key, object_id, sealed)

    def handler(self) -> Handler:
        return router(
            Client.unix(self.engine_path),
            cluster_id=lambda: self.cluster.id,
            manager=lambda: self.routes if self.is_manager else None,
        )

    def client(self, credentials: Credentials | None = None, name: str = "swarm-manager") -> Client:
        credentials = credentials or self.credentials
        return Client.tcp("127.0.0.1", self.port, ssl=credentials.client_context(), server_hostname=name)

    async def enrolled(self, name: str, token: str) -> Credentials:
        """A host that has joined."""
        joined = await join([f"127.0.0.1:{self.port}"], token, hostname=name)
        credentials = Credentials(self.folder / name)
        credentials.adopt(joined.enrolment, ca=joined.ca, key=joined.key)
        return credentials

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.cache.run()), group.create_task(self.dispatcher.run())]
            await self.cache.synced.wait()
            async with (
                serve_unix(self.engine_path, engine),
                serve_tcp("127.0.0.1", 0, self.handler(), ssl=self.credentials.server_context()) as self.port,
            ):
                yield
            for task in tasks:
                task.cancel()


async def engine(request: Request) -> Response:
    return Response.json({"asked": request.target})


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    import time  # noqa: PLC0415 - real TLS looks at the real clock

    made = Manager(tmp_path)
    await made.found(time.time())
    async with made.running():
        yield made
