"""A client's JSON and query arguments as our structs, with the errors and the leniency of Docker's decoder.

Go takes `null` for absent and member names in any case; docker-py relies on both ("replicated" for "Replicated").
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from afterswarm.http.message import Request
from afterswarm.model.refused import Refused

T = TypeVar("T")

LARGEST = 2**64 - 1  # version of anything


async def body(request: Request, cls: type[T]) -> T:
    """The body as `cls`. An empty body is an empty object."""
    return convert(await raw(request, cls), cls)


async def raw(request: Request, cls: Any) -> dict[str, Any]:
    """The body as a JSON object without its nulls, its members spelled as those of `cls`."""
    data = await request.read()
    try:
        parsed = msgspec.json.decode(data) if data.strip() else {}
        if not isinstance(parsed, dict):
            raise Refused(400, "invalid JSON: expected an object")
        found: dict[str, Any] = _spelled(without_nulls(parsed), _shape(cls))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"invalid JSON: {error}") from error
    except RecursionError as error:
        raise Refused(400, "invalid JSON: exceeded max depth") from error
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
        raise _no_version(word, text, "invalid syntax")
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(LARGEST)) or int(digits) > LARGEST:
        raise _no_version(word, text, "value out of range")
    return int(digits)


def _no_version(word: str, text: str, why: str) -> Refused:
    return Refused(400, f"invalid {word} version '{text}': strconv.ParseUint: parsing \"{text}\": {why}")


@cache
def _shape(cls: Any) -> inspect.Type:
    return inspect.type_info(cls)


def _spelled(value: Any, shape: inspect.Type) -> Any:
    """The same JSON with the members of structs spelled as they are declared. An exact spelling wins."""
    match shape:
        case inspect.UnionType():
            structured = (inspect.StructType, inspect.ListType, inspect.DictType)
            inner = next((t for t in shape.types if isinstance(t, structured)), None)
            return _spelled(value, inner) if inner else value
        case inspect.StructType() if isinstance(value, dict):
            fields = {field.encode_name.lower(): field for field in shape.fields}
            result: dict[str, Any] = {}
            for name, member in value.items():
                field = fields.get(name.lower())
                if field is None:
                    result[name] = member
                elif name == field.encode_name or field.encode_name not in value:
                    result[field.encode_name] = _spelled(member, field.type)
            return result
        case inspect.ListType() if isinstance(value, list):
            return [_spelled(item, shape.item_type) for item in value]
        case inspect.DictType() if isinstance(value, dict):
            return {key: _spelled(member, shape.value_type) for key, member in value.items()}
        case _:
            return value
