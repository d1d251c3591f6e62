"""When a manager should try to lead. The store decides who does: see `control.leader`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

SILENCE = 1.2  # seconds without a beat after which the leader is given up
TURN = 0.3  # seconds that each manager leaves to those before it


def decide(  # noqa: PLR0917 - all that an observer knows
    leader: str,
    me: str,
    managers: Iterable[str],
    heard: Mapping[str, float],
    now: float,
    since: float,
) -> bool:
    """Whether `me`, which does not lead and has listened since `since`, should take over now.

    `leader`: node id of the present one, "" for none. `heard`: node id -> time of its last beat. The managers that
    `me` hears take turns in order of their ids, so that normally only one of them tries. One that is no longer a
    manager is not waited for.
    """
    present = set(managers)
    if me not in present or leader == me:
        return False
    quiet_since = heard.get(leader, since) + SILENCE if leader in present else since
    heard_now = sorted(m for m in present if m == me or (m != leader and now - heard.get(m, -inf) < SILENCE))
    return now >= quiet_since + TURN * heard_now.index(me)
