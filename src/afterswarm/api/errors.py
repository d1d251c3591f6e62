"""What went wrong, as Docker's clients are told."""

from __future__ import annotations

import msgspec

from afterswarm.api.write import OUT_OF_SEQUENCE
from afterswarm.http.errors import ConnectFailed, Lost
from afterswarm.http.message import Response
from afterswarm.model.refused import NO_LEADER, Refused
from afterswarm.ports import Conflict, Fenced, Unavailable


def answer(error: Exception, engine: str) -> Response | None:
    """The answer to a request that failed with this; `None` for a bug. `engine` says where the host's engine is."""
    match error:
        case Refused():
            return Response.error(error.status, error.message)
        case Conflict():
            return Response.error(500, OUT_OF_SEQUENCE)
        case Unavailable() | Fenced():
            return Response.error(503, NO_LEADER)
        case Lost():
            return Response.error(503, f"The Docker engine at {engine} went away before it had answered")
        case ConnectFailed():
            return Response.error(503, f"Cannot connect to the Docker engine at {engine}: is it running?")
        case msgspec.DecodeError():
            return Response.error(400, f"invalid JSON: {error}")
        case _:
            return None
