"""The manager's view: it follows the store through compaction and cuts, and its indexes are always right."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random

import pytest
from msgspec.structs import replace

from afterswarm.control.cache import Cache
from afterswarm.model.base import Change
from afterswarm.model.service import Service, ServiceSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Conflict, Unavailable
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimClient, SimStore

pytestmark = pytest.mark.looptime(end=36000)


@asynccontextmanager
async def running(store: SimStore | SimClient):
    cache = Cache(store, LoopClock(1000.0))
    async with asyncio.TaskGroup() as group:
        run = group.create_task(cache.run())
        await cache.synced.wait()
        yield cache
        run.cancel()


def web(name: str = "web") -> Service:
    return Service(id=f"id-{name}", spec=ServiceSpec(name=name))


async def test_a_write_is_seen_by_who_wrote_it_and_stamped() -> None:
    async with running(SimStore(1, latency=0.3)) as cache:
        await asyncio.sleep(5)
        rev = await cache.commit([Change(None, web())])
        (service,) = cache.snapshot().services.values()
        assert service.rev == rev == cache.snapshot().rev
        assert service.created == service.updated == pytest.approx(1005, abs=1)
        await asyncio.sleep(10)
        await cache.commit([Change(service, replace(service, pending_delete=True))])
        (later,) = cache.snapshot().services.values()
        assert later.created == service.created
        assert later.updated == pytest.approx(service.updated + 10, abs=1)


async def test_a_plan_from_an_old_view_is_refused_by_its_guards() -> None:
    async with running(SimStore(1)) as cache:
        await cache.commit([Change(None, web())])
        seen = cache.snapshot().rev
        await cache.commit([Change(None, Task(id="a", service_id="id-web", slot=1))], seen=seen)
        with pytest.raises(Conflict):
            await cache.commit([Change(None, Task(id="b", service_id="id-web", slot=1))], seen=seen)


async def test_what_was_only_read_is_checked_too() -> None:
    async with running(SimStore(1)) as cache:
        await cache.commit([Change(None, web("a")), Change(None, web("b"))])
        seen = cache.snapshot().rev
        a, b = cache.snapshot().services["id-a"], cache.snapshot().services["id-b"]
        await cache.commit([Change(b, replace(b, pending_delete=True))])
        with pytest.raises(Conflict):
            await cache.commit([Change(a, replace(a, pending_delete=True))], reads=["service/id-b"], seen=seen)
        await cache.commit([Change(a, replace(a, pending_delete=True))], seen=seen)


async def test_nothing_to_write_is_not_written() -> None:
    store = SimStore(1)
    async with running(store) as cache:
        assert await cache.commit([]) == store.rev == 1


async def test_compaction_while_away_is_told_as_changes() -> None:
    store = SimStore(1)
    client = store.client("m1")
    async with running(client) as cache:
        await cache.commit([Change(None, web("stays")), Change(None, web("goes")), Change(None, web("moves"))])
        told: list[Change] = []

        async def listen() -> None:
            async for changes in cache.changes():
                told.extend(changes)

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen())
            await asyncio.sleep(1)
            told.clear()
            client.cut()
            await asyncio.sleep(5)
            assert not cache.healthy
            gone, moved = cache.snapshot().services["id-goes"], cache.snapshot().services["id-moves"]
            await store.commit([Change(gone, None), Change(None, web("new"))], seen=store.rev)
            rev = await store.commit([Change(moved, replace(moved, pending_delete=True))], seen=store.rev)
            store.compact()
            client.heal()
            await cache.reach(rev)
            await asyncio.sleep(1)
            assert cache.healthy
            listening.cancel()
        assert sorted((c.obj.id, c.old is None, c.new is None) for c in told) == [
            ("id-goes", False, True),
            ("id-moves", False, False),
            ("id-new", True, False),
        ]
        assert sorted(cache.snapshot().services) == ["id-moves", "id-new", "id-stays"]


async def test_a_manager_that_is_cut_off_says_so_and_comes_back() -> None:
    store = SimStore(1, latency=0.05)
    client = store.client("m1")
    async with running(client) as cache:
        await asyncio.sleep(1)
        assert cache.healthy
        client.cut()
        with pytest.raises(Unavailable):
            await cache.commit([Change(None, web())])
        await asyncio.sleep(3)
        assert not cache.healthy
        client.heal()
        await asyncio.sleep(3)
        assert cache.healthy
        await cache.commit([Change(None, web())])


async def test_a_commit_whose_answer_was_lost_shows_in_the_view_after_all() -> None:
    store = SimStore(1)
    client = store.client("m1")
    async with running(client) as cache:

        async def cut_once_applied() -> None:
            while store.rev == 1:  # noqa: ASYNC110 - before anything else happens
                await asyncio.sleep(0)
            client.cut()

        async with asyncio.TaskGroup() as group:
            group.create_task(cut_once_applied())
            with pytest.raises(Unavailable):
                await cache.commit([Change(None, web())])
        client.heal()
        await cache.reach(2)
        assert cache.snapshot().services


@pytest.mark.parametrize("seed", range(20))
async def test_the_view_equals_a_snapshot_built_from_nothing(seed: int) -> None:
    rng = Random(seed)  # noqa: S311 - repeatable
    store = SimStore(seed, latency=0.1)
    async with running(store.client("m1")) as cache:
        for _ in range(60):
            objects = list(store.objects.values())
            old = rng.choice(objects) if objects and rng.random() < 0.7 else None
            match old:
                case None:
                    new = rng.choice(
                        (
                            Task(id=f"t{rng.random()}", service_id=rng.choice("st"), slot=rng.randrange(4)),
                            Report(id=f"r{rng.random()}"),
                        )
                    )
                case Task() if rng.random() < 0.6:
                    new = replace(old, node_id=rng.choice(["", "a", "b"]), state=rng.choice(list(TaskState)))
                case _:
                    new = None
            if new or old:
                await store.commit([Change(old, new)], seen=store.rev)
            if rng.random() < 0.1:
                store.compact()
        await cache.reach(store.rev)
        snap = cache.snapshot()
        assert snap == Snapshot.of(store.objects.values(), rev=store.rev, now=snap.now)


async def test_everybody_who_listens_hears_everything_once() -> None:
    store = SimStore(3, latency=0.05)
    async with running(store.client("m1")) as cache:
        await cache.commit([Change(None, web("first"))])
        heard: list[list[str]] = [[], []]

        async def listen(into: list[str]) -> None:
            async for changes in cache.changes():
                into.extend(change.obj.id for change in changes)

        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(listen(into)) for into in heard]
            await asyncio.sleep(0)
            await cache.commit([Change(None, web("second"))])
            await asyncio.sleep(1)
            for task in listening:
                task.cancel()
        assert heard == [["id-first", "id-second"]] * 2
