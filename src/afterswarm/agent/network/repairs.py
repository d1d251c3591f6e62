"""What this host had to put right because somebody else had changed it: counted by kind, and said in the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from afterswarm.model.repair import Difference
from afterswarm.ports import Clock

log = logging.getLogger(__name__)

SAID = 5  # differences of one repair that the log names


class Repairs:
    """Since the daemon's start. `looked`: when all was last found, or put, as it is wanted; 0: not yet.

    `failing`: what cannot be put right now -> why.
    """

    def __init__(self, clock: Clock) -> None:
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.failing: dict[str, str] = {}
        self.last = ""
        self.last_at = 0.0
        self.looked = 0.0
        self._clock = clock

    def note(self, differences: Sequence[Difference], where: str = "") -> None:
        """They have been put right. One repair of each kind, however much it was."""
        for kind in dict.fromkeys(d.kind for d in differences):
            found = [d.what for d in differences if d.kind == kind]
            more = f" and {len(found) - SAID} more" if len(found) > SAID else ""
            self.done[kind] += 1
            self.last = f"{kind}{where and f' of {where}'}: {'; '.join(found[:SAID])}{more}"
            self.last_at = self._clock.now()
            log.warning("somebody else changed what is ours, and it is repaired: %s", self.last)

    def whole(self) -> None:
        self.looked = self._clock.now()
