"""Images being pulled: one pull per image at a time, shared by all tasks that ask meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from afterswarm.ports import Engine, EngineError, EngineGone

log = logging.getLogger(__name__)

Done = Callable[[str | None], None]  # "" pulled or here, words of the failure, None: ask again


class Pulls:
    """`ask` returns at once, so that a task can be stopped while its image is on the way."""

    def __init__(self, engine: Engine, group: asyncio.TaskGroup) -> None:
        self._engine = engine
        self._group = group
        self._asking: dict[tuple[str, str], list[Done]] = {}

    def ask(self, image: str, auth: str, *, unless_here: bool, done: Done) -> None:
        """Pull `image`, or wait for the pull that is under way with the same credentials; then call `done` once."""
        waiting = self._asking.setdefault((image, auth), [])
        waiting.append(done)
        if len(waiting) == 1:
            self._group.create_task(self._pull(image, auth, unless_here=unless_here), name=f"pull {image}")

    async def _pull(self, image: str, auth: str, *, unless_here: bool) -> None:
        outcome: str | None = ""
        try:
            if not (unless_here and await self._engine.image(image)):
                await self._engine.pull(image, auth)
        except EngineError as why:
            log.warning("pulling %s: %s", image, why.message)
            outcome = why.message
        except EngineGone:
            outcome = None
        for done in self._asking.pop((image, auth)):
            done(outcome)
