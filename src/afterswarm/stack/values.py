"""Values as Docker Compose writes them when it has resolved a file: sizes in bytes, durations as Go has them."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def duration(text: str | None) -> int | None:
    """`1m30s`: nanoseconds. What is not there stays so."""
    if text is None:
        return None
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text} is not a duration")
    return sum(int(Decimal(number) * _UNITS[unit]) for number, unit in parts)


def cpus(value: str | float | None) -> int:
    """Billionths of a CPU."""
    return int(Decimal(str(value)) * 10**9) if value else 0


def size(value: str | int | None) -> int:
    return int(value or 0)


def mode(value: str | int | None, default: int = 0o444) -> int:
    """Of a file: text is octal."""
    if value is None:
        return default
    return int(value, 8) if isinstance(value, str) else value


def listed(items: list[str]) -> str:
    """As labels take lists: separated by commas, or as JSON when an item has one itself or looks like JSON."""
    plain = all("," not in item and item == item.strip() and item for item in items)
    if plain and not items[0].startswith("["):
        return ",".join(items)
    return msgspec.json.encode(items).decode()


def listed_pairs(pairs: dict[str, object]) -> str:
    return listed([f"{key}={value}" for key, value in sorted(pairs.items())])
