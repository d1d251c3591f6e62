"""A task's container from any manager: what this host's engine does not know is asked of the engine that has it.

`docker exec`, `logs`, `cp`, `stats`, `inspect`, `top`, `attach`, `wait`, `kill` and the like name a container by its
id, the beginning of it, or its name; or by `web.2`, which is what runs in that slot now. This host's engine comes
first. What the orchestrator would undo is refused: a task that ends is replaced, so its container is neither started
again nor changed. `docker ps` stays this host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from urllib.parse import quote

import msgspec

from afterswarm.api import versions
from afterswarm.api.host import Host
from afterswarm.api.reach import ANSWERING, called, node_name, reach, while_up
from afterswarm.core.host import container_config
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.http.message import Request, Response, Stream, Upgraded, let_go
from afterswarm.http.proxy import forward
from afterswarm.model.node import NodeState
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

PASSED = (
    "GET json", "GET logs", "GET stats", "GET top", "GET changes", "GET export", "GET attach/ws", "GET archive",
    "HEAD archive", "PUT archive", "POST attach", "POST exec", "POST kill", "POST pause", "POST resize", "POST stop",
    "POST unpause", "POST wait", "DELETE ",
)  # fmt: skip
UNDONE = ("POST rename", "POST restart", "POST start", "POST update")
REMEMBERED = 1000  # exec ids whose node is known

Handler = Callable[..., Awaitable[Response | Upgraded]]


class Containers:
    """Remembers which node an exec id came from; one that it does not know is looked for."""

    def __init__(self) -> None:
        self._execs: dict[str, str] = {}  # exec id -> node id, oldest first

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        for words in (*PASSED, *UNDONE):
            method, _, action = words.partition(" ")
            path = "/containers/{id}" + (f"/{action}" if action else "")
            yield method, path, partial(self._container, action=action, refused=words in UNDONE)
        for method, action in (("POST", "start"), ("POST", "resize"), ("GET", "json")):
            yield method, f"/exec/{{id}}/{action}", self._exec

    async def _container(
        self,
        host: Host,
        request: Request,
        id: str,  # noqa: A002 - the route's word
        *,
        action: str,
        refused: bool,
    ) -> Response | Upgraded:
        found = await _elsewhere(host, id, slots=bool(action))
        if found is None:
            return await forward(request, host.engine)
        container, task = found
        if refused:
            raise Refused(409, _undone(host, task, action))
        answer = await _ask(host, task.node_id, request, f"/containers/{container}" + (action and f"/{action}"))
        if action == "exec" and isinstance(answer, Response) and answer.status == 201:
            return await self._remember(answer, task.node_id)
        return answer

    async def _exec(self, host: Host, request: Request, id: str) -> Response | Upgraded:  # noqa: A002
        node = self._execs.get(id) or await _owner(host, id)
        path = versions.split(request.path)[1]
        return await _ask(host, node, request, path) if node else await forward(request, host.engine)

    async def _remember(self, answer: Response, node: str) -> Response:
        try:
            body = answer.body if isinstance(answer.body, bytes) else b"".join([chunk async for chunk in answer.body])
        finally:
            await let_go(answer.body)
        self._execs[msgspec.json.decode(body)["Id"]] = node
        while len(self._execs) > REMEMBERED:
            del self._execs[next(iter(self._execs))]
        return Response(answer.status, answer.headers, body)


def named(snap: Snapshot, term: str, *, but: str) -> list[tuple[str, Task]]:
    """Containers of tasks, on other nodes than `but`, with this id, else this name, else an id that begins so."""
    known = [
        (report.container_id, task)
        for report in snap.reports.values()
        if report.container_id and (task := snap.tasks.get(report.id)) and task.node_id not in ("", but)
    ]
    name = term.removeprefix("/")
    return (
        [found for found in known if found[0] == term]
        or [found for found in known if container_config.name(found[1]) == name]
        or [found for found in known if term and found[0].startswith(term)]
    )


def in_slot(snap: Snapshot, term: str) -> list[tuple[str, Task]]:
    """What runs as `web.2`, or as `agent.<host>` of a global service: at most one, the newest."""
    service, _, place = term.removeprefix("/").partition(".")
    running = [
        (report.container_id, task)
        for report in snap.reports.values()
        if report.state == TaskState.RUNNING
        and report.container_id
        and (task := snap.tasks.get(report.id))
        and task.service_name == service
        and place in ([str(task.slot)] if task.slot else [task.node_id, node_name(snap, task.node_id)])
    ]
    return sorted(running, key=lambda found: (found[1].created, found[1].id))[-1:]


async def _elsewhere(host: Host, term: str, *, slots: bool) -> tuple[str, Task] | None:
    """The container that is meant, and its task; `None`: this host's engine is to answer, as if we were not there.

    Without `slots`, what runs in a slot is not meant: nobody should remove a container by guessing.
    """
    if host.replica is None:
        return None
    snap = host.replica.snapshot()
    found = named(snap, term, but=host.node_id) or (in_slot(snap, term) if slots else [])
    if not found or (found[0][0] != term and await _knows(host.engine, f"/containers/{quote(term, safe='')}/json")):
        return None
    if len(found) > 1:
        raise Refused(400, f"multiple IDs found with provided prefix: {term}")
    return found[0]


async def _knows(engine: Client, target: str) -> bool:
    """An engine that cannot be reached knows nothing. One that complains of anything but absence does."""
    try:
        return (await engine.request("GET", target, timeout=ANSWERING)).status != 404
    except ConnectFailed:
        return False


async def _owner(host: Host, exec_id: str) -> str:
    """The node whose engine has this exec; "" when it is this host's, or nobody's."""
    if host.replica is None or await _knows(host.engine, f"/exec/{quote(exec_id, safe='')}/json"):
        return ""
    nodes = [
        n.id for n in host.replica.snapshot().nodes.values() if n.state == NodeState.READY and n.id != host.node_id
    ]

    async def has(node: str) -> bool:
        try:
            client, prefix = host.engine_of(node)
            target = f"{prefix}/exec/{quote(exec_id, safe='')}/json"
            return (await client.request("GET", target, timeout=ANSWERING)).status == 200
        except (Refused, ConnectFailed):
            return False

    having = await asyncio.gather(*(has(node) for node in nodes))
    return next((node for node, yes in zip(nodes, having, strict=True) if yes), "")


async def _ask(host: Host, node_id: str, request: Request, path: str) -> Response | Upgraded:
    """The answer of another node's engine. Most calls may take long, so whether the host is there is asked before."""
    client, prefix, speaks = await reach(host, node_id)
    asked, _ = versions.split(request.path)
    version = min(asked, speaks) if asked and speaks else asked
    _, mark, query = request.target.partition("?")
    target = prefix + (f"/v{versions.text(version)}" if version else "") + path + mark + query
    try:
        async with while_up(host, node_id):
            answer = await forward(request, client, target=target, halves=bool(prefix))
    except ConnectFailed as why:
        raise Refused(503, f"node {called(host.replica, node_id)} went away before it had answered: {why}") from why
    if isinstance(answer, Response):
        return answer
    run = answer.run

    async def run_while_up(stream: Stream) -> None:
        with suppress(Refused):  # there is nobody left who could say it
            async with while_up(host, node_id):
                await run(stream)

    return Upgraded(run_while_up, answer.headers, answer.status, answer.reason)


def _undone(host: Host, task: Task, action: str) -> str:
    name = container_config.name(task)
    return (
        f"cannot {action} container {name}: it is a task of service {task.service_name or task.service_id} on node "
        f"{called(host.replica, task.node_id)}, and the swarm decides what becomes of it; use docker service update "
        "(with --force for new tasks)"
    )
