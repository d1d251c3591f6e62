"""How SwarmKit's refusals reach users: its words behind the prefix that Docker shows."""

from __future__ import annotations

from afterswarm.model.refused import Refused


def invalid(words: str) -> Refused:
    return Refused(400, f"rpc error: code = InvalidArgument desc = {words}")


def unimplemented(words: str) -> Refused:
    return Refused(501, f"rpc error: code = Unimplemented desc = {words}")
