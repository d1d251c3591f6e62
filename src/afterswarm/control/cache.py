"""A manager's own view of the store: every object in memory, slightly late, and the way to write through it.

Reads never leave the process. A write waits until the view shows it, so that whoever wrote sees what he wrote. The
view's dictionaries and indexes are changed in place, batch by batch, and shared with the snapshots: that is what makes
a snapshot free, and why it is only good until the next `await`.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

import msgspec

from afterswarm.core.cluster.guards import guards_of
from afterswarm.model.base import Change, Obj
from afterswarm.model.snapshot import KIND_OF, KINDS, Snapshot
from afterswarm.model.task import Task
from afterswarm.ports import Batch, Clock, Compacted, Store, Unavailable

SEEN_WITHIN = 5.0  # seconds for the own view to show a commit; a watch normally takes milliseconds
RETRY = 0.2  # seconds between attempts to watch again

log = logging.getLogger(__name__)


class Cache:
    """Implements `ports.Replica`. `run` keeps it up to date; `synced` is set once it has shown anything at all."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.synced = asyncio.Event()
        self._store = store
        self._clock = clock
        self._rev = 0
        self._healthy = False
        self._kinds: dict[str, dict[str, Obj]] = {kind: {} for kind in KINDS}
        self._by_service: dict[str, list[Task]] = {}
        self._by_node: dict[str, list[Task]] = {}
        self._fields: dict[str, Any] = {kind.replace("-", "_") + "s": found for kind, found in self._kinds.items()}
        self._fields |= {"tasks_by_service": self._by_service, "tasks_by_node": self._by_node}
        self._listeners: dict[asyncio.Queue[list[Change]], None] = {}
        self._waiting: dict[asyncio.Future[None], int] = {}

    @property
    def healthy(self) -> bool:
        """Whether the view follows the store. When not, it shows what was, and reads should say so."""
        return self._healthy

    @property
    def rev(self) -> int:
        return self._rev

    # ---- ports.Replica -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return Snapshot(rev=self._rev, now=self._clock.now(), **self._fields)

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        reads: Collection[str] = (),
        seen: int | None = None,
        fence: int | None = None,
    ) -> int:
        if not changes and not reads:
            return self._rev
        now = self._clock.now()
        rev = await self._store.commit(
            [Change(change.old, _stamped(change, now)) for change in changes],
            seen=self._rev if seen is None else seen,
            guards=sorted({guard for change in changes for guard in guards_of(change)}),
            reads=reads,
            fence=fence,
        )
        try:
            async with asyncio.timeout(SEEN_WITHIN):
                await self.reach(rev)
        except TimeoutError:
            raise Unavailable from None
        return rev

    async def reach(self, rev: int) -> None:
        if self._rev >= rev:
            return
        reached = asyncio.get_running_loop().create_future()
        self._waiting[reached] = rev
        try:
            await reached
        finally:
            self._waiting.pop(reached, None)

    async def changes(self) -> AsyncIterator[list[Change]]:
        await self.synced.wait()
        queue: asyncio.Queue[list[Change]] = asyncio.Queue()
        queue.put_nowait([Change(None, obj) for found in self._kinds.values() for obj in found.values()])
        self._listeners[queue] = None
        try:
            while True:
                yield await queue.get()
        finally:
            del self._listeners[queue]

    # ---- keeping up --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the store for ever, whatever happens to it."""
        loaded = False
        while True:
            try:
                if not loaded:
                    await self._load()
                    loaded = True
                async for batch in self._store.watch(self._rev):
                    self._healthy = True
                    self._take(batch)
            except Compacted:
                log.info("revision %d is no longer kept: loading everything again", self._rev)
                loaded = False
            except Unavailable as error:
                if self._healthy or not self.synced.is_set():
                    log.warning("the store cannot be followed: %s", error)
                self._healthy = False
                await self._clock.sleep(RETRY)

    async def _load(self) -> None:
        rev, objects = await self._store.load()
        self._take(Batch(rev, list(_difference(self._kinds, objects))))
        self._rev = rev  # less than before when the store was restored from a copy
        self.synced.set()

    def _take(self, batch: Batch) -> None:
        """Make the view show a batch, and tell everybody. Sync: nobody ever sees half of it."""
        for change in batch.changes:
            kind = self._kinds[KIND_OF[type(change.obj)]]
            old, new = kind.pop(change.obj.id, None), change.new
            if new is not None:
                kind[new.id] = new
            if isinstance(change.obj, Task):
                self._index(old, new)
        self._rev = max(self._rev, batch.rev)
        if batch.changes:
            for queue in self._listeners:
                queue.put_nowait(batch.changes)
        for reached, rev in list(self._waiting.items()):
            if rev <= self._rev and not reached.done():
                reached.set_result(None)

    def _index(self, old: Obj | None, new: Obj | None) -> None:
        if isinstance(old, Task):
            _remove(self._by_service, old.service_id, old)
            _remove(self._by_node, old.node_id, old)
        if isinstance(new, Task):
            insort(self._by_service.setdefault(new.service_id, []), new, key=_order)
            if new.node_id:
                insort(self._by_node.setdefault(new.node_id, []), new, key=_order)


def _order(task: Task) -> tuple[int, str]:
    return task.slot, task.id


def _remove(index: dict[str, list[Task]], key: str, task: Task) -> None:
    tasks = index.get(key)
    if tasks is None:
        return
    at = bisect_left(tasks, _order(task), key=_order)
    if at < len(tasks) and tasks[at].id == task.id:
        del tasks[at]
    if not tasks:
        del index[key]


def _stamped(change: Change, now: float) -> Obj | None:
    if change.new is None:
        return None
    created = change.old.created if change.old else now
    return msgspec.structs.replace(change.new, created=created, updated=now)


def _difference(kinds: dict[str, dict[str, Obj]], objects: Iterable[Obj]) -> Iterable[Change]:
    """What happened between the view and a fresh listing."""
    fresh = {(KIND_OF[type(obj)], obj.id): obj for obj in objects}
    for kind, found in kinds.items():
        for old in found.values():
            if (kind, old.id) not in fresh:
                yield Change(old, None)
    for (kind, object_id), new in fresh.items():
        old_obj = kinds[kind].get(object_id)
        if old_obj is None or old_obj.rev != new.rev:
            yield Change(old_obj, new)
