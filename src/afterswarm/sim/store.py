"""The store in memory, with etcd's contract: revisions, guards, a fence, watches from a revision, compaction.

Everybody who uses it has a view of his own (`SimStore.client`) with its own delay, that can be cut from the store: a
commit that was under way when the cut came may have been applied or not, as in life. The same seed gives the same run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from random import Random

import msgspec

from afterswarm.model.base import Change, Obj
from afterswarm.model.snapshot import KIND_OF
from afterswarm.ports import Batch, Compacted, Conflict, Fenced, Unavailable

NOTICED = 2.0  # seconds until a client that is cut off gives up, as the real one's timeout


class SimStore:
    """`latency` is the longest time that one message takes (seconds); 0 still lets others run in between."""

    def __init__(self, rng: Random | int = 0, latency: float = 0.0) -> None:
        self.rng = rng if isinstance(rng, Random) else Random(rng)  # noqa: S311 - repeatable, not secret
        self.latency = latency
        self.rev = 1
        self.compacted = 0  # batches up to this revision are forgotten
        self.objects: dict[tuple[str, str], Obj] = {}
        self.guards: dict[str, int] = {}
        self.swept = 0
        self.log: list[Batch] = []  # one batch for every revision after `compacted`
        self.conflicts = 0
        self.fenced = 0
        self._first = 2  # the revision of log[0]
        self.watchers: dict[asyncio.Event, SimClient] = {}  # set when there is something to look at
        self._own = SimClient(self, "store", Random(self.rng.random()))  # noqa: S311

    def client(self, name: str, latency: float | None = None) -> SimClient:
        """A view for one user of the store, which can be cut off."""
        return SimClient(self, name, Random(self.rng.random()), latency)  # noqa: S311

    def compact(self, rev: int | None = None) -> None:
        """Forget all batches up to `rev` (default: all)."""
        rev = self.rev if rev is None else rev
        self.log = [batch for batch in self.log if batch.rev > rev]
        self._first = max(self._first, rev + 1)
        self.compacted = max(self.compacted, rev)

    async def load(self) -> tuple[int, list[Obj]]:
        return await self._own.load()

    def watch(self, after: int) -> AsyncIterator[Batch]:
        return self._own.watch(after)

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        seen: int,
        guards: Collection[str] = (),
        reads: Collection[str] = (),
        fence: int | None = None,
    ) -> int:
        return await self._own.commit(changes, seen=seen, guards=guards, reads=reads, fence=fence)

    async def sweep(self, most: int) -> bool:
        if len(self.guards) <= most:
            return False
        self.apply([], seen=self.rev, guards=["swept"])
        self.guards, self.swept = {}, self.rev
        return True

    def apply(
        self,
        changes: Sequence[Change],
        *,
        seen: int,
        guards: Collection[str] = (),
        reads: Collection[str] = (),
        fence: int | None = None,
    ) -> int:
        """`ports.Store.commit`, at once."""
        keyed = {(KIND_OF[type(change.obj)], change.obj.id): change for change in changes}
        if len(keyed) != len(changes):
            raise ValueError("a commit changes an object once")
        leader = self.objects.get(("leader", "leader"))
        if fence is not None and (leader is None or leader.rev != fence):
            self.fenced += 1
            raise Fenced
        moved = any(self.guards.get(guard, self.swept) > seen for guard in (*guards, *reads))
        if moved or any(_rev(self.objects.get(key)) != _rev(change.old) for key, change in keyed.items()):
            self.conflicts += 1
            raise Conflict(self.rev)
        if not changes and not guards:
            return self.rev
        self.rev += 1
        stored = []
        for key, change in keyed.items():
            old = self.objects.pop(key, None)
            new = msgspec.structs.replace(change.new, rev=self.rev) if change.new else None
            if new is not None:
                self.objects[key] = new
            stored.append(Change(old, new))
        self.guards.update(dict.fromkeys(guards, self.rev))
        self.log.append(Batch(self.rev, stored))
        for event in self.watchers:
            event.set()
        return self.rev

    def after(self, rev: int) -> list[Batch]:
        """The batches after `rev`."""
        if rev < self.compacted:
            raise Compacted
        return self.log[max(rev + 1 - self._first, 0) :]


class SimClient:
    """One user's view; implements `ports.Store`."""

    def __init__(self, store: SimStore, name: str, rng: Random, latency: float | None = None) -> None:
        self.store = store
        self.name = name
        self.rng = rng
        self.latency = latency  # None: the store's
        self.loss = 0.0  # probability that a request, or its answer, is lost
        self._up = True

    @property
    def up(self) -> bool:
        return self._up

    def cut(self) -> None:
        """Nothing passes from now on, what is under way included."""
        self._up = False
        for event, client in self.store.watchers.items():
            if client is self:
                event.set()

    def heal(self) -> None:
        self._up = True

    async def load(self) -> tuple[int, list[Obj]]:
        await self._pass()
        found = self.store.rev, list(self.store.objects.values())
        await self._pass()
        return found

    async def watch(self, after: int) -> AsyncIterator[Batch]:
        """First an empty batch, once the watch stands. A cut shorter than `NOTICED` only delays."""
        await self._pass()
        seen = after
        woken = asyncio.Event()
        self.store.watchers[woken] = self
        try:
            self.store.after(seen)
            yield Batch(seen, [])
            while True:
                woken.clear()
                for batch in self.store.after(seen):
                    await self._delay()
                    if not self._up:
                        break
                    seen = batch.rev
                    yield batch
                if self._up:
                    await woken.wait()
                else:
                    await self._give_up()
        finally:
            del self.store.watchers[woken]

    async def sweep(self, most: int) -> bool:
        await self._pass()
        return await self.store.sweep(most)

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        seen: int,
        guards: Collection[str] = (),
        reads: Collection[str] = (),
        fence: int | None = None,
    ) -> int:
        await self._pass()
        try:
            rev = self.store.apply(changes, seen=seen, guards=guards, reads=reads, fence=fence)
        except (Conflict, Fenced):
            await self._pass()
            raise
        await self._pass()
        return rev

    async def _delay(self) -> None:
        latency = self.store.latency if self.latency is None else self.latency
        await asyncio.sleep(self.rng.random() * latency)

    async def _give_up(self) -> None:
        await asyncio.sleep(NOTICED)
        if not self._up:
            raise Unavailable(f"{self.name} has no answer")

    async def _pass(self) -> None:
        """One message on its way."""
        await self._delay()
        if not self._up or (self.loss and self.rng.random() < self.loss):
            await asyncio.sleep(NOTICED)
            raise Unavailable(f"{self.name} has no answer")


def _rev(obj: Obj | None) -> int:
    return obj.rev if obj else 0
