"""Labels of a service that say how its traffic is treated. They touch no container, so a change replaces no task."""

from __future__ import annotations

import re
from collections.abc import Mapping

from afterswarm.model.refused import Refused

MESH = "afterswarm.mesh"  # "masquerade": tasks see the address of the host that was dialled, not the client's
DRAIN = "afterswarm.drain"  # how long a task goes on after its last new connection, such as "5s"
DRAIN_DEFAULT = 1.5  # seconds: a client repeats its first packet after one, which may have got lost

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def masquerades(labels: Mapping[str, str]) -> bool:
    return labels.get(MESH) == "masquerade"


def drain(labels: Mapping[str, str]) -> float:
    """Seconds. Raises `Refused` (400) for what is no duration."""
    text = labels.get(DRAIN)
    if text is None:
        return DRAIN_DEFAULT
    if text == "0":
        return 0.0
    pieces = list(_PIECE.finditer(text))
    if not pieces or "".join(piece[0] for piece in pieces) != text:
        raise Refused(400, f"invalid label {DRAIN}={text}: expected a duration, such as 5s or 1m30s")
    return sum(float(piece[1]) * _UNITS[piece[2]] for piece in pieces)


def check(labels: Mapping[str, str]) -> None:
    """Raises `Refused` (400) for a value that is none."""
    drain(labels)
    if labels.get(MESH, "masquerade") != "masquerade":
        raise Refused(400, f"invalid label {MESH}={labels[MESH]}: expected masquerade")
