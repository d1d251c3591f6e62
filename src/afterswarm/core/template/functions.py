"""The functions that every template has: Go's own, and SwarmKit's `join`. What is wrong is said in Go's words.

`and` and `or` are not here: they do not look at all of their arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import quote_plus

from afterswarm.core.template.values import Fields, kind, shown, true


class Misuse(Exception):
    """These arguments are none for this function."""


_VERB = re.compile(r"%([-+# 0]*)(\d*)(\.\d*)?([a-zA-Z%])")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        match value, key:
            case Fields(), _:
                raise Misuse(f"can't index item of type {kind(value)}")
            case dict(), str():
                value = value.get(key, "")
            case ((list() | str()), int()) if not isinstance(key, bool):
                if not 0 <= key < len(value):
                    raise Misuse(f"index out of range: {key}")
                value = value[key] if isinstance(value, list) else value.encode()[key]
            case ((dict() | list() | str()), _):
                raise Misuse(f"cannot index {kind(value)} with type {kind(key)}")
            case _:
                raise Misuse(f"can't index item of type {kind(value)}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, str | list) or len(bounds) > 2:
        raise Misuse(f"can't slice item of type {kind(value)}")
    begin = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not all(isinstance(b, int) for b in (begin, end)) or not 0 <= begin <= end <= len(value):
        raise Misuse("index out of range")
    return value[begin:end]


def _len(value: Any) -> int:
    if isinstance(value, Fields) or not isinstance(value, str | dict | list):
        raise Misuse(f"len of type {kind(value)}")
    return len(value.encode() if isinstance(value, str) else value)


def _comparable(left: Any, right: Any) -> None:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (left, right))
    if not numbers and type(left) is not type(right):
        raise Misuse("incompatible types for comparison")


def _eq(left: Any, *others: Any) -> bool:
    if not others:
        raise Misuse("missing argument for comparison")
    for other in others:
        if left is not None and other is not None:
            _comparable(left, other)
    return left in others


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        _comparable(left, right)
        if not isinstance(left, str | int | float) or isinstance(left, bool):
            raise Misuse("invalid type for comparison")
        return test(left, right)

    return compare


def _print(*values: Any) -> str:
    """A space between two neighbours that are both no texts."""
    out = ""
    for n, value in enumerate(values):
        if n and not isinstance(value, str) and not isinstance(values[n - 1], str):
            out += " "
        out += shown(value)
    return out


def _printf(form: Any, *values: Any) -> str:
    if not isinstance(form, str):
        raise Misuse(f"wrong type for value; expected string; got {kind(form)}")
    left = list(values)

    def one(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, left.pop(0), flags, precision or "")
        room = min(int(width or 0), 10_000)
        if "-" in flags:
            return text.ljust(room)
        return text.zfill(room) if "0" in flags and verb != "s" else text.rjust(room)

    done = _VERB.sub(one, form)
    extra = ", ".join(f"{kind(v)}={shown(v)}" for v in left)
    return f"{done}%!(EXTRA {extra})" if left else done


def _verb(verb: str, value: Any, flags: str, precision: str) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match verb:
        case "v":
            return shown(value)
        case "s" if not number and not isinstance(value, bool):
            text = shown(value)
            return text[: int(precision[1:] or 0)] if precision else text
        case "q" if isinstance(value, str):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
        case "d" | "b" | "o" | "x" | "X" if isinstance(value, int) and number:
            return ("+" if "+" in flags and value >= 0 else "") + format(value, verb)
        case "x" if isinstance(value, str):
            return value.encode().hex()
        case "e" | "f" | "g" if isinstance(value, float):
            return format(value, f"{precision[:8] or '.6'}{verb}")
        case "t" if isinstance(value, bool):
            return shown(value)
        case "c" if isinstance(value, int) and 0 <= value < 0x110000:
            return chr(value)
        case "T":
            return kind(value)
        case _:
            return f"%!{verb}({kind(value)}={shown(value)})"


def _join(separator: Any, *parts: Any) -> str:
    for value in (separator, *parts):
        if not isinstance(value, str):
            raise Misuse(f"wrong type for value; expected string; got {kind(value)}")
    joined: str = separator.join(parts)
    return joined


def _js(*values: Any) -> str:
    table: dict[str, str | int | None] = {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\u000A", "\r": "\\u000D"}
    table |= {c: f"\\u{ord(c):04X}" for c in "<>&=\t"}
    return _print(*values).translate(str.maketrans(table))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "index": _index,
    "slice": _slice,
    "len": _len,
    "not": lambda value: not true(value),
    "eq": _eq,
    "ne": lambda left, right: not _eq(left, right),
    "lt": _ordered(lambda left, right: left < right),
    "le": _ordered(lambda left, right: left <= right),
    "gt": _ordered(lambda left, right: left > right),
    "ge": _ordered(lambda left, right: left >= right),
    "print": _print,
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "printf": _printf,
    "html": lambda *values: escape(_print(*values)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "js": _js,
    "urlquery": lambda *values: quote_plus(_print(*values)),
    "join": _join,
}
NAMES = frozenset(FUNCTIONS) | {"and", "or"}
