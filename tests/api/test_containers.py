"""Containers of tasks on other hosts, by way of a manager: two engines, one of them behind another host's port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.http.client import Client
from afterswarm.http.message import Request, Response, Stream, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.http.server import serve_unix
from afterswarm.model.node import NodeState
from afterswarm.model.service import ContainerSpec, Service, ServiceSpec, TaskSpec
from afterswarm.model.task import Report, Task, TaskState

ONE, TWO, THREE = "one" + "0" * 22, "two" + "0" * 22, "three" + "0" * 20
HERE, THERE = "aa" * 32, "ab" * 32


class Engine:
    """Containers by id and name, and execs. Echoes what is sent to an exec."""

    def __init__(self, where: str, containers: dict[str, str]) -> None:
        self.where, self.containers = where, containers
        self.asked: list[str] = []
        self.execs: set[str] = set()
        self.sent = b""

    async def __call__(self, request: Request) -> Response | Upgraded:
        self.asked.append(f"{request.method} {request.target}")
        parts = request.path.strip("/").split("/")
        parts = parts[1:] if parts[0].startswith("v1.") else parts
        match parts:
            case ["_ping"]:
                return Response(200, [("Api-Version", "1.41")], b"OK")
            case ["containers", term, *action] if self._has(term):
                self.sent = await request.read()
                if action == ["exec"]:
                    self.execs.add(key := f"exec-of-{self.where}")
                    return Response.json({"Id": key}, 201)
                return Response.json({"where": self.where})
            case ["exec", term, action] if term in self.execs:
                await request.read()
                return Upgraded(self._echo) if action == "start" else Response.json({"ExitCode": 3})
        return Response.error(404, f"no such thing on {self.where}")

    def _has(self, term: str) -> bool:
        return any(key.startswith(term) or name == term for key, name in self.containers.items())

    async def _echo(self, stream: Stream) -> None:
        said = b""
        while data := await stream.read():
            said += data
        await stream.write(said.upper())


class Two:
    def __init__(self, here: Engine, there: Engine) -> None:
        self.here, self.there = here, there
        self.reachable = True


@pytest.fixture
async def two(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """Service `web`: `web.1` runs on node two. Here is a container of nobody's service."""
    name = "web.1.task1"
    both = Two(Engine("here", {HERE: "mine"}), Engine("there", {THERE: name}))
    own = Client.unix(tmp_path / "there.sock")

    async def gate(request: Request) -> Response | Upgraded:
        if not both.reachable:
            await asyncio.sleep(60)
        return await forward(request, own, target=request.target.removeprefix("/engine"))

    template = TaskSpec(container_spec=ContainerSpec(image="x"))
    await api.write(
        Service(id="web", spec=ServiceSpec(name="web", task_template=template)),
        Task(id="task1", service_id="web", service_name="web", slot=1, node_id=TWO, spec=template),
        Report(id="task1", node_id=TWO, service_id="web", state=TaskState.RUNNING, container_id=THERE),
    )
    here, there = Client.unix(tmp_path / "here.sock"), Client.unix(tmp_path / "gate.sock")
    monkeypatch.setattr(api.host, "engine", here)
    monkeypatch.setattr(api.host, "engine_of", lambda node: (here, "") if node == ONE else (there, "/engine"))
    async with (
        asyncio.timeout(20),
        serve_unix(tmp_path / "here.sock", both.here),
        serve_unix(tmp_path / "there.sock", both.there),
        serve_unix(tmp_path / "gate.sock", gate),
        serve_unix(tmp_path / "docker.sock", api.app),
    ):
        yield both


@pytest.mark.parametrize("term", [THERE, THERE[:12], "web.1.task1", "%2Fweb.1.task1"])
async def test_by_id_by_its_beginning_and_by_name(api: Any, two: Two, term: str) -> None:
    for method, action in (("GET", "json"), ("GET", "logs?stdout=1"), ("GET", "top"), ("POST", "kill?signal=HUP")):
        assert await api.ok(method, f"/v1.41/containers/{term}/{action}") == {"where": "there"}
        assert two.there.asked[-1] == f"{method} /v1.41/containers/{THERE}/{action}"


async def test_by_slot_or_by_host(api: Any, two: Two) -> None:
    assert await api.ok("GET", "/containers/web.1/json") == {"where": "there"}
    assert two.there.asked[-1] == f"GET /containers/{THERE}/json"
    snap = api.host.cache.snapshot()
    two.here.containers["cd" * 32] = "agent.one.t3"
    task = replace(snap.tasks["task1"], id="t3", rev=0, service_name="agent", slot=0, node_id=ONE)
    await api.write(task, replace(snap.reports["task1"], id="t3", rev=0, container_id="cd" * 32))
    for term in ("agent.swarm-1", f"agent.{ONE}"):
        assert await api.ok("GET", f"/containers/{term}/json") == {"where": "here"}
    for term in ("web.2", "web", "web.", "agent.swarm-2", "agent.0"):
        assert (await api.fails("GET", f"/containers/{term}/json"))[0] == 404, term
    assert (await api.fails("DELETE", "/containers/web.1"))[0] == 404, "to be removed, it must be named in full"
    assert await api.ok("DELETE", "/containers/web.1.task1?force=1") == {"where": "there"}
    await api.write(replace(snap.reports["task1"], state=TaskState.FAILED))
    assert (await api.fails("GET", "/containers/web.1/json"))[0] == 404, "what has ended is called by its whole name"
    assert (await api.ok("GET", "/containers/web.1.task1/json")) == {"where": "there"}


async def test_bodies_reach_the_other_host(api: Any, two: Two) -> None:
    assert await api.ok("PUT", f"/containers/{THERE}/archive?path=/", b"a tar") == {"where": "there"}
    assert two.there.sent == b"a tar"


async def test_this_host_s_engine_comes_first(api: Any, two: Two) -> None:
    assert await api.ok("GET", "/containers/mine/json") == {"where": "here"}
    assert await api.ok("GET", "/containers/a/json") == {"where": "here"}  # both begin so
    assert (await api.fails("GET", "/containers/nobody/json"))[0] == 404
    assert not [line for line in two.there.asked if "containers" in line]


async def test_several_that_begin_so(api: Any, two: Two) -> None:
    task = api.host.cache.snapshot().tasks["task1"]
    report = api.host.cache.snapshot().reports["task1"]
    await api.write(replace(task, id="task2", rev=0), replace(report, id="task2", rev=0, container_id="abcd" * 16))
    status, words = await api.fails("GET", "/containers/ab/json")
    assert (status, words) == (400, "multiple IDs found with provided prefix: ab")
    assert two.there.asked == []


async def exec_start(tmp_path: Path, key: str, said: bytes) -> bytes:
    stream = await Client.unix(tmp_path / "docker.sock").upgrade(
        "POST", f"/v1.41/exec/{key}/start", protocol="tcp", body=b"{}"
    )
    await stream.write(said)
    stream.write_eof()
    heard = b""
    while data := await stream.read():
        heard += data
    await stream.closed()
    return heard


@pytest.mark.usefixtures("two")
async def test_exec_goes_where_it_was_made(api: Any, tmp_path: Path) -> None:
    made = await api.ok("POST", f"/v1.41/containers/{THERE[:10]}/exec", {"Cmd": ["cat"]})
    assert made == {"Id": "exec-of-there"}
    assert await exec_start(tmp_path, made["Id"], b"piped in") == b"PIPED IN"
    assert await api.ok("GET", f"/v1.41/exec/{made['Id']}/json") == {"ExitCode": 3}
    own = await api.ok("POST", "/v1.41/containers/mine/exec", {"Cmd": ["cat"]})
    assert await exec_start(tmp_path, own["Id"], b"x") == b"X"
    assert own == {"Id": "exec-of-here"}


async def test_an_exec_made_through_another_manager_is_found(api: Any, two: Two) -> None:
    two.there.execs.add("elsewhere")
    assert await api.ok("GET", "/v1.41/exec/elsewhere/json") == {"ExitCode": 3}
    assert (await api.fails("GET", "/v1.41/exec/nowhere/json")) == (404, "no such thing on here")


async def test_what_the_swarm_would_undo_is_refused(api: Any, two: Two) -> None:
    for action in ("start", "restart", "rename?name=x", "update"):
        status, words = await api.fails("POST", f"/containers/{THERE}/{action}")
        assert status == 409
        assert "web.1.task1: it is a task of service web on node swarm-2" in words
    assert two.there.asked == []


async def test_a_silent_host_is_named(api: Any, two: Two) -> None:
    two.reachable = False
    async with asyncio.timeout(2):
        status, words = await api.fails("GET", f"/containers/{THERE}/logs?stdout=1")
    assert status == 503
    assert words.startswith("node swarm-2 does not answer: its containers cannot be reached")
    node = api.host.cache.snapshot().nodes[TWO]
    await api.write(replace(node, state=NodeState.DOWN))
    async with asyncio.timeout(0.5):
        words = await api.fails("GET", f"/containers/{THERE}/json")
    assert words == (503, "node swarm-2 is down: its containers cannot be reached")


@pytest.mark.usefixtures("two")
async def test_what_was_under_way_ends_with_its_host(api: Any, tmp_path: Path) -> None:
    made = await api.ok("POST", f"/v1.41/containers/{THERE}/exec", {"Cmd": ["cat"]})
    front = Client.unix(tmp_path / "docker.sock")
    stream = await front.upgrade("POST", f"/v1.41/exec/{made['Id']}/start", protocol="tcp", body=b"{}")
    await stream.write(b"into the void")
    await api.write(replace(api.host.cache.snapshot().nodes[TWO], state=NodeState.DOWN))
    async with asyncio.timeout(3):
        assert await stream.read() == b""
    await stream.closed()


@pytest.mark.usefixtures("two")
async def test_without_this_host_s_engine_the_others_still_answer(
    api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.host, "engine", Client.unix(tmp_path / "gone.sock"))
    assert await api.ok("GET", f"/containers/{THERE}/json") == {"where": "there"}


async def test_an_older_engine_is_spoken_to_in_its_version(api: Any, two: Two) -> None:
    await api.ok("GET", f"/v1.50/containers/{THERE}/json")
    assert two.there.asked[-1] == f"GET /v1.41/containers/{THERE}/json"


async def test_a_worker_asks_its_own_engine_alone(api: Any, two: Two) -> None:
    api.host.replica = None
    assert json.dumps(await api.fails("GET", f"/containers/{THERE}/json"))
    assert two.there.asked == []
