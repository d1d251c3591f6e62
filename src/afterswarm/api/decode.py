"""A client's JSON and query arguments as our structs, with the errors that Docker's decoder would give."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from afterswarm.http.message import Request
from afterswarm.model.refused import Refused

T = TypeVar("T")


async def body(request: Request, cls: type[T]) -> T:
    """The body as `cls`. Go's clients spell what is absent `null`; an empty body is an empty object."""
    return convert(await raw(request), cls)


async def raw(request: Request) -> dict[str, Any]:
    """The body as a JSON object without its nulls."""
    data = await request.read()
    try:
        parsed = msgspec.json.decode(data) if data.strip() else {}
    except msgspec.DecodeError as error:
        raise Refused(400, f"invalid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused(400, "invalid JSON: expected an object")
    found: dict[str, Any] = without_nulls(parsed)
    return found


def convert(parsed: dict[str, Any], cls: type[T]) -> T:
    try:
        return msgspec.convert(parsed, cls)
    except msgspec.ValidationError as error:
        raise Refused(400, f"invalid JSON: {error}") from error


def without_nulls(value: Any) -> Any:
    """The same JSON without members that are null, at any depth."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def version(request: Request, word: str) -> int:
    """`?version=N`: the revision that the client saw. `word` is what it is of."""
    text = request.arg("version")
    if not (text.isascii() and text.isdigit()):
        why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise Refused(400, f"invalid {word} version '{text}': {why}")
    return int(text)
