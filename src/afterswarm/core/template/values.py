"""Values in templates: texts, numbers, truths, maps, lists, and `Fields`, whose members must be there."""

from __future__ import annotations

from typing import Any


class Fields(dict[str, Any]):
    """What Go would call a struct, with the name of its type for errors."""

    def __init__(self, name: str, **members: object) -> None:
        super().__init__(members)
        self.name = name


def true(value: object) -> bool:
    return isinstance(value, Fields) or bool(value)


def shown(value: object) -> str:
    """As Go prints it."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case Fields():
            return "{" + " ".join(shown(v) for v in value.values()) + "}"
        case dict():
            return "map[" + " ".join(f"{shown(k)}:{shown(v)}" for k, v in sorted(value.items())) + "]"
        case list() | tuple():
            return "[" + " ".join(map(shown, value)) + "]"
        case _:
            return str(value)


def kind(value: object) -> str:
    """Go's name of its type."""
    match value:
        case Fields():
            return value.name
        case dict():
            return "map[string]string"
        case list() | tuple():
            return "[]string"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case None:
            return "<nil>"
        case _:
            return "string"
