"""Objects as Docker's JSON: what all kinds have in common. Each resource's own fields are in its own file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from afterswarm.api.decode import without_nulls
from afterswarm.model.base import Obj
from afterswarm.ports import Json

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def time(seconds: float) -> str:
    """RFC 3339 with a fraction, in UTC, as Go spells it: no trailing zeros."""
    if seconds <= 0:
        return NEVER
    micros = round(seconds * 1_000_000)
    whole, fraction = divmod(micros, 1_000_000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:06}".rstrip("0").rstrip(".") + "Z"


def base(obj: Obj) -> Json:
    """What every object of the swarm has."""
    return {
        "ID": obj.id,
        "Version": {"Index": obj.rev},
        "CreatedAt": time(obj.created),
        "UpdatedAt": time(obj.updated),
    }


def plain(part: Any) -> Json:
    """A specification as it came: what is absent stays absent."""
    built: Json = without_nulls(msgspec.to_builtins(part))
    return built


def annotated(spec: Any) -> Json:
    """A specification whose name and labels are there even when they are empty, as clients expect."""
    return {"Name": spec.name, "Labels": {}, **plain(spec)}
