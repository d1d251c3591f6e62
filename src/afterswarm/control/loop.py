"""The one loop that turns a planner into a controller. It does not know what is planned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf

from afterswarm.model.base import Change, Plan
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Conflict, Fenced, Replica, Unavailable

KeysOf = Callable[[Change], Iterable[str]]
Planner = Callable[[Snapshot, str], Plan]
Fence = Callable[[], int | None] | int | None

SOON = 0.02  # seconds; the least time to a `wake_at`, so that one in the past is not a busy loop
UNAVAILABLE = 0.3  # seconds until a key is planned again after the store could not be reached
BROKEN = 1.0  # seconds until a key is planned again whose planner raised; doubled each time
BROKEN_MOST = 60.0
CATCH_UP = 2.0  # seconds to wait for the view after a conflict

_log = logging.getLogger("afterswarm.controller")


async def drive(
    replica: Replica,
    keys_of: KeysOf,
    plan: Planner,
    *,
    fence: Fence = None,
    name: str = "",
    log: logging.Logger = _log,
) -> None:
    """Plan again each key that a change touched or whose time has come, until cancelled or `Fenced`.

    Keys coalesce while a commit is under way: a key touched ten times is planned once. After a conflict the key is
    planned again, from a view that has seen what won. A planner that raises is a bug of that planner on that key:
    it is logged and tried again later, and the other keys go on.
    """
    loop = asyncio.get_running_loop()
    dirty: dict[str, None] = {}  # an ordered set: the order of a real one varies between runs
    timers: dict[str, asyncio.TimerHandle] = {}
    broken: dict[str, float] = {}  # key -> how long it was put off
    woken = asyncio.Event()

    def touch(key: str) -> None:
        dirty[key] = None
        woken.set()

    def touch_in(seconds: float, key: str) -> None:
        timers[key] = loop.call_later(seconds, touch, key)

    async def listen() -> None:
        async for changes in replica.changes():
            for change in changes:
                try:
                    for key in keys_of(change):
                        touch(key)
                except Exception:
                    log.exception("%s: which keys does %s touch?", name, type(change.obj).__name__)

    async def turn(key: str) -> None:
        if timer := timers.pop(key, None):
            timer.cancel()
        snap = replica.snapshot()
        try:
            planned = plan(snap, key)
        except Exception:
            broken[key] = min(broken.get(key, BROKEN / 2) * 2, BROKEN_MOST)
            log.exception("%s: no plan for %r, next try in %g s", name, key, broken[key])
            touch_in(broken[key], key)
            return
        broken.pop(key, None)
        if planned.wake_at < inf:
            touch_in(max(planned.wake_at - snap.now, SOON), key)
        if not planned.changes:
            return
        try:
            await replica.commit(
                planned.changes, reads=planned.reads, seen=snap.rev, fence=fence() if callable(fence) else fence
            )
        except Conflict as lost:
            with suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP):
                    await replica.reach(lost.rev)
            touch(key)
        except Unavailable:
            log.warning("%s: %r: the store cannot be reached", name, key)
            if timer := timers.pop(key, None):
                timer.cancel()
            touch_in(UNAVAILABLE, key)
        else:
            if planned.why:
                log.info("%s: %s", name, planned.why)

    async def turns() -> None:
        while await woken.wait():
            woken.clear()
            while dirty:
                key = next(iter(dirty))
                del dirty[key]
                await turn(key)

    ended: Fenced | None = None
    try:
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen(), name=f"{name} listens")
            try:
                await turns()
            except Fenced as over:
                ended = over
                listening.cancel()
    finally:
        for timer in timers.values():
            timer.cancel()
    if ended:
        raise ended
