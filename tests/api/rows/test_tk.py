"""Tasks, their logs and errors, and events, as both command lines find them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.api.reach import ANSWERING
from afterswarm.http.message import Response
from afterswarm.model.node import NodeState
from afterswarm.model.task import TaskState

QUICK = ("--update-monitor", "200ms", "--restart-delay", "100ms")
CREATE = ("service", "create", *QUICK, "--name")
JOB = ("service", "create", "-d", "--mode", "replicated-job", "--name")


async def tasks(api: Any, **filters: list[str]) -> Any:
    return await api.ok("GET", f"/tasks?filters={json.dumps(filters)}")


def lines(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()[1:]]


@pytest.mark.row("TK-01")
async def test_tk_01_states_only_grow(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    seen: list[tuple[str, str]] = []
    order = [state.word for state in sorted(TaskState)]

    async def watch() -> None:
        async for _ in api.host.cache.changes():
            for task in await api.ok("GET", "/tasks"):
                if (entry := (task["ID"], task["Status"]["State"])) not in seen:
                    seen.append(entry)

    watching = asyncio.ensure_future(watch())
    await cli(*CREATE, "web", "--replicas", "2", "healthy:0.3")
    await cli(*JOB, "job", "exits:0")
    await cli(*CREATE, "bad", "-d", "--restart-condition", "none", "exits:3")
    await cli(*CREATE, "gone", "-d", "--restart-condition", "none", "missing:1")
    await cli("service", "scale", "web=1")

    async def ended() -> bool:
        return {"running", "complete", "failed", "rejected"} <= {t["Status"]["State"] for t in await tasks(api)}

    await eventually(ended)
    watching.cancel()
    words = {word for _, word in seen}
    assert words <= {*order, "allocated"}, "Docker's words"
    assert {"preparing", "starting", "running", "complete", "failed", "rejected"} <= words
    for key in {key for key, _ in seen}:
        states = [order.index(word) for other, word in seen if other == key]
        assert states == sorted(states), (key, seen)


@pytest.mark.row("TK-02")
async def test_tk_02_everything_of_a_task(cli: Any, api: Any, live: Any) -> None:
    await cli("network", "create", "-d", "overlay", "back")
    await cli(*CREATE, "web", "--network", "back", "-p", "mode=host,target=80,published=8080", "nginx:1")
    (task,) = await tasks(api)
    service = await api.ok("GET", "/services/web")
    assert set(task) == {
        *("ID", "Version", "CreatedAt", "UpdatedAt", "Labels", "Spec", "ServiceID", "Slot", "NodeID", "Status"),
        *("DesiredState", "NetworksAttachments"),
    }
    assert (task["ServiceID"], task["Slot"], task["DesiredState"]) == (service["ID"], 1, "running")
    assert task["Spec"]["ContainerSpec"] == service["Spec"]["TaskTemplate"]["ContainerSpec"]
    status = task["Status"]
    assert set(status) == {"Timestamp", "State", "Message", "ContainerStatus", "PortStatus"}
    assert (status["State"], status["Message"]) == ("running", "started")
    assert len(status["ContainerStatus"]["ContainerID"]) == 64
    assert (status["ContainerStatus"]["PID"] > 0, status["ContainerStatus"]["ExitCode"]) == (True, 0)
    (port,) = status["PortStatus"]["Ports"]
    assert port == {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}
    attached = {a["Network"]["Spec"]["Name"]: a["Addresses"] for a in task["NetworksAttachments"]}
    assert attached["back"][0].endswith("/24")
    assert json.loads(await cli("inspect", "--type", "task", task["ID"]))[0] == task
    assert await api.ok("GET", f"/tasks/{task['ID'][:8]}") == task
    await cli(*CREATE, "all", "--mode", "global", "nginx:1")
    others = await tasks(api, service=["all"])
    assert all("Slot" not in t for t in others)
    assert len({t["NodeID"] for t in others}) == 3
    await cli(*JOB, "job", "exits:0")
    assert {t["JobIteration"]["Index"] for t in await tasks(api, service=["job"])} == {0}


@pytest.mark.row("TK-03")
async def test_tk_03_filters(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    await cli(*CREATE, "web", "--replicas", "3", "-l", "tier=front", "nginx:1")
    await cli(*CREATE, "webber", "--mode", "global", "nginx:1")
    web = {t["ID"]: t for t in await tasks(api, service=["web"])}
    assert len(web) == 3
    one = next(iter(web))
    for filters, count in (
        ({"service": ["web", "webber"]}, 6),
        ({"name": ["web."]}, 3),
        ({"name": ["web"]}, 6),
        ({"name": [f"web.{web[one]['Slot']}.{one}"]}, 1),
        ({"id": [one[:10]]}, 1),
        ({"node": ["swarm-1"]}, 2),
        ({"node": ["swarm-1", "swarm-3"]}, 4),
        ({"node": ["self"]}, 2),
        ({"label": ["tier=front"]}, 3),
        ({"label": ["tier=back"]}, 0),
        ({"desired-state": ["running"]}, 6),
        ({"desired-state": ["shutdown", "remove"]}, 0),
        ({"desired-state": ["RUNNING"]}, 6),
        ({"runtime": ["container"]}, 6),
        ({"runtime": ["plugin"]}, 0),
        ({"_up-to-date": ["true"]}, 6),
        ({"service": ["web"], "node": ["swarm-2"]}, 1),
    ):
        assert len(await tasks(api, **filters)) == count, filters
    assert await api.fails("GET", '/tasks?filters={"service":["nope"]}') == (404, "service nope not found")
    assert await api.fails("GET", '/tasks?filters={"node":["nope"]}') == (404, "node nope not found")
    assert await api.fails("GET", '/tasks?filters={"colour":["red"]}') == (400, "invalid filter 'colour'")
    assert await api.fails("GET", '/tasks?filters={"desired-state":["x"]}') == (
        400,
        "Invalid desired-state filter: 'x'",
    )
    await cli("service", "update", "-d", "--image", "nginx:2", "web")

    async def renewed() -> bool:
        fresh = await tasks(api, service=["web"], **{"_up-to-date": ["true"], "desired-state": ["running"]})
        return len(fresh) == 3 and not {t["ID"] for t in fresh} & set(web)

    await eventually(renewed)
    assert len(lines(await cli("service", "ps", "-f", "desired-state=running", "web"))) == 3
    assert len(lines(await cli("service", "ps", "-f", "node=swarm-2", "-f", "desired-state=shutdown", "web"))) == 1
    assert len(lines(await cli("service", "ps", "-f", "name=web.2", "web"))) == 2
    assert len(lines(await cli("service", "ps", "-f", f"id={one}", "web"))) == 1


@pytest.mark.row("TK-04", "SW-12")
async def test_tk_04_history(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    await cli("swarm", "update", "--task-history-limit", "2")
    await cli(*CREATE, "web", "nginx:1")
    for n in (2, 3, 4):
        await cli("service", "update", "--image", f"nginx:{n}", "web")

    async def kept() -> bool:
        return len(await tasks(api)) == 2

    await eventually(kept)
    containers = {t["Status"]["ContainerStatus"]["ContainerID"] for t in await tasks(api)}

    async def same() -> bool:
        return {c for a in live.agents.values() for c in a.engine.made} == containers

    await eventually(same)  # a container goes with its task, and stays as long as that
    assert [row[1] for row in lines(await cli("service", "ps", "web"))] == ["web.1", "\\_"]
    await cli("swarm", "update", "--task-history-limit", "-1")
    for n in (5, 6, 7):
        await cli("service", "update", "--image", f"nginx:{n}", "web")
    assert len(await tasks(api)) == 5
    await cli("swarm", "update", "--task-history-limit", "0")
    await cli("service", "update", "--image", "nginx:8", "web")

    async def one() -> bool:
        return len(await tasks(api)) == 1

    await eventually(one)
    assert "Task History Retention Limit: 0" in await cli("info")


@pytest.mark.row("TK-05")
async def test_tk_05_service_ps(cli: Any, api: Any, live: Any) -> None:
    await cli(*CREATE, "web", "--replicas", "2", "nginx:1")
    await cli("service", "update", "--image", "nginx:2", "web")
    table = await cli("service", "ps", "web")
    assert table.splitlines()[0].split() == "ID NAME IMAGE NODE DESIRED STATE CURRENT STATE ERROR PORTS".split()
    assert [line[12:].split()[0] for line in table.splitlines()[1:]] == ["web.1", "\\_", "web.2", "\\_"]
    shown = (
        await cli("service", "ps", "--format", "{{.Name}}|{{.Image}}|{{.DesiredState}}|{{.CurrentState}}", "web")
    ).splitlines()
    assert [row.split("|")[:3] for row in shown] == [
        ["web.1", "nginx:2", "Running"],
        ["web.1", "nginx:1", "Shutdown"],
        ["web.2", "nginx:2", "Running"],
        ["web.2", "nginx:1", "Shutdown"],
    ]
    assert {row.split("|")[3].split(" ")[0] for row in shown} == {"Running", "Shutdown"}
    assert all("ago" in row for row in shown)
    ids = {t["ID"] for t in await tasks(api)}
    assert set((await cli("service", "ps", "-q", "--no-trunc", "web")).split()) == ids
    assert ids == set((await cli("service", "ps", "-q", "web")).split())
    nodes = await cli("service", "ps", "--no-resolve", "--no-trunc", "--format", "{{.Name}} {{.Node}}", "web")
    for row in nodes.splitlines():
        name, node = row.split()
        assert name.partition(".")[0] == (await api.ok("GET", "/services/web"))["ID"] or name.startswith("web.")
        assert len(node) == 25
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    assert len(lines(await cli("service", "ps", "web", shown["ID"]))) >= 4
    said = await cli.fails("service", "ps", "nope", "web")
    assert "no such service: nope" in said
    assert "web.1" in said, "what is there is shown all the same"


@pytest.mark.row("TK-06")
async def test_tk_06_logs(cli: Any, api: Any, live: Any) -> None:
    await cli(*CREATE, "web", "--replicas", "3", "nginx:1")
    found = {t["ID"]: t for t in await tasks(api)}
    out = (await cli("service", "logs", "web")).splitlines()
    names = {f"web.{t['Slot']}.{key[:12]}" for key, t in found.items()}
    assert {line.split("@")[0] for line in out} == names
    assert {line.split()[0].split("@")[1] for line in out} == {"swarm-1", "swarm-2", "swarm-3"}
    assert all(line.split("|")[1].strip().endswith("speaks") for line in out)
    key = next(iter(found))
    assert await cli("service", "logs", "--raw", key) == f"web.{found[key]['Slot']}.{key} speaks"
    full = (await cli("service", "logs", "--no-trunc", "--no-resolve", "web")).splitlines()
    assert {line.split()[0].split("@")[1] for line in full} == {t["NodeID"] for t in found.values()}
    bare = (await cli("service", "logs", "--no-task-ids", "web")).splitlines()
    assert {line.split("@")[0] for line in bare} == {"web.1", "web.2", "web.3"}
    stamped = (await cli("service", "logs", "-t", "--raw", "web")).splitlines()
    assert all(line.split()[0].endswith("Z") for line in stamped)
    assert "nope" in await cli.fails("service", "logs", "nope")
    node = api.host.cache.snapshot().nodes["three" + "0" * 20]
    live.power_cut("swarm-3")
    await api.write(replace(node, state=NodeState.DOWN))
    async with asyncio.timeout(ANSWERING + 2):
        code, said = await cli.run("service", "logs", "web")
    assert len([line for line in said.splitlines() if "speaks" in line]) >= 2
    assert "incomplete log stream. some logs could not be retrieved for the following reasons: node swarm-3" in said
    assert code == 1


@asynccontextmanager
async def listening(cli: Any, *argv: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The events that the command line prints meanwhile."""
    heard: list[dict[str, Any]] = []
    process = await asyncio.create_subprocess_exec(
        cli._program, "events", "--format", "{{json .}}", *argv, stdout=asyncio.subprocess.PIPE, env=cli._env
    )

    async def read() -> None:
        assert process.stdout
        while line := await process.stdout.readline():
            heard.append(json.loads(line))

    reading = asyncio.ensure_future(read())
    try:
        yield heard
    finally:
        process.kill()
        await process.wait()
        await reading


@pytest.mark.row("TK-07")
async def test_tk_07_events(cli: Any, api: Any, live: Any, engine: Any, eventually: Any) -> None:
    engine.more = Streaming(engine.more)

    async def heard_all() -> bool:
        return {("network", "remove"), ("config", "remove")} <= {(e["Type"], e["Action"]) for e in heard}

    async def listens() -> bool:
        return engine.more.listeners > 0

    async with listening(cli, "--filter", "scope=swarm") as heard:
        await eventually(listens)
        await cli("node", "update", "--availability", "drain", "swarm-3")
        await cli("node", "promote", "swarm-3")
        await cli(*CREATE, "web", "nginx:1")
        await cli("service", "update", "--image", "nginx:2", "--replicas", "2", "web")
        await cli("secret", "create", "pw", "-", stdin="x")
        await cli("secret", "rm", "pw")
        await cli("config", "create", "conf", "-", stdin="x")
        await cli("network", "create", "-d", "overlay", "back")
        await cli("service", "rm", "web")
        await cli("network", "rm", "back")
        await cli("config", "rm", "conf")
        await eventually(heard_all)
    assert {e["scope"] for e in heard} == {"swarm"}
    said = [(e["Type"], e["Action"], e["Actor"]["Attributes"]) for e in heard]
    name = {"name": "swarm-3"}
    assert ("node", "update", {**name, "availability.old": "active", "availability.new": "drain"}) in said
    assert any(a.get("role.new") == "manager" for t, _, a in said if t == "node")
    assert ("service", "create", {"name": "web"}) in said
    image = next(a for _, _, a in said if "image.new" in a)
    assert (image["image.old"].split("@")[0], image["image.new"].split("@")[0]) == ("nginx:1", "nginx:2")
    assert (image["replicas.old"], image["replicas.new"]) == ("1", "2")
    assert {"updating", "completed"} <= {a.get("updatestate.new") for _, _, a in said}
    for kind, named in (("secret", "pw"), ("config", "conf"), ("network", "back"), ("service", "web")):
        actions = [action for t, action, a in said if t == kind and a["name"] == named and action != "update"]
        assert actions == ["create", "remove"], kind
    assert all(set(e["Actor"]) == {"ID", "Attributes"} and e["timeNano"] // 10**9 == e["time"] for e in heard)


@pytest.mark.row("TK-07")
@pytest.mark.usefixtures("live")
async def test_tk_07_filters_and_the_past(cli: Any, api: Any, engine: Any) -> None:
    engine.more = Streaming(engine.more)
    await cli("secret", "create", "-l", "a=b", "pw", "-", stdin="x")
    await cli("config", "create", "conf", "-", stdin="x")
    await cli("secret", "rm", "pw")
    await cli("service", "create", "-d", "--name", "web", "nginx:1")
    await asyncio.sleep(0.1)
    now = api.host.clock.now()
    key = await cli("config", "inspect", "-f", "{{.ID}}", "conf")

    async def past(*filters: str) -> list[str]:
        argv = [word for text in filters for word in ("--filter", text)]
        between = ("--since", str(now - 60), "--until", str(now))
        found = await cli("events", *between, "--format", "{{.Type}} {{.Action}}", *argv)
        return [line for line in found.splitlines() if " update" not in line]

    assert await past() == ["secret create", "config create", "secret remove", "service create"]
    assert await past("type=secret") == ["secret create", "secret remove"]
    assert await past("type=secret", "event=remove") == ["secret remove"]
    assert await past("type=secret", "type=config") == ["secret create", "config create", "secret remove"]
    assert await past("secret=pw") == ["secret create", "secret remove"]
    assert await past(f"config={key[:6]}") == ["config create"]
    assert await past("service=we") == ["service create"]
    assert await past("node=swarm-1") == []
    assert await past("scope=local") == []
    assert await past("label=a") == [], "labels of the object are not attributes of the event"


class Streaming:
    """An engine whose events never come, until a moment that the client has named."""

    def __init__(self, more: Any) -> None:
        self._more = more
        self.listeners = 0

    async def __call__(self, request: Any) -> Any:
        if not request.path.endswith("/events"):
            return await self._more(request)
        return Response(200, [("Content-Type", "application/json")], self._stream(bool(request.arg("until"))))

    async def _stream(self, over: bool) -> AsyncIterator[bytes]:  # noqa: FBT001
        self.listeners += 1
        if not over:
            await asyncio.Event().wait()
        yield b""


@pytest.mark.row("TK-08")
async def test_tk_08_errors_in_well_known_words(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    for name, image, flags in (
        ("gone", "missing:1", ()),
        ("ends", "exits:3", ()),
        ("broken", "broken:1", ()),
        ("sick", "unhealthy:0.2", ()),
        ("big", "nginx:1", ("--reserve-memory", "99g")),
        ("nowhere", "nginx:1", ("--constraint", "node.labels.disk==ssd")),
    ):
        await cli(*CREATE, name, "-d", "--restart-condition", "none", *flags, image)
    seen: dict[str, str] = {}

    async def errors() -> bool:
        for name in ("gone", "ends", "broken", "sick", "big", "nowhere"):
            seen[name] = (await cli("service", "ps", "--no-trunc", "--format", "{{.Error}}", name)).strip('"')
        return all(seen.values())

    await eventually(errors)
    assert seen["gone"].startswith("No such image: missing:1")
    assert seen["ends"] == "task: non-zero exit (3)"
    assert seen["broken"].startswith("starting container failed: ")
    assert seen["sick"] == "task: non-zero exit (137): dockerexec: unhealthy container" or "unhealthy" in seen["sick"]
    assert seen["big"] == "no suitable node (insufficient resources on 3 nodes)"
    assert seen["nowhere"] == "no suitable node (scheduling constraints not satisfied on 3 nodes)"


@pytest.mark.row("ND-06")
async def test_nd_06_node_ps(cli: Any, api: Any, live: Any) -> None:
    await cli(*CREATE, "web", "--mode", "global", "-l", "tier=front", "nginx:1")
    await cli(*CREATE, "shop", "--constraint", "node.hostname==swarm-2", "nginx:1")
    assert [row[1].split(".")[0] for row in lines(await cli("node", "ps"))] == ["web"], "this node's"
    here = await cli("node", "ps", "swarm-2", "--format", "{{.Name}} {{.Node}} {{.DesiredState}}")
    assert {line.split(".")[0] for line in here.splitlines()} == {"shop", "web"}
    assert all(line.endswith("swarm-2 Running") for line in here.splitlines())
    assert len(lines(await cli("node", "ps", "swarm-1", "swarm-2", "self"))) >= 3
    for flags, count in (
        (("-f", "name=shop"), 1),
        (("-f", "label=tier"), 1),
        (("-f", "label=tier=back"), 0),
        (("-f", "desired-state=running"), 2),
        (("-f", "desired-state=shutdown"), 0),
        (("-f", f"id={(await tasks(api, service=['shop']))[0]['ID']}"), 1),
    ):
        assert len((await cli("node", "ps", "-q", *flags, "swarm-2")).split()) == count, flags
    full = await cli("node", "ps", "-q", "--no-trunc", "swarm-2")
    assert all(len(key) == 25 for key in full.split())
    assert "nope" in await cli.fails("node", "ps", "nope")
