"""NEW -> PENDING: subnets, addresses and port numbers. `plan.plan` is the planner, `plan.keys_of` says when to run it.

Nothing is remembered and nothing is handed back: what is in use is read off the objects that use it, so an address
cannot leak, and a plan that was lost was never made.
"""

from afterswarm.core.allocate.plan import keys_of, plan

__all__ = ["keys_of", "plan"]
