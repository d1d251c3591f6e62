"""The key of the beats between two hosts, which no third host has.

Managers derive it from the swarm's key of the beats and give each node those of its own pairs: a node that was broken
into can speak for itself and for nobody else.
"""

from __future__ import annotations

import hmac


def key(master: bytes, one: str, other: str) -> bytes:
    """The same for both directions; a beat names its sender."""
    return hmac.digest(master, " ".join(sorted((one, other))).encode(), "sha256")
