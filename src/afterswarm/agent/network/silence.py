"""Who is not heard any more: this host's own, reversible judgement. The swarm's verdict comes as a new `Wanted`.

Two thresholds. A peer that is *silent* gets no new connections while others can have them; that is undone by its next
beat, so it may be early. Connections to a peer that is *lost* are forgotten, so that their next packet is balanced
anew; that cannot be undone, so it is later, but before a client repeats what it sent into the void (1 s). It is done
again for a while: what was being connected meanwhile must not wait for its third packet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from afterswarm.model.session import Peer
from afterswarm.ports import Clock

log = logging.getLogger(__name__)

SILENT = 0.35  # seconds without a beat; they come ten times a second
LOST = 0.7
STALE = 5.0  # seconds from then on that connections to it are looked for
AGAIN = 0.5  # seconds between these looks
LOOK = 0.05  # seconds between looks
LATE = 0.25  # seconds after which a look proves nothing


class Silence:
    """`heard` (node id -> time of its last beat) is only read. `changed` is called when there is something to do."""

    def __init__(self, clock: Clock, node_id: str, *, heard: Mapping[str, float], changed: Callable[[], None]) -> None:
        self.silent: frozenset[str] = frozenset()
        self.lost: frozenset[str] = frozenset()
        self._steps: dict[str, int] = {}  # nodes lost of late -> how often connections to them were to be forgotten
        self._clock = clock
        self._node_id = node_id
        self._heard = heard
        self._changed = changed
        self._since: dict[str, float] = {}  # when each peer was first spoken of
        self._names: dict[str, str] = {}

    def follow(self, peers: Iterable[Peer]) -> None:
        """All nodes there are. One that was never heard gets as much time as one that was."""
        now = self._clock.now()
        self._names = {peer.node_id: peer.hostname or peer.node_id for peer in peers if peer.node_id != self._node_id}
        self._since = {node: self._since.get(node, now) for node in self._names}

    @property
    def all_lost(self) -> bool:
        """Every one of several peers at once: then it is our own link, and may be back in a moment."""
        return len(self._names) > 1 and len(self.lost) == len(self._names)

    @property
    def stale(self) -> frozenset[str]:
        """Nodes to which connections are to be forgotten now."""
        return frozenset() if self.all_lost else frozenset(self._steps)

    async def run(self) -> None:
        before = self._clock.now()
        while True:
            await self._clock.sleep(LOOK)
            now = self._clock.now()
            late, before = now - before > LATE, now
            if not late:  # else we were asleep: beats are waiting in the socket, so it is not known who is silent
                self._look(now)

    def _look(self, now: float) -> None:
        quiet = {node: now - max(since, self._heard.get(node, 0.0)) for node, since in self._since.items()}
        silent = frozenset(node for node, seconds in quiet.items() if seconds > SILENT)
        lost = frozenset(node for node, seconds in quiet.items() if seconds > LOST)
        since = {node: seconds - LOST for node, seconds in quiet.items() if LOST < seconds <= LOST + STALE}
        steps = {node: int(seconds / AGAIN) for node, seconds in since.items()}
        if (silent, lost) == (self.silent, self.lost) and steps.items() <= self._steps.items():
            self._steps = steps
            return
        for node in sorted(silent ^ self.silent):
            log.info("%s is %s", self._names.get(node, node), "silent" if node in silent else "heard")
        self.silent, self.lost, self._steps = silent, lost, steps
        self._changed()
