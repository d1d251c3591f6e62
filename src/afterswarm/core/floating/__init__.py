"""Who holds a floating address: one host at a time, by the votes of a majority of the managers.

    host     asks every manager ten times a second, and counts each vote from the moment that it *asked*
    manager  promises, from the moment that it *was asked*, to vote for nobody else

So a host's lease is over before the promises that it stands on are, however long anything took on the way, and two
majorities share a manager. Only lengths of time are compared, each on one clock.
"""

from __future__ import annotations

LEASE = 0.6  # seconds after asking that a vote counts
PROMISE = 0.65  # seconds after being asked that a manager votes for nobody else: clocks may differ by 8 % in rate
OPEN = 0.4  # seconds that a host's kernel answers for the address after each time that its daemon had a majority
ASK = 0.1  # seconds between questions of a host that holds, or is about to
IDLE = 1.0  # seconds between those of the others
FRESH = 3.0  # seconds that a manager's view of the store may be old while it votes
SETTLE = FRESH + PROMISE + 0.35
