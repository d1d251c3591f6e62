"""Both ends of a session over real TLS; and what a worker does not load."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from afterswarm.agent.session import Session
from afterswarm.model.base import Change
from afterswarm.model.node import Description
from afterswarm.model.session import Hello, Wanted
from afterswarm.model.task import Report, Task, TaskState


async def test_a_worker_is_told_reports_and_is_removed(manager) -> None:
    worker = await manager.enrolled("two", manager.cluster.tokens.worker)
    node_id = worker.identity.node_id
    told: asyncio.Queue[Wanted] = asyncio.Queue()
    removed = asyncio.Event()
    session = Session(
        connect=lambda _: manager.client(worker),
        managers=lambda: ["127.0.0.1"],
        local=lambda: "",
        hello=lambda: Hello(address="127.0.0.1", description=Description(hostname="two")),
        reports=list,
        on_wanted=told.put_nowait,
        on_managers=worker.remember,
        removed=removed.set,
        clock=manager.clock,
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(session.run())
        first = await told.get()
        assert first.tasks == []
        assert {len(key) for key in first.beat_keys.values()} == {32}
        cache = manager.cache
        await cache.commit(
            [Change(None, Task(id="t", service_id="s", node_id=node_id, slot=1, state=TaskState.ASSIGNED))]
        )
        while not (wanted := await told.get()).tasks:
            pass
        assert wanted.tasks[0].id == "t"
        session.send(Report(id="t", state=TaskState.RUNNING))
        while "t" not in cache.snapshot().reports:  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.01)
        assert cache.snapshot().node_reports[node_id].description.hostname == "two"
        assert session.manager_id == manager.node.id
        await cache.commit([Change(cache.snapshot().nodes[node_id], None)])
        await removed.wait()
        await running


def test_a_worker_does_not_load_cryptography() -> None:
    """It costs more memory than all of the agent."""
    code = (
        "import sys, afterswarm.agent.session, afterswarm.agent.trust.enrol, afterswarm.agent.trust.identity,"
        " afterswarm.agent.trust.renewal, afterswarm.daemon.gate\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('cryptography', 'dnslib')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
