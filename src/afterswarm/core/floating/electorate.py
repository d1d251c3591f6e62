"""Which managers vote, and whether one of them may, while their list changes.

A host counts votes of one electorate only, and needs a majority of that. Two electorates that differ by one manager
have no two majorities without a manager in common; others may. So a manager goes on voting through a change by one,
and is silent for `SETTLE` after any other change: by then nobody votes by an earlier list any more. It is silent as
long when it begins, and when it has been out of touch with the store: it has forgotten what it promised, or missed what
changed.

Why that is enough: let one manager vote by list i and another by a later list j at the same time. The first has a view
not older than `FRESH`, so list i+1 was made less than `SETTLE` ago. The second then has seen all of i+1 … j within that
time, so it would be silent, unless j is i+1 and differs from i by one.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from afterswarm.core.floating import SETTLE


class Electorate(msgspec.Struct, frozen=True):
    """As one manager sees it. Times are on its own clock."""

    members: frozenset[str]
    since: float
    votes_from: float

    @property
    def name(self) -> str:
        """The same wherever the members are."""
        return " ".join(sorted(self.members))


def begin(members: Collection[str], now: float) -> Electorate:
    """Of a manager that knows nothing of what was before."""
    return Electorate(frozenset(members), since=now, votes_from=now + SETTLE)


def follow(before: Electorate, members: Collection[str], now: float) -> Electorate:
    """The list as it has become. To be called with every change, in order."""
    after = frozenset(members)
    if after == before.members:
        return before
    settled = now >= max(before.since + SETTLE, before.votes_from)
    if settled and len(after ^ before.members) == 1:
        return Electorate(after, since=now, votes_from=now)
    return begin(after, now)
