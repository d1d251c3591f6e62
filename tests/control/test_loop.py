"""The loop: coalescing, conflicts, timers, faults of the store and of planners."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec.structs import replace

from afterswarm.control.cache import Cache
from afterswarm.control.loop import Planner, drive
from afterswarm.model.base import Change, Plan
from afterswarm.model.node import Leader
from afterswarm.model.service import Service, ServiceSpec
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task
from afterswarm.ports import Fenced
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.store import SimStore

pytestmark = pytest.mark.looptime(end=36000)


def by_id(change: Change) -> list[str]:
    return [change.obj.id] if isinstance(change.obj, Service) else []


@asynccontextmanager
async def running(store):
    cache = Cache(store, LoopClock(1000.0))
    async with asyncio.TaskGroup() as group:
        run = group.create_task(cache.run())
        await cache.synced.wait()
        yield cache
        run.cancel()


async def driven_for(seconds: float, *args: object, **options: object) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await drive(*args, **options)


def web(name: str = "web") -> Service:
    return Service(id=name, spec=ServiceSpec(name=name))


async def test_a_plan_is_made_again_when_it_asked_to_be() -> None:
    planned: list[float] = []

    def plan(snap: Snapshot, _key: str) -> Plan:
        planned.append(round(snap.now))
        return Plan(wake_at=snap.now + 5) if snap.now < 1014 else Plan()

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, web())])
        await driven_for(3600, cache, by_id, plan)
    assert planned == [1000, 1005, 1010, 1015]


async def test_a_deadline_in_the_past_is_not_a_busy_loop() -> None:
    planned: list[float] = []

    def plan(snap: Snapshot, _key: str) -> Plan:
        planned.append(snap.now)
        return Plan(wake_at=0.0)

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, web())])
        await driven_for(10, cache, by_id, plan)
    assert 10 < len(planned) <= 501


async def test_a_newer_plan_takes_the_place_of_an_older_timer() -> None:
    planned: list[int] = []

    def plan(snap: Snapshot, key: str) -> Plan:
        planned.append(round(snap.now))
        return Plan(wake_at=1010.0) if not snap.services[key].pending_delete else Plan()

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, web())])
        async with asyncio.TaskGroup() as group:
            group.create_task(driven_for(100, cache, by_id, plan))
            await asyncio.sleep(5)
            service = cache.snapshot().services["web"]
            await cache.commit([Change(service, replace(service, pending_delete=True))])
    assert planned == [1000, 1005]


async def test_nothing_fires_after_the_end() -> None:
    planned: list[float] = []

    def plan(snap: Snapshot, _key: str) -> Plan:
        planned.append(snap.now)
        return Plan(wake_at=snap.now + 1)

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, web())])
        await driven_for(3.5, cache, by_id, plan)
        before = len(planned)
        await asyncio.sleep(100)
    assert before == len(planned) == 4


async def test_a_key_touched_many_times_is_planned_once() -> None:
    planned: list[str] = []

    def plan(_snap: Snapshot, key: str) -> Plan:
        planned.append(key)
        return Plan()

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, Task(id=f"t{i}", service_id="s", slot=i)) for i in range(50)])
        await driven_for(1, cache, lambda change: [change.obj.service_id], plan)
    assert planned == ["s"]


async def test_two_loops_that_both_fill_slots_fill_each_once() -> None:
    """Both believe that they lead: the guard of the service lets only one decide at a time."""

    def filler(me: str) -> Planner:
        def plan(snap: Snapshot, key: str) -> Plan:
            have = {task.slot for task in snap.tasks_of(key)}
            missing = [slot for slot in range(1, 6) if slot not in have]
            return Plan([Change(None, Task(id=f"{me}{slot}", service_id=key, slot=slot)) for slot in missing])

        return plan

    for seed in range(30):
        store = SimStore(seed, latency=0.3)
        async with running(store.client("a")) as one, running(store.client("b")) as two:
            await one.commit([Change(None, web())])
            async with asyncio.TaskGroup() as group:
                group.create_task(driven_for(30, one, by_id, filler("a")))
                group.create_task(driven_for(30, two, by_id, filler("b")))
            assert sorted(task.slot for task in one.snapshot().tasks.values()) == [1, 2, 3, 4, 5], seed


async def test_a_planner_that_raises_is_tried_again_later_and_disturbs_nobody(caplog) -> None:
    planned: list[tuple[str, int]] = []

    def plan(snap: Snapshot, key: str) -> Plan:
        planned.append((key, round(snap.now) - 1000))
        if key == "bad" and snap.now < 1005:
            raise ZeroDivisionError
        return Plan()

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, web("bad")), Change(None, web("good"))])
        await driven_for(60, cache, by_id, plan, name="test")
    assert planned == [("bad", 0), ("good", 0), ("bad", 1), ("bad", 3), ("bad", 7)]
    assert "no plan for 'bad'" in caplog.text


async def test_the_store_coming_back_finishes_what_was_planned() -> None:
    def plan(snap: Snapshot, key: str) -> Plan:
        service = snap.services[key]
        return Plan() if service.pending_delete else Plan([Change(service, replace(service, pending_delete=True))])

    store = SimStore(0)
    client = store.client("m1")
    async with running(client) as cache:
        await cache.commit([Change(None, web())])
        client.cut()
        async with asyncio.TaskGroup() as group:
            group.create_task(driven_for(60, cache, by_id, plan))
            await asyncio.sleep(20)
            assert store.rev == 2
            client.heal()
    assert store.objects["service", "web"].pending_delete


async def test_the_end_of_a_term_ends_the_loop_and_stores_nothing() -> None:
    def plan(snap: Snapshot, key: str) -> Plan:
        return Plan([Change(snap.services[key], replace(snap.services[key], pending_delete=True))])

    store = SimStore(0)
    async with running(store) as cache:
        term = await cache.commit([Change(None, Leader(id="leader", node_id="a"))])
        await cache.commit([Change(None, web())])
        leader = cache.snapshot().leader
        await cache.commit([Change(leader, replace(leader, node_id="b"))])
        with pytest.raises(Fenced):
            await drive(cache, by_id, plan, fence=term)
        assert not cache.snapshot().services["web"].pending_delete


async def test_why_is_logged_once_it_is_stored(caplog) -> None:
    caplog.set_level("INFO")

    def plan(snap: Snapshot, key: str) -> Plan:
        service = snap.services[key]
        if service.pending_delete:
            return Plan(why="nothing to do is not worth a line")
        return Plan([Change(service, replace(service, pending_delete=True))], why="web is removed")

    async with running(SimStore(0)) as cache:
        await cache.commit([Change(None, web())])
        await driven_for(5, cache, by_id, plan, name="reap")
    assert [r.getMessage() for r in caplog.records if r.name == "afterswarm.controller"] == ["reap: web is removed"]
