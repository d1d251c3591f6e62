"""What every store does, the one in memory and etcd alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from random import Random

import pytest
from msgspec.structs import replace

from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Leader, Node, NodeReport, NodeState, Role, Suspicion
from afterswarm.model.secret import Config, ConfigSpec, Payload, Secret, SecretSpec
from afterswarm.model.service import (
    ContainerSpec,
    Endpoint,
    Mount,
    PortConfig,
    ReplicatedService,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    VirtualIP,
)
from afterswarm.model.snapshot import KINDS
from afterswarm.model.task import Attachment, Report, Task, TaskState
from afterswarm.model.volume import ClusterVolume, ClusterVolumeSpec, Volume
from afterswarm.ports import Batch, Compacted, Conflict, Fenced, Store
from afterswarm.sim.store import SimStore

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["sim", pytest.param("etcd", marks=pytest.mark.real)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "sim":
        yield SimStore(1, latency=0.003)
        return
    async with request.getfixturevalue("one_member")() as one:
        yield one.store


@pytest.fixture
async def compact(store: Store):
    """Forget everything up to a revision."""

    async def forget(rev: int) -> None:
        if isinstance(store, SimStore):
            store.compact(rev)
        else:
            await store._client.request("POST", "/v3/kv/compaction", body=f'{{"revision":"{rev}"}}'.encode())

    return forget


def task(name: str, **fields: object) -> Task:
    return replace(Task(id=name, service_id="s", slot=1), **fields)


async def stored(store: Store) -> dict[str, Obj]:
    _, objects = await store.load()
    return {obj.id: obj for obj in objects}


async def now(store: Store) -> int:
    rev, _ = await store.load()
    return rev


async def until(store: Store, after: int, rev: int) -> list[Batch]:
    """The batches after one revision up to another, but for empty ones."""
    batches = []
    async with aclosing(store.watch(after)) as watched:
        async for batch in watched:
            batches += [batch] if batch.changes else []
            if batch.rev >= rev:
                return batches
    raise AssertionError


async def test_an_empty_store_has_a_revision_and_nothing_in_it(store: Store) -> None:
    rev, objects = await store.load()
    assert rev >= 1
    assert objects == []


async def test_what_was_committed_is_there_with_its_revision(store: Store) -> None:
    rev = await store.commit([Change(None, task("a")), Change(None, task("b"))], seen=await now(store))
    assert await store.load() == (rev, [task("a", rev=rev), task("b", rev=rev)])
    a, b = task("a", rev=rev), task("b", rev=rev)
    later = await store.commit([Change(a, replace(a, node_id="n")), Change(b, None)], seen=rev)
    assert later > rev
    assert await store.load() == (later, [task("a", node_id="n", rev=later)])


async def test_every_kind_of_object_comes_back_as_it_went(store: Store) -> None:
    container = ContainerSpec(
        image="nginx", env=["A=ü=1"], mounts=[Mount(source="data", target="/data")], stop_grace_period=0
    )
    spec = ServiceSpec(
        name="web",
        labels={"a": "b"},
        task_template=TaskSpec(container_spec=container, restart_policy=RestartPolicy(delay=0)),
        mode=ServiceMode(replicated=ReplicatedService(replicas=0)),
    )
    endpoint = Endpoint(ports=[PortConfig(target_port=80)], virtual_ips=[VirtualIP(network_id="n", addr="10.0.0.2/24")])
    objects: list[Obj] = [
        Cluster(id="cluster", ca_cert="PEM"),
        ClusterVolume(id="cv", name="data", labels={"a": "b"}, driver="csi", spec=ClusterVolumeSpec(group="g")),
        Config(id="c", spec=ConfigSpec(name="c", data="aGk=")),
        Guest(id="g", node_id="n", attachment=Attachment(network_id="net", address="10.0.0.8/24"), running=True),
        Leader(id="leader", node_id="n"),
        Network(id="net", spec=NetworkSpec(name="net"), subnet="10.0.0.0/24", vni=4097, gateways={"n": "10.0.0.3"}),
        Node(id="n", role=Role.MANAGER, state=NodeState.READY, state_since=1.5),
        NodeReport(id="n", address="10.77.0.1", member_id="8e9e05c52164694d"),
        Payload(id="c.1", owner="c", data_version=1, data="aGk="),
        Report(id="t", node_id="n", state=TaskState.FAILED, exit_code=137, since=1750000000.123456),
        Secret(id="sec", spec=SecretSpec(name="sec"), sealed="c2VhbGVk"),
        Service(id="s", spec=spec, previous_spec=spec, spec_version=3, endpoint=endpoint),
        Suspicion(id="n", nodes=("x", "y")),
        Task(
            id="t",
            service_id="s",
            desired=TaskState.SHUTDOWN,
            attachments=[Attachment(network_id="net", address="10.0.0.9/24")],
            spec=spec.task_template,
        ),
        Volume(id="v", name="data", service="web", slot=1, node_id="n"),
    ]
    assert {type(obj) for obj in objects} == set(KINDS.values())
    rev = await store.commit([Change(None, obj) for obj in objects], seen=await now(store))
    found = [replace(obj, rev=rev) for obj in objects]

    def order(obj: Obj) -> tuple[str, str]:
        return type(obj).__name__, obj.id

    assert sorted((await store.load())[1], key=order) == sorted(found, key=order)
    (batch,) = await until(store, rev - 1, rev)
    assert sorted((c.new for c in batch.changes), key=order) == sorted(found, key=order)


async def test_a_create_finds_nothing_and_a_change_what_it_was_made_from(store: Store) -> None:
    rev = await store.commit([Change(None, task("a"))], seen=await now(store))
    old = task("a", rev=rev)
    with pytest.raises(Conflict):
        await store.commit([Change(None, task("a"))], seen=rev)
    new = await store.commit([Change(old, replace(old, node_id="n"))], seen=rev)
    for stale in (Change(old, replace(old, node_id="m")), Change(old, None)):
        with pytest.raises(Conflict) as lost:
            await store.commit([stale], seen=new)
        assert lost.value.rev >= new
    gone = await store.commit([Change(replace(old, rev=new), None)], seen=new)
    for stale in (Change(replace(old, rev=new), old), Change(replace(old, rev=new), None)):
        with pytest.raises(Conflict):
            await store.commit([stale], seen=gone)
    await store.commit([Change(None, task("a"))], seen=gone)


async def test_all_or_nothing(store: Store) -> None:
    rev = await store.commit([Change(None, task("a"))], seen=await now(store))
    with pytest.raises(Conflict):
        await store.commit([Change(None, task("b")), Change(None, task("a"))], seen=rev, guards=["g"])
    assert await store.load() == (rev, [task("a", rev=rev)])
    await store.commit([Change(None, task("b"))], seen=rev, guards=["g"])


async def test_an_object_is_changed_once_in_a_commit(store: Store) -> None:
    with pytest.raises(ValueError, match="once"):
        await store.commit([Change(None, task("a")), Change(None, task("a"))], seen=1)


async def test_a_guard_that_moved_refuses_who_planned_before(store: Store) -> None:
    seen = await now(store)
    won = await store.commit([Change(None, task("a"))], seen=seen, guards=["service/s", "ports"])
    for guards, reads in ((["service/s"], []), ([], ["ports"]), (["other"], ["service/s"])):
        with pytest.raises(Conflict) as lost:
            await store.commit([Change(None, task("b"))], seen=seen, guards=guards, reads=reads)
        assert lost.value.rev >= won
    await store.commit([Change(None, task("b"))], seen=won, guards=["service/s"], reads=["ports"])


async def test_reading_moves_nothing(store: Store) -> None:
    seen = await now(store)
    await store.commit([Change(None, task("a"))], seen=seen, reads=["ports"])
    await store.commit([Change(None, task("b"))], seen=seen, guards=["ports"])


async def test_guards_are_forgotten_and_nobody_decides_from_an_older_picture(store: Store) -> None:
    seen = await now(store)
    await store.commit([Change(None, task("a"))], seen=seen, guards=["service/s", "ports"])
    late = await now(store)
    assert not await store.sweep(2)
    assert await store.sweep(1)
    assert not await store.sweep(0)
    for guards, reads in ((["service/s"], []), ([], ["another"])):
        with pytest.raises(Conflict):
            await store.commit([Change(None, task("b"))], seen=late, guards=guards, reads=reads)
    rev = await store.commit([Change(None, task("b"))], seen=await now(store), guards=["service/s"], reads=["ports"])
    with pytest.raises(Conflict):
        await store.commit([Change(None, task("c"))], seen=rev - 1, guards=["service/s"])


async def test_a_commit_may_only_ask_or_only_move_guards(store: Store) -> None:
    seen = await now(store)
    assert await store.commit([], seen=seen, reads=["ports"]) == seen
    moved = await store.commit([], seen=seen, guards=["ports"])
    assert moved > seen
    with pytest.raises(Conflict):
        await store.commit([], seen=seen, reads=["ports"])


async def test_a_guard_outlives_what_it_guarded(store: Store) -> None:
    seen = await store.commit([Change(None, task("a"))], seen=await now(store))
    await store.commit([Change(task("a", rev=seen), None)], seen=seen, guards=["service/s"])
    with pytest.raises(Conflict):
        await store.commit([Change(None, task("b"))], seen=seen, guards=["service/s"])


async def test_only_the_leader_of_the_present_term_may_write(store: Store) -> None:
    seen = await now(store)
    with pytest.raises(Fenced):
        await store.commit([Change(None, task("a"))], seen=seen, fence=seen)
    first = await store.commit([Change(None, Leader(id="leader", node_id="m1"))], seen=seen)
    rev = await store.commit([Change(None, task("a"))], seen=first, fence=first)
    old = Leader(id="leader", node_id="m1", rev=first)
    second = await store.commit([Change(old, replace(old, node_id="m2"))], seen=rev)
    with pytest.raises(Fenced):
        await store.commit([Change(None, task("b"))], seen=second, fence=first)
    with pytest.raises(Fenced):
        await store.commit([Change(None, task("a"))], seen=second, fence=first)  # a conflict, too
    with pytest.raises(Conflict):
        await store.commit([Change(None, task("a"))], seen=second, fence=second)
    await store.commit([Change(None, task("b"))], seen=second, fence=second)
    assert set(await stored(store)) == {"a", "b", "leader"}


async def test_of_many_who_change_one_thing_at_once_one_wins(store: Store) -> None:
    rev = await store.commit([Change(None, task("a"))], seen=await now(store))
    old = task("a", rev=rev)

    async def attempt(number: int) -> int:
        try:
            return await store.commit([Change(old, replace(old, slot=number))], seen=rev)
        except Conflict:
            return 0

    won = [n for n in await asyncio.gather(*(attempt(n) for n in range(20))) if n]
    assert len(won) == 1


async def test_of_many_who_fill_one_slot_at_once_one_wins(store: Store) -> None:
    """They write different objects: only the guard keeps them apart."""
    seen = await now(store)

    async def attempt(number: int) -> int:
        try:
            return await store.commit([Change(None, task(f"t{number}"))], seen=seen, guards=["service/s"])
        except Conflict:
            return 0

    won = [n for n in await asyncio.gather(*(attempt(n) for n in range(20))) if n]
    assert len(won) == 1
    assert len(await stored(store)) == 1


async def test_a_watch_shows_every_commit_once_whole_and_in_order(store: Store) -> None:
    start = await now(store)
    one = await store.commit([Change(None, task("a")), Change(None, task("b"))], seen=start, guards=["g"])
    a, b = task("a", rev=one), task("b", rev=one)
    moved = replace(a, node_id="n")
    two = await store.commit([Change(a, moved), Change(b, None)], seen=one)
    three = await store.commit([], seen=two, guards=["g"])
    four = await store.commit([Change(None, b)], seen=three)
    batches = await until(store, start, four)
    assert [batch.rev for batch in batches] == [one, two, four]
    first, second, third = ({c.obj.id: (c.old, c.new) for c in batch.changes} for batch in batches)
    assert first == {"a": (None, a), "b": (None, b)}
    assert second == {"a": (a, replace(moved, rev=two)), "b": (b, None)}
    assert third == {"b": (None, replace(b, rev=four))}
    assert [batch.rev for batch in await until(store, two, four)] == [four]


async def test_a_watch_says_that_it_stands_and_then_waits(store: Store) -> None:
    start = await now(store)
    async with aclosing(store.watch(start)) as watched:
        assert await anext(watched) == Batch(start, [])
        rev = await store.commit([], seen=start, guards=["g"])
        assert await anext(watched) == Batch(rev, [])
        later = await store.commit([Change(None, task("a"))], seen=rev)
        assert await anext(watched) == Batch(later, [Change(None, task("a", rev=later))])


async def test_what_is_forgotten_cannot_be_watched(store: Store, compact) -> None:
    start = await now(store)
    rev = await store.commit([Change(None, task("a"))], seen=start)
    later = await store.commit([Change(task("a", rev=rev), task("a", node_id="n"))], seen=rev)
    await compact(later)
    with pytest.raises(Compacted):
        await until(store, start, later)
    assert (await store.load())[0] == later
    last = await store.commit([Change(None, task("b"))], seen=later)
    assert [batch.rev for batch in await until(store, later, last)] == [last]


async def test_more_than_a_page(store: Store) -> None:
    many = [task(f"t{n:04}", slot=n) for n in range(2500)]
    rev = await store.commit([Change(None, t) for t in many], seen=await now(store), guards=["service/s"])
    await store.commit([], seen=rev, guards=[f"many/{n:04}" for n in range(1200)])
    _, objects = await store.load()
    assert sorted(obj.id for obj in objects) == [t.id for t in many]
    (batch,) = await until(store, rev - 1, rev)
    assert len(batch.changes) == 2500


@pytest.mark.parametrize("seed", range(3))
async def test_the_watch_tells_the_same_story_as_the_store(store: Store, seed: int) -> None:
    """Three writers from their own seeds; whoever replays the watch arrives at what a listing shows."""
    start = await now(store)

    async def write(rng: Random) -> int:
        rev = start
        for _ in range(20):
            _, objects = await store.load()
            old = rng.choice(objects) if objects and rng.random() < 0.6 else None
            new = task(f"t{rng.randrange(8)}", slot=rng.randrange(9)) if old is None or rng.random() < 0.6 else None
            if old and new:
                new = replace(new, id=old.id)
            try:
                rev = await store.commit([Change(old, new)], seen=start)
            except Conflict as lost:
                rev = lost.rev
        return rev

    revs = await asyncio.gather(*(write(Random(f"{seed}{n}")) for n in range(3)))  # noqa: S311 - repeatable
    rev, objects = await store.load()
    assert rev >= max(revs)
    replayed: dict[str, Obj] = {}
    last = start
    for batch in await until(store, start, rev):
        assert batch.rev > last
        last = batch.rev
        for change in batch.changes:
            assert replayed.pop(change.obj.id, None) == change.old
            if change.new:
                replayed[change.new.id] = change.new
    assert replayed == {obj.id: obj for obj in objects}
