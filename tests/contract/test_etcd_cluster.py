"""Three real members: joining as learners, losing the leader, losing the quorum, and what a worker may not do."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from afterswarm.control.cache import Cache
from afterswarm.model.base import Change
from afterswarm.model.node import Role
from afterswarm.model.refused import Refused
from afterswarm.model.task import Task
from afterswarm.ports import Conflict, Unavailable
from afterswarm.sim.clock import LoopClock

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


async def eventually(what: Callable[[], Awaitable[Any]], within: float = 20.0) -> Any:
    """The answer, once it is one."""
    async with asyncio.timeout(within):
        while True:
            with suppress(Unavailable, Refused):
                if answer := await what():
                    return answer
            await asyncio.sleep(0.02)


async def initial_cluster(first: Any, joining: Any) -> str:
    known = {m.name or joining.server.name: m.peer_url for m in await first.members.members()}
    return ",".join(f"{name}={url}" for name, url in known.items())


@pytest.fixture
async def three(member: Callable[..., Any]) -> AsyncIterator[list[Any]]:
    """Founded by one, joined by two."""
    async with trio(member) as members:
        yield members


@asynccontextmanager
async def trio(member: Callable[..., Any]) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        first = member("m1")
        await stack.enter_async_context(first.running())
        await first.ready()
        members = [first]
        for name in ("m2", "m3"):
            asked = member(name)
            member_id = await eventually(lambda peer=asked: first.members.add_learner(peer.server.peer_url))
            asked.server._initial_cluster = await initial_cluster(first, asked)
            asked.server._existing = True
            await stack.enter_async_context(asked.running())

            async def promoted(member_id: str = member_id) -> bool:
                await first.members.promote(member_id)
                return True

            await eventually(promoted)
            await asked.ready()
            members.append(asked)
        yield members


def task(name: str) -> Change:
    return Change(None, Task(id=name, service_id="s"))


async def leader_of(members: list[Any]) -> Any:
    statuses = [await m.members.status() for m in members]
    (leading,) = (m for m, s in zip(members, statuses, strict=True) if s.leader == s.member_id)
    return leading


async def test_a_learner_joins_catches_up_and_votes(member: Callable[..., Any], one_member) -> None:
    async with one_member() as first:
        await first.store.commit([task(f"t{n}") for n in range(300)], seen=1)
        second = member("m2")
        member_id = await first.members.add_learner(second.server.peer_url)
        with pytest.raises(Refused, match="in sync"):
            await first.members.promote(member_id)
        assert [(m.name, m.learner) for m in sorted(await first.members.members(), key=lambda m: m.learner)] == [
            ("m1", False),
            ("", True),
        ]
        with pytest.raises(Refused, match="too many learner"):
            await first.members.add_learner("https://127.0.0.3:2380")
        second.server._initial_cluster = await initial_cluster(first, second)
        second.server._existing = True
        async with second.running():

            async def learning() -> bool:
                return (await second.members.status()).learner

            assert await eventually(learning)
            with pytest.raises(Unavailable):
                await second.store.load()

            async def promoted() -> bool:
                await first.members.promote(member_id)
                return True

            await eventually(promoted)
            await second.ready()
            assert [m.learner for m in await second.members.members()] == [False, False]
            assert len((await second.store.load())[1]) == 300
            await first.members.move_leader(member_id)
            assert (await second.members.status()).leader == member_id
            status = await first.members.status()

            async def removed() -> bool:
                await second.members.remove(status.member_id)  # refused until the two have known each other for 5 s
                return True

            await eventually(removed)
            assert [m.id for m in await second.members.members()] == [member_id]
            await second.store.commit([task("alone")], seen=10)


async def test_the_leader_dies_and_no_acknowledged_write_is_lost(three: list[Any]) -> None:
    leading = await leader_of(three)
    others = [m for m in three if m is not leading]
    acknowledged: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    times: list[float] = []
    killed = 0.0

    async def write(survivor: Any, who: int) -> None:
        for number in range(100_000):
            name = f"t-{who}-{number}"
            with suppress(Unavailable):
                acknowledged[name] = await survivor.store.commit([task(name)], seen=0)
                times.append(loop.time())
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(m, n)) for n, m in enumerate(others)]
        await asyncio.sleep(1)
        killed = loop.time()
        pid = leading.server.pid
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(4)
        for writer in writers:
            writer.cancel()
    before = sum(t < killed for t in times)
    gap = max(b - a for a, b in pairwise(times))
    print(f"\n{before} writes before, {len(times) - before} after; {gap:.2f} s without one")
    assert before > 10
    assert len(times) > before + 10
    assert gap < 4
    for survivor in others:
        found = {obj.id: obj.rev for obj in (await survivor.store.load())[1]}
        assert acknowledged.items() <= found.items()
    await leading.ready()  # it was started again
    assert leading.server.pid != pid
    assert acknowledged.items() <= {obj.id: obj.rev for obj in (await leading.store.load())[1]}.items()


async def test_without_a_quorum_nothing_is_written_and_everybody_knows(three: list[Any]) -> None:
    alone, *others = three
    cache = Cache(alone.store, LoopClock())
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        run = group.create_task(cache.run())
        await cache.synced.wait()
        await cache.commit([task("before")])
        assert cache.healthy
        for other in others:
            os.kill(other.server.pid, signal.SIGSTOP)
        try:
            started = loop.time()
            with pytest.raises(Unavailable):
                await cache.commit([task("meanwhile")])
            answered = loop.time() - started
            async with asyncio.timeout(15):
                while cache.healthy:  # noqa: ASYNC110 - nothing says when
                    await asyncio.sleep(0.02)
            print(f"\na write failed after {answered:.2f} s, the watch after {loop.time() - started:.2f} s")
            assert answered < 3
            with pytest.raises(Unavailable):
                await alone.store.load()
            assert not await alone.members.ready()
            assert (await alone.members.status()).version
        finally:
            for other in others:
                os.kill(other.server.pid, signal.SIGCONT)

        async def written() -> bool:
            with suppress(Conflict):
                await cache.commit([task("after")])
            return "after" in cache.snapshot().tasks

        await eventually(written)
        assert cache.healthy
        assert {"before", "after"} <= set(cache.snapshot().tasks)
        run.cancel()


async def test_a_worker_cannot_become_a_member(one_member, member: Callable[..., Any]) -> None:
    """Its certificate is from the same authority, but not a manager's."""
    async with one_member() as first:
        worker = member("m2", role=Role.WORKER, peer_name="")
        await first.members.add_learner(worker.server.peer_url)
        worker.server._initial_cluster = await initial_cluster(first, worker)
        worker.server._existing = True
        async with worker.running():
            await asyncio.sleep(3)
            with pytest.raises(Unavailable):
                await worker.members.status()
        words = first.server.log_file.read_text() + worker.server.log_file.read_text()
        assert "bad certificate" in words or "certificate is valid for" in words


async def test_it_comes_back_after_its_death_with_what_it_had(one_member) -> None:
    async with one_member() as only:
        rev = await only.store.commit([task("a")], seen=1)
        async with aclosing(only.store.watch(rev)) as watched:
            await anext(watched)
            os.kill(only.server.pid, signal.SIGKILL)
            with pytest.raises(Unavailable):
                await anext(watched)
        await only.ready()
        assert await only.store.load() == (rev, [Task(id="a", service_id="s", rev=rev)])


async def test_one_member_of_three_goes_on_alone_when_told_to(member: Callable[..., Any]) -> None:
    async with trio(member) as members:
        rev = await members[0].store.commit([task("a")], seen=1)
        survivor = members[2]

        async def caught_up() -> bool:
            return rev == (await survivor.store.load())[0]

        await eventually(caught_up)
    survivor.server._force_new = True
    async with survivor.running():
        await survivor.ready()
        assert [m.name for m in await survivor.members.members()] == ["m3"]
        assert [obj.id for obj in (await survivor.store.load())[1]] == ["a"]


async def test_a_member_that_the_others_removed_says_so(member: Callable[..., Any], one_member) -> None:
    async with one_member() as first:
        asked = member("m2")
        member_id = await eventually(lambda: first.members.add_learner(asked.server.peer_url))
        asked.server._initial_cluster = await initial_cluster(first, asked)
        asked.server._existing = True
        async with asked.running():
            await eventually(asked.members.status)
            await first.members.remove(member_id)
            async with asyncio.timeout(20):
                await asked.removed.wait()
            assert not first.removed.is_set()


async def test_it_can_be_started_again(one_member) -> None:
    async with one_member() as only:
        pid = only.server.pid
        await only.server.restart()

        async def another() -> bool:
            return only.server.pid not in (None, pid) and await only.members.ready()

        await eventually(another, within=5)


async def test_a_copy_can_be_saved(one_member, tmp_path: Path) -> None:
    async with one_member() as only:
        await only.store.commit([task("a")], seen=1)
        await only.members.save(tmp_path / "copy.db")
    saved = tmp_path / "copy.db"
    assert saved.stat().st_mode & 0o777 == 0o600
    assert b"/afterswarm/task/a" in saved.read_bytes()
    assert not list(tmp_path.glob("*.part"))


async def test_how_long_a_commit_and_a_watch_take(three: list[Any]) -> None:
    """Told, and bounded generously: other programs use this machine, too."""
    for wanted in ("leader", "follower"):
        leading = await leader_of(three)
        asked = leading if wanted == "leader" else next(m for m in three if m is not leading)
        cache = Cache(asked.store, LoopClock())
        loop = asyncio.get_running_loop()
        stored, seen = [], []
        async with asyncio.TaskGroup() as group:
            run = group.create_task(cache.run())
            await cache.synced.wait()
            for number in range(50):
                started = loop.time()
                rev = await asked.store.commit([task(f"{wanted}{number}")], seen=cache.rev)
                stored.append(loop.time() - started)
                await cache.reach(rev)
                seen.append(loop.time() - started)
            run.cancel()
        median, slowest = statistics.median(stored) * 1000, max(stored) * 1000
        print(
            f"\n{wanted}: stored in {median:.1f} ms (at most {slowest:.1f}), seen {statistics.median(seen) * 1000:.1f}"
        )
        assert median < 500
