"""Names and labels of a stack's objects, which are the docker command line's: either can go on where the other left."""

from __future__ import annotations

from typing import Any

import msgspec

Json = dict[str, Any]

NAMESPACE = "com.docker.stack.namespace"
IMAGE = "com.docker.stack.image"


class Names(msgspec.Struct, frozen=True):
    """`project` is the name by which Compose knew the stack."""

    stack: str
    project: str

    def of(self, key: str, item: Json | None) -> str:
        """The name in the swarm of what the file calls `key`. Compose has written it out already, with its project."""
        given = str((item or {}).get("name") or "")
        if (item or {}).get("external"):
            return given or key
        return f"{self.stack}_{key}" if given in ("", f"{self.project}_{key}") else given

    def service(self, key: str) -> str:
        return f"{self.stack}_{key}"

    def labels(self, given: Json | None) -> dict[str, str]:
        return {**{key: str(value) for key, value in (given or {}).items()}, NAMESPACE: self.stack}


class Trouble:
    """What a file asks and a stack cannot have: `refused` keeps it from being deployed, `notes` are only said."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.notes: list[str] = []

    def refuse(self, service: str, words: str) -> None:
        self.refused.append(f"service {service}: {words}")

    def note(self, service: str, words: str) -> None:
        self.notes.append(f"service {service}: {words}")
