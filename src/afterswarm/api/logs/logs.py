"""Logs of services and tasks: the logs of their containers, asked of the engines that have them, line by line in one
stream.

An engine that cannot be asked does not keep the others from answering: what is missing is said at the end, or, to
whoever follows, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

import msgspec

from afterswarm.api import lookup, versions
from afterswarm.api.host import Host
from afterswarm.api.logs import frames
from afterswarm.api.logs.query import Query
from afterswarm.api.reach import called, reach
from afterswarm.api.views import render
from afterswarm.api.write import replica_of, snapshot_of
from afterswarm.http.children import Spawn, children
from afterswarm.http.message import Request, Response
from afterswarm.model.refused import Refused
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Replica

PREFIX = "com.docker.swarm"
ANSWERING = 10.0  # seconds for an engine that is there to begin its answer
_TERMINAL = "application/vnd.docker.raw-stream"
_FRAMES = "application/vnd.docker.multiplexed-stream"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One container of one task."""

    task_id: str
    service_id: str
    node_id: str
    container_id: str
    terminal: bool

    @property
    def details(self) -> bytes:
        ids = {"node": self.node_id, "service": self.service_id, "task": self.task_id}
        return frames.details({f"{PREFIX}.{word}.id": value for word, value in ids.items()})


Select = Callable[[Snapshot], Iterable[Task]]


async def of_service(host: Host, request: Request, id: str) -> Response:  # noqa: A002 - the route's word
    service = lookup.service(snapshot_of(host), id)
    container = service.spec.task_template.container_spec
    return _answer(
        host,
        request,
        lambda snap: snap.tasks_of(service.id),
        lives=lambda snap: service.id in snap.services,
        terminal=bool(container and container.tty),
    )


async def of_task(host: Host, request: Request, id: str) -> Response:  # noqa: A002
    task = lookup.task(snapshot_of(host), id)

    def select(snap: Snapshot) -> list[Task]:
        return [snap.tasks[task.id]] if task.id in snap.tasks else []

    return _answer(
        host,
        request,
        select,
        lives=lambda snap: any(snap.state_of(task) <= TaskState.RUNNING for task in select(snap)),
        terminal=_terminal(task),
    )


def _answer(
    host: Host, request: Request, select: Select, *, lives: Callable[[Snapshot], bool], terminal: bool
) -> Response:
    query = Query.of(request)
    stream = _Stream(host, replica_of(host), query, select, lives, framed=not terminal)
    asked, _ = versions.split(request.path)
    named = _TERMINAL if terminal or (asked and asked < (1, 42)) else _FRAMES
    return Response(200, [("Content-Type", named)], stream.pieces())


def sources(snap: Snapshot, tasks: Iterable[Task]) -> list[Source]:
    """The containers of these tasks, those of the past included."""
    return [
        Source(
            task_id=task.id,
            service_id=task.service_id,
            node_id=task.node_id,
            container_id=report.container_id,
            terminal=_terminal(task),
        )
        for task in tasks
        if (report := snap.reports.get(task.id)) and report.container_id and task.node_id
    ]


def _terminal(task: Task) -> bool:
    return bool(task.spec.container_spec and task.spec.container_spec.tty)


class _Stream:
    """One answer: a reader per container, all into one short queue, so that a slow client slows the engines."""

    def __init__(
        self,
        host: Host,
        replica: Replica,
        query: Query,
        select: Select,
        lives: Callable[[Snapshot], bool],
        *,
        framed: bool,
    ) -> None:
        self._host = host
        self._replica = replica
        self._query = query
        self._select = select
        self._lives = lives
        self._framed = framed
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=16)  # None: look again at what there is
        self._known: set[str] = set()  # containers
        self._reading = 0
        self._missing: dict[str, str] = {}  # node id -> why it did not answer

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async with children() as spawn:
            self._begin(spawn, whole=False)
            if self._query.follow:
                spawn(self._watch())
            while self._reading or (self._query.follow and self._lives(self._replica.snapshot())):
                piece = await self._queue.get()
                if piece is not None:
                    yield piece
                elif self._query.follow:
                    self._begin(spawn, whole=True)
            while not self._queue.empty():
                if (piece := self._queue.get_nowait()) is not None:
                    yield piece
        if self._missing:
            yield self._complaint()

    def _begin(self, spawn: Spawn, *, whole: bool) -> None:
        """Read the containers that are new since the last call."""
        snap = self._replica.snapshot()
        for source in sources(snap, self._select(snap)):
            if source.container_id not in self._known:
                self._known.add(source.container_id)
                self._reading += 1
                spawn(self._read(source, whole=whole))

    async def _watch(self) -> None:
        async for batch in self._replica.changes():
            if any(isinstance(change.obj, Report | Service) for change in batch):
                await self._queue.put(None)

    async def _read(self, source: Source, *, whole: bool) -> None:
        try:
            await self._copy(source, whole=whole)
        except Refused as why:
            await self._lacks(source, why.message)
        except OSError:
            await self._lacks(source, f"node {called(self._replica, source.node_id)} is not available")
        self._reading -= 1
        await self._queue.put(None)

    async def _copy(self, source: Source, *, whole: bool) -> None:
        client, prefix, _ = await reach(self._host, source.node_id)
        words = source.details
        async with asyncio.timeout(ANSWERING) as patience:
            target = prefix + self._query.target(source.container_id, whole=whole)
            async with client.stream("GET", target) as reply:
                patience.reschedule(None)
                if reply.status == 404:
                    return  # removed meanwhile
                if reply.status != 200:
                    where = called(self._replica, source.node_id)
                    raise Refused(reply.status, f"node {where}: {(await reply.reply()).message}")
                read = frames.lines if source.terminal else frames.frames
                async for kind, said in read(reply.chunks()):
                    line = said
                    if self._query.details:
                        line = frames.explained(said, words, timestamps=self._query.timestamps)
                    await self._say(kind, line)

    async def _say(self, kind: int, line: bytes) -> None:
        await self._queue.put(frames.frame(kind, line) if self._framed else line)

    async def _lacks(self, source: Source, why: str) -> None:
        """One line for whoever follows; the others are told at the end."""
        if not self._query.follow:
            self._missing[source.node_id] = why
            return
        stamp = f"{render.time(self._host.clock.now())} ".encode() if self._query.timestamps else b""
        details = source.details + b" " if self._query.details else b""
        await self._say(frames.ERRORS, stamp + details + f"warning: incomplete log stream: {why}\n".encode())

    def _complaint(self) -> bytes:
        why = ", ".join(self._missing[node] for node in sorted(self._missing))
        words = (
            "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. "
            f"some logs could not be retrieved for the following reasons: {why}"
        ).encode()
        return frames.frame(frames.SYSTEM_ERROR, words) if self._framed else words + b"\n"


ROUTES = [
    ("GET", "/services/{id}/logs", of_service),
    ("GET", "/tasks/{id}/logs", of_task),
]
