"""`?filters=…` of lists: parsed, checked and applied as Docker does.

Several values of one key are alternatives, except for labels, which must all match; several keys must all match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from afterswarm.http.message import Request
from afterswarm.model.refused import Refused

Filters = Mapping[str, list[str]]


def parse(request: Request, allowed: Collection[str]) -> Filters:
    """The filters of a request; 400 for one that is not `allowed`."""
    found = read(request)
    for name in found:
        if name not in allowed:
            raise Refused(400, f"invalid filter '{name}'")
    return found


def read(request: Request) -> Filters:
    """The filters of a request, whatever they are called. Both spellings: {"id": ["x"]} and {"id": {"x": true}}."""
    text = request.arg("filters")
    if not text:
        return {}
    try:
        parsed = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
    except msgspec.DecodeError as error:
        raise Refused(400, "invalid filter") from error
    return {name: list(values) for name, values in parsed.items() if values}


def prefixed(filters: Filters, name: str, value: str) -> bool:
    """Whether `value` begins with one of the filter's values, or there is no such filter."""
    wanted = filters.get(name)
    return not wanted or any(value.startswith(text) for text in wanted)


def exact(filters: Filters, name: str, value: str) -> bool:
    """Whether `value` is one of the filter's values, or there is no such filter."""
    wanted = filters.get(name)
    return not wanted or value in wanted


def contained(filters: Filters, name: str, value: str) -> bool:
    """Whether one of the filter's values is part of `value` (names of networks), or there is no such filter."""
    wanted = filters.get(name)
    return not wanted or any(text in value for text in wanted)


def labelled(filters: Filters, name: str, labels: Mapping[str, str]) -> bool:
    """Whether `labels` has every label of the filter: `key`, or `key=value`."""
    for text in filters.get(name, []):
        key, _, value = text.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    return True


def one_of(filters: Filters, name: str, choices: Iterable[str], complaint: Callable[[str], str]) -> set[str]:
    """The filter's values, each one of `choices`; empty when there is no such filter."""
    known = set(choices)
    values = {text.lower() for text in filters.get(name, []) if text}
    for value in sorted(values - known):
        raise Refused(400, complaint(value))
    return values


def truth(filters: Filters, name: str) -> bool | None:
    """A boolean filter; `None` when there is none."""
    values = filters.get(name)
    if not values:
        return None
    if len(values) > 1:
        raise Refused(400, f"invalid filter '{name}=[{' '.join(values)}]'")
    match values[0].lower():
        case "1" | "true" | "t":
            return True
        case "0" | "false" | "f":
            return False
        case _:
            raise Refused(400, f"invalid filter '{name}=[{values[0]}]'")
