"""A host and one floating address: when to ask, and how long it may hold it by the votes that came.

Moments are on this host's own clock. The state belongs to one run of the daemon: votes for an earlier one do not count.
"""

from __future__ import annotations

from math import inf

import msgspec

from afterswarm.core.floating import ASK, IDLE, LEASE, OPEN

EAGER = 2.0  # seconds that a host asks often after a manager has called it
STEP = 1e-6
SLACK = 0.02  # seconds that a daemon may take from looking at its clock to telling its kernel


class Counted(msgspec.Struct, frozen=True):
    """The newest vote of a manager, and when it was asked for."""

    asked: float
    electorate: str
    size: int


class Holder(msgspec.Struct, frozen=True):
    votes: dict[str, Counted] = {}  # by manager
    asked: float = -inf  # when last
    void: float = -inf  # votes asked for until then do not count: it has said good-bye since
    eager: float = -inf  # until then
    now: bool = False  # it has been called


def until(me: Holder) -> float:
    """When this host has to be without the address: the end of the lease that the votes make."""
    ends = -inf
    for electorate, size in {(vote.electorate, vote.size) for vote in me.votes.values()}:
        asked = sorted((v.asked for v in me.votes.values() if v.electorate == electorate), reverse=True)
        majority = size // 2 + 1
        if len(asked) >= majority:
            ends = max(ends, asked[majority - 1] + LEASE)
    return ends


def may_open(me: Holder, now: float) -> bool:
    """Whether the kernel may answer for `OPEN` seconds from now, whatever happens to the daemon meanwhile."""
    return now + OPEN + SLACK <= until(me)


def overshot(me: Holder, now: float) -> bool:
    """Whether the kernel, told so just now, may answer for longer than the lease: the daemon was held up meanwhile."""
    return now + OPEN > until(me)


def rate(me: Holder, now: float, *, holding: bool) -> float:
    """Seconds between two questions now."""
    return ASK if holding or now < me.eager else IDLE


def due(me: Holder, now: float, *, holding: bool) -> bool:
    """Whether to ask now. Half a step early is better than late."""
    return me.now or now >= me.asked + rate(me, now, holding=holding) - ASK / 2


def ask(me: Holder, now: float) -> Holder:
    """It asks now: `asked` of the new state goes into the question, or into the good-bye."""
    return msgspec.structs.replace(me, asked=max(now, me.asked + STEP), now=False)


def leave(me: Holder, now: float) -> Holder:
    """It does not hold the address and says so now."""
    me = ask(me, now)
    return Holder(asked=me.asked, void=me.asked)


def called(me: Holder, now: float) -> Holder:
    """A manager would vote for this host: it asks at once, and often for a while."""
    return msgspec.structs.replace(me, eager=now + EAGER, now=me.now or now >= me.eager)


def voted(me: Holder, manager: str, vote: Counted, now: float) -> Holder:
    """A vote for this run of this host's daemon came. Each vote makes it eager: others are to follow."""
    before = me.votes.get(manager)
    if vote.asked <= me.void or vote.asked > me.asked or (before and vote.asked <= before.asked):
        return me
    return msgspec.structs.replace(me, votes={**me.votes, manager: vote}, eager=now + EAGER)
