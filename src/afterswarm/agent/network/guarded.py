"""What fails is said once and tried again; that it is well again is said, too."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from afterswarm.ports import EngineError, EngineGone

log = logging.getLogger(__name__)


class Guarded:
    """`failed`: what does not work now -> why. Whoever calls tries again with the next repair."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    async def __call__(self, what: str, work: Awaitable[None]) -> bool:
        """Whether it worked."""
        try:
            await work
        except (OSError, EngineError, EngineGone) as error:
            if self.failed.get(what) != str(error):
                log.warning("%s: %s", what, error)
            self.failed[what] = str(error)
            return False
        if self.failed.pop(what, ""):
            log.info("%s: well again", what)
        return True

    def forget(self, *what: str) -> None:
        """It is no more, so neither is its failure."""
        for each in what:
            self.failed.pop(each, None)
