"""`/events`: the engine's and the swarm's in one stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.api.events import happenings
from afterswarm.http.client import Client
from afterswarm.http.message import Request, Response
from afterswarm.http.server import serve_unix
from afterswarm.model.base import Change
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Availability, Leader, Node, NodeSpec, NodeState, Role
from afterswarm.model.secret import Secret, SecretSpec
from afterswarm.model.service import (
    ContainerSpec,
    ReplicatedService,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from afterswarm.model.snapshot import Snapshot

ONE = "one" + "0" * 22
TWO = "two" + "0" * 22


class Engine:
    """An engine that streams what the test tells it to."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.asked: list[str] = []
        self.listening = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.target)
        if request.path.endswith("/_ping"):
            return Response(200, [("Api-Version", "1.41")], b"OK")
        if "wrong" in request.target:
            return Response.error(400, "invalid filter")
        self.listening.set()
        return Response(200, [("Content-Type", "application/json")], self._stream())

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await self.says.get()) is not None:
                yield piece
        finally:
            self.left.set()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def front(api: Any, tmp_path: Path) -> AsyncIterator[str]:
    """The API on a socket, its events followed."""
    path = str(tmp_path / "front.sock")
    async with serve_unix(path, api.app), asyncio.TaskGroup() as group:
        following = group.create_task(api.app.follow(api.host.cache))
        for _ in range(5):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            yield path
        following.cancel()


@asynccontextmanager
async def listening(front: str, query: str = "") -> AsyncIterator[Any]:
    async with Client.unix(front).stream("GET", "/v1.41/events" + query) as reply:
        lines = reply.lines()

        async def event() -> Any:
            return json.loads(await anext(lines))

        event.reply = reply  # type: ignore[attr-defined]
        yield event


def secret(key: str, name: str) -> Secret:
    return Secret(id=key, spec=SecretSpec(name=name, labels={"a": "b"}))


async def test_both_in_one_stream(api: Any, front: str, engine: Engine) -> None:
    async with listening(front) as event:
        await engine.listening.wait()
        engine.says.put_nowait(b'{"Type":"container","Action":"start"}\n')
        assert await event() == {"Type": "container", "Action": "start"}
        await api.write(secret("s1", "password"))
        assert await event() == {
            "Type": "secret",
            "Action": "create",
            "Actor": {"ID": "s1", "Attributes": {"name": "password"}},
            "scope": "swarm",
            "time": 1_700_000_000,
            "timeNano": 1_700_000_000_000_000_000,
        }
        engine.says.put_nowait(b'{"Type":"container",')
        await api.write(secret("s2", "other"))
        assert (await event())["Actor"]["ID"] == "s2"  # not inside the engine's half line
        engine.says.put_nowait(b'"Action":"die"}\n')
        assert (await event())["Action"] == "die"
    await engine.left.wait()


async def test_the_stream_ends_with_the_engines(front: str, engine: Engine) -> None:
    async with listening(front) as event:
        engine.says.put_nowait(None)
        assert await event.reply.read() == b""


async def test_the_engine_sees_the_filters_and_may_refuse_them(front: str, engine: Engine) -> None:
    target = "/v1.41/events?filters=%7B%22type%22%3A%5B%22wrong%22%5D%7D"
    reply = await Client.unix(front).request("GET", target)
    assert (reply.status, reply.message) == (400, "invalid filter")
    assert engine.asked[-1] == target


async def test_filters_choose_among_the_swarms_events(api: Any, front: str, engine: Engine) -> None:
    async with listening(front, '?filters={"type":["service","secret"],"event":["create"],"secret":["pass"]}') as event:
        await engine.listening.wait()
        await api.write(secret("s1", "other"), Service(id="x", spec=ServiceSpec(name="web")), secret("s2", "password"))
        await api.write(replace(api.host.cache.snapshot().secrets["s2"], sealed="x"))
        await api.write(secret("s3", "pass"))
        assert [(await event())["Actor"]["ID"] for _ in range(2)] == ["s2", "s3"]


async def test_since_brings_what_was(api: Any, front: str, engine: Engine) -> None:
    await api.write(secret("s1", "early"))
    for _ in range(5):
        await asyncio.sleep(0)
    async with listening(front, "?since=1699999999.5") as event:
        assert (await event())["Actor"]["ID"] == "s1"
    engine.listening.clear()
    async with listening(front, "?since=1700000000.5") as event:
        await engine.listening.wait()
        engine.says.put_nowait(None)
        assert await event.reply.read() == b""


async def test_the_past_is_in_order_of_time(api: Any, front: str, engine: Engine) -> None:
    """The engine's past and the swarm's are told one after the other, then what is new."""
    for n in (2, 4, 6):
        api.host.clock.now = lambda n=n: 1_700_000_000.0 + n
        await api.write(secret(f"s{n}", f"at{n}"))
        for _ in range(5):
            await asyncio.sleep(0)
    for n in (1, 3, 5):
        engine.says.put_nowait(b'{"Type":"image","timeNano":%d}\n' % ((1_700_000_000 + n) * 10**9))
    seconds = []
    async with listening(front, "?since=1699999999") as event:
        seconds = [(await event())["timeNano"] // 10**9 % 100 for _ in range(6)]
        await api.write(secret("s7", "now"))
        assert (await event())["Actor"]["ID"] == "s7"
    assert seconds == [1, 2, 3, 4, 5, 6]
    await engine.left.wait()
    engine.says.put_nowait(None)
    async with listening(front, "?until=1700000004.5") as event:
        assert [(await event())["Actor"]["ID"] for _ in range(2)] == ["s2", "s4"]
        assert await event.reply.read() == b""


async def test_a_worker_passes_the_engines_on(api: Any, host: Any, tmp_path: Path, engine: Engine) -> None:
    host.replica = None
    path = str(tmp_path / "worker.sock")
    async with serve_unix(path, api.app), listening(path) as event:
        engine.says.put_nowait(b'{"Type":"image"}\n')
        assert await event() == {"Type": "image"}


# ---- what a change is called -----------------------------------------------------------------------------------------

SNAP = Snapshot.of(
    [Node(id=ONE, spec=NodeSpec(name="one"), role=Role.MANAGER), Node(id=TWO, spec=NodeSpec(name="two"))], now=5.5
)


def said(old: Any, new: Any) -> list[tuple[str, str, dict[str, str]]]:
    events = happenings.of(Change(old, new), SNAP)
    return [(e["Type"], e["Action"], e["Actor"]["Attributes"]) for e in events]


def service(image: str = "a", replicas: int = 1, **more: Any) -> Service:
    spec = ServiceSpec(
        name="web",
        task_template=TaskSpec(container_spec=ContainerSpec(image=image)),
        mode=ServiceMode(replicated=ReplicatedService(replicas=replicas)),
    )
    return Service(id="w", spec=spec, **more)


def test_services() -> None:
    assert said(None, service()) == [("service", "create", {"name": "web"})]
    assert said(service(), service()) == [("service", "update", {"name": "web"})]
    more = {"name": "web", "image.old": "a", "image.new": "b", "replicas.old": "1", "replicas.new": "3"}
    assert said(service(), service("b", 3)) == [("service", "update", more)]
    updating = UpdateStatus(state=UpdateState.UPDATING)
    assert said(service(), service(update_status=updating))[0][2] == {"name": "web", "updatestate.new": "updating"}
    done = UpdateStatus(state=UpdateState.COMPLETED)
    assert said(service(update_status=updating), service(update_status=done))[0][2] == {
        "name": "web",
        "updatestate.old": "updating",
        "updatestate.new": "completed",
    }


def test_a_service_that_waits_to_be_deleted_is_gone_once() -> None:
    going = service(pending_delete=True)
    assert said(service(), going) == [("service", "remove", {"name": "web"})]
    assert said(going, going) == []
    assert said(going, None) == []
    network = Network(id="n", spec=NetworkSpec(name="back"))
    assert said(network, None) == [("network", "remove", {"name": "back"})]


def test_nodes() -> None:
    old = Node(id=ONE, spec=NodeSpec(name="one"), role=Role.MANAGER, state=NodeState.READY)
    drained = replace(old, spec=replace(old.spec, availability=Availability.DRAIN))
    words = {"name": "one", "availability.old": "active", "availability.new": "drain"}
    assert said(old, drained) == [("node", "update", words)]
    assert said(old, replace(old, state=NodeState.DOWN))[0][2] == {
        "name": "one",
        "state.old": "ready",
        "state.new": "down",
        "reachability.old": "reachable",
        "reachability.new": "unreachable",
    }
    demoted = {"name": "one", "role.old": "manager", "role.new": "worker"}
    assert said(old, replace(old, role=Role.WORKER))[0][2] == demoted


def test_a_new_leader_is_news_of_two_nodes() -> None:
    assert said(Leader(id="leader", node_id=ONE), Leader(id="leader", node_id=TWO)) == [
        ("node", "update", {"name": "one", "leader.old": "true", "leader.new": "false"}),
        ("node", "update", {"name": "two", "leader.old": "false", "leader.new": "true"}),
    ]
    assert said(None, Leader(id="leader", node_id=ONE)) == []
