"""Logs of services and tasks, from engines that have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.api.logs import frames
from afterswarm.http.client import Client
from afterswarm.http.message import Request, Response
from afterswarm.http.server import serve_unix
from afterswarm.model.base import Change
from afterswarm.model.service import ContainerSpec, Service, ServiceSpec, TaskSpec
from afterswarm.model.task import Report, Task, TaskState

ONE = "one" + "0" * 22
TWO = "two" + "0" * 22
THREE = "three" + "0" * 20


class Engine:
    """Containers and their lines, with what the engine would put in front of them. Follows until told to end."""

    def __init__(self) -> None:
        self.lines: dict[str, list[tuple[int, bytes]]] = {}
        self.asked: list[Request] = []
        self.ended = asyncio.Event()
        self.terminal = False

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        if request.path.endswith("/_ping"):
            return Response(200, [("Api-Version", "1.41")], b"OK")
        container = request.path.split("/")[-2]
        if container not in self.lines:
            return Response.error(404, "No such container")
        return Response(200, [], self._body(self.lines[container], request))

    async def _body(self, lines: list[tuple[int, bytes]], request: Request) -> AsyncIterator[bytes]:
        stamp = b"2024-01-01T00:00:00.000000000Z " if request.flag("timestamps") else b""
        for kind, line in lines:
            said = stamp + (b" " if request.flag("details") else b"") + line
            whole = said if self.terminal else frames.frame(kind, said)
            yield whole[:3]
            yield whole[3:]
        if request.flag("follow"):
            await self.ended.wait()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def front(api: Any, tmp_path: Path) -> AsyncIterator[str]:
    path = str(tmp_path / "front.sock")
    async with serve_unix(path, api.app), asyncio.timeout(10):
        yield path


async def runs(api: Any, slot: int, node: str, *, tty: bool = False) -> str:
    """A task of service `web` whose container is `c<slot>`."""
    template = TaskSpec(container_spec=ContainerSpec(image="x", tty=tty))
    if "web" not in api.host.cache.snapshot().services:
        await api.write(Service(id="web", spec=ServiceSpec(name="shop", task_template=template)))
    key = f"task{slot}"
    await api.write(
        Task(id=key, service_id="web", slot=slot, node_id=node, spec=template, state=TaskState.ASSIGNED),
        Report(id=key, node_id=node, service_id="web", state=TaskState.RUNNING, container_id=f"c{slot}"),
    )
    return key


async def read(front: str, target: str) -> list[tuple[int, bytes]]:
    async with Client.unix(front).stream("GET", "/v1.41" + target) as reply:
        assert reply.status == 200
        return [frame async for frame in frames.frames(reply.chunks())]


def details(node: str, slot: int) -> bytes:
    words = f"com.docker.swarm.node.id={node},com.docker.swarm.service.id=web,com.docker.swarm.task.id=task{slot} "
    return words.encode()


async def test_every_line_says_which_task_it_is_from(api: Any, front: str, engine: Engine) -> None:
    await runs(api, 1, ONE)
    await runs(api, 2, TWO)
    engine.lines = {"c1": [(1, b"hello world\n"), (2, b"oops\n")], "c2": [(1, b"\n")]}
    got = await read(front, "/services/shop/logs?stdout=1&stderr=1&details=1&tail=7&since=5")
    assert sorted(got) == sorted(
        [
            (1, details(ONE, 1) + b"hello world\n"),
            (2, details(ONE, 1) + b"oops\n"),
            (1, details(TWO, 2) + b"\n"),
        ]
    )
    asked = {request.path: request for request in engine.asked if "logs" in request.path}
    assert set(asked) == {"/containers/c1/logs", "/engine/containers/c2/logs"}
    assert {r.arg("tail") + r.arg("since") + r.arg("stderr") + r.arg("follow") for r in asked.values()} == {"7510"}


async def test_times_stay_in_front(api: Any, front: str, engine: Engine) -> None:
    await runs(api, 1, ONE)
    engine.lines = {"c1": [(1, b"a b\n")]}
    got = await read(front, "/services/web/logs?stdout=1&details=1&timestamps=1")
    assert got == [(1, b"2024-01-01T00:00:00.000000000Z " + details(ONE, 1) + b"a b\n")]
    assert await read(front, "/services/web/logs?stdout=1&timestamps=1") == [
        (1, b"2024-01-01T00:00:00.000000000Z a b\n")
    ]


def test_a_containers_own_details_are_kept() -> None:
    assert frames.explained(b"env=x,os=y a b\n", b"k=v", timestamps=False) == b"env=x,os=y,k=v a b\n"
    assert frames.explained(b"t env=x a b\n", b"k=v", timestamps=True) == b"t env=x,k=v a b\n"
    assert frames.details({"b": "x y", "a": "1=2"}) == b"a=1%3D2,b=x+y"


async def test_one_task(api: Any, front: str, engine: Engine) -> None:
    await runs(api, 1, ONE)
    await runs(api, 2, ONE)
    engine.lines = {"c1": [(1, b"one\n")], "c2": [(1, b"two\n")]}
    assert await read(front, "/tasks/task2/logs?stdout=1") == [(1, b"two\n")]


async def test_a_terminal_has_no_frames(api: Any, front: str, engine: Engine) -> None:
    await runs(api, 1, ONE, tty=True)
    engine.terminal = True
    engine.lines = {"c1": [(1, b"a\r\n"), (1, b"prompt> ")]}
    async with Client.unix(front).stream("GET", "/services/web/logs?stdout=1") as reply:
        assert reply.headers.get("content-type") == "application/vnd.docker.raw-stream"
        assert await reply.read() == b"a\r\nprompt> "


async def test_a_silent_host_is_named_and_the_others_answer(
    api: Any, front: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runs(api, 1, ONE)
    await runs(api, 2, THREE)
    engine.lines = {"c1": [(1, b"here\n")]}
    gone = Client.unix(tmp_path / "gone.sock")
    here = api.host.engine
    monkeypatch.setattr(api.host, "engine_of", lambda node: (gone, "/engine") if node == THREE else (here, ""))
    first, last = await read(front, "/services/web/logs?stdout=1")
    assert first == (1, b"here\n")
    assert last[0] == frames.SYSTEM_ERROR
    assert b"node swarm-3 does not answer: its containers cannot be reached" in last[1]


async def test_a_follower_hears_at_once_what_is_missing(
    api: Any, front: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runs(api, 1, ONE)
    await runs(api, 2, THREE)
    engine.lines = {"c1": []}
    gone = Client.unix(tmp_path / "gone.sock")
    here = api.host.engine
    monkeypatch.setattr(api.host, "engine_of", lambda node: (gone, "/engine") if node == THREE else (here, ""))
    target = "/v1.41/services/web/logs?stdout=1&follow=1&details=1&timestamps=1"
    async with Client.unix(front).stream("GET", target) as reply:
        assert reply.headers.get("content-type") == "application/vnd.docker.raw-stream", "as before 1.42"
        kind, line = await anext(frames.frames(reply.chunks()))
    assert kind == frames.ERRORS
    start = b"2023-11-14T22:13:20Z " + details(THREE, 2) + b"warning: incomplete log stream: node swarm-3"
    assert line.startswith(start)


async def test_a_terminal_s_reader_is_told_in_words(api: Any, front: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await runs(api, 1, THREE, tty=True)
    gone = Client.unix("/nonexistent")
    monkeypatch.setattr(api.host, "engine_of", lambda _: (gone, "/engine"))
    reply = await Client.unix(front).request("GET", "/services/web/logs?stdout=1")
    assert reply.body.startswith(b"Error grabbing logs: ")


async def test_a_container_that_is_gone_says_nothing(api: Any, front: str) -> None:
    await runs(api, 1, ONE)
    assert await read(front, "/services/web/logs?stdout=1") == []


async def test_following_hears_of_new_tasks(api: Any, front: str, engine: Engine) -> None:
    await runs(api, 1, ONE)
    engine.lines = {"c1": [(1, b"first\n")], "c2": [(1, b"second\n")]}
    async with Client.unix(front).stream("GET", "/services/web/logs?stdout=1&follow=1&tail=0&since=9") as reply:
        got = frames.frames(reply.chunks())
        assert await anext(got) == (1, b"first\n")
        await runs(api, 2, ONE)
        assert await anext(got) == (1, b"second\n")
        late = next(request for request in engine.asked if "c2" in request.path)
        assert (late.arg("tail"), late.arg("since"), late.arg("follow")) == ("all", "", "1")
        engine.ended.set()
        gone = api.host.cache.snapshot().services["web"]
        await api.host.cache.commit([Change(gone, None)])
        assert [frame async for frame in got] == []


async def test_following_a_task_ends_with_it(api: Any, front: str, engine: Engine) -> None:
    key = await runs(api, 1, ONE)
    engine.lines = {"c1": [(1, b"last words\n")]}
    async with Client.unix(front).stream("GET", f"/tasks/{key}/logs?stdout=1&follow=1") as reply:
        got = frames.frames(reply.chunks())
        assert await anext(got) == (1, b"last words\n")
        engine.ended.set()
        report = api.host.cache.snapshot().reports[key]
        await api.write(replace(report, state=TaskState.COMPLETE))
        assert [frame async for frame in got] == []


async def test_what_cannot_be_asked(api: Any, host: Any) -> None:
    assert await api.fails("GET", "/services/nope/logs?stdout=1") == (404, "service nope not found")
    assert await api.fails("GET", "/tasks/nope/logs?stdout=1") == (404, "task nope not found")
    await runs(api, 1, ONE)
    assert (await api.fails("GET", "/services/web/logs"))[0] == 400
    host.replica = None
    assert (await api.fails("GET", "/services/web/logs?stdout=1"))[0] == 503
