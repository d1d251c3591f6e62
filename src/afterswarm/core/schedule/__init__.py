"""PENDING -> ASSIGNED: which node runs a task. `plan.plan` is the planner, `plan.keys_of` says when to run it.

`filters` say which nodes can run a task, `spread` which of these is best, `volumes` where its data lies, and `room`
is what is left on each node.
"""

from afterswarm.core.schedule.plan import ALL, keys_of, plan

__all__ = ["ALL", "keys_of", "plan"]
