"""What fails is said once and tried again; that it is well again is said, too."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from afterswarm.agent.network.repairs import Repairs
from afterswarm.ports import EngineError, EngineGone

log = logging.getLogger(__name__)


class Guarded:
    """Whoever calls tries again with the next repair. Failures are counted by kind in `repairs`."""

    def __init__(self, repairs: Repairs) -> None:
        self._repairs = repairs

    async def __call__(self, what: str, work: Awaitable[object], *, kind: str) -> bool:
        """Whether it worked."""
        failing = self._repairs.failing
        try:
            await work
        except (OSError, EngineError, EngineGone) as error:
            if failing.get(what) != str(error):
                log.warning("%s: %s", what, error)
            failing[what] = str(error)
            self._repairs.failures[kind] += 1
            return False
        if failing.pop(what, ""):
            log.info("%s: well again", what)
        return True

    def forget(self, *what: str) -> None:
        """It is no more, so neither is its failure."""
        for each in what:
            self._repairs.failing.pop(each, None)
