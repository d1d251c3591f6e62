"""The values of option labels: text in, what the engine takes out. `ValueError` says what was expected instead."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import Any

import msgspec

Json = dict[str, Any]

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE | re.ASCII)
_CDI = re.compile(r"[A-Za-z][\w.-]*/[A-Za-z][\w-]*=[\w.:-]+", re.ASCII)
_RULE = re.compile(r"[acb] (?:\d+|\*):(?:\d+|\*) [rwm]{1,3}", re.ASCII)
_PERMISSIONS = re.compile(r"[rwm]{1,3}", re.ASCII)


def switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


def size(text: str) -> int:
    """`64m`, `1.5g`, `2048`: bytes."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a size such as 64m")
    return int(float(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " "))


def number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", text.strip(), re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"a number from {least} to {most}")
        return int(text)

    return read


def word(text: str) -> str:
    if not text.strip():
        raise ValueError("something")
    return text.strip()


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return read


def many(text: str) -> list[str]:
    """`a,b`, or a JSON list for items with commas in them."""
    if not text.lstrip().startswith("["):
        items: Any = [item.strip() for item in text.split(",")]
    else:
        try:
            items = msgspec.json.decode(text)
        except msgspec.DecodeError:
            items = None
    if not isinstance(items, list) or not all(isinstance(i, str) and i for i in items):
        raise ValueError('a list such as a,b or ["a", "b"]')
    return items


def pairs(text: str) -> dict[str, str]:
    """`a=1,b=2`."""
    found = {}
    for item in many(text):
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise ValueError("pairs such as a=1,b=2")
        found[key] = value
    return found


def rules(text: str) -> list[str]:
    found = many(text)
    if not all(_RULE.fullmatch(rule) for rule in found):
        raise ValueError("rules such as c 1:3 mr")
    return found


def devices(text: str) -> tuple[list[Json], list[str]]:
    """Devices by their path, as `docker run --device` has them, and names of the Container Device Interface."""
    paths: list[Json] = []
    names: list[str] = []
    for item in many(text):
        if _CDI.fullmatch(item):
            names.append(item)
            continue
        source, *rest = item.split(":")
        permissions = rest.pop() if rest and _PERMISSIONS.fullmatch(rest[-1]) else "rwm"
        target = rest.pop() if rest else source
        if rest or not source.startswith("/") or not target.startswith("/"):
            raise ValueError("devices such as /dev/x, /dev/x:/dev/y or /dev/x:/dev/y:rw")
        paths.append({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions})
    return paths, names


def gpus(text: str) -> Json:
    """One device request, in the words of `docker run --gpus`."""
    request: Json = {}
    for item in next(csv.reader([text.strip() or ","])):
        key, equals, value = item.partition("=")
        key, value = (key.strip(), value.strip()) if equals else ("count", key.strip())
        match key:
            case "count" if "Count" not in request and (value == "all" or value.isdecimal()):
                request["Count"] = -1 if value == "all" else int(value)
            case "device" if value:
                request["DeviceIDs"] = value.split(",")
            case "driver" if value:
                request["Driver"] = value
            case "capabilities" if value:
                request["Capabilities"] = [["gpu", *(c for c in value.split(",") if c != "gpu")]]
            case "options" if value:
                request["Options"] = pairs(value)
            case _:
                raise ValueError('GPUs as docker run takes them: all, 2, or "device=0,2",capabilities=compute')
    if request.get("Count") and request.get("DeviceIDs"):
        raise ValueError("either a count or devices")
    if not request.get("DeviceIDs"):
        request.setdefault("Count", 1)
    return {"Capabilities": [["gpu"]], **request}


def requests(text: str) -> list[Json]:
    """Device requests in the engine's own JSON."""
    fields = {"Driver": str, "Count": int, "DeviceIDs": list, "Capabilities": list, "Options": dict}
    try:
        found: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and all(isinstance(v, fields.get(k, ())) for k, v in one.items()) for one in found
    ):
        raise ValueError('a JSON list such as [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]')
    return found


def weights(text: str) -> list[Json]:
    """`/dev/sda:200,…`."""
    read = number(10, 1000)
    return [{"Path": path, "Weight": read(value)} for path, value in _of_devices(text)]


def rates(read: Callable[[str], int]) -> Callable[[str], list[Json]]:
    """`/dev/sda:1mb,…` (bytes) or `/dev/sda:1000,…` (operations) per second."""

    def rate(text: str) -> list[Json]:
        return [{"Path": path, "Rate": read(value)} for path, value in _of_devices(text)]

    return rate


def _of_devices(text: str) -> list[tuple[str, str]]:
    found = []
    for item in many(text):
        path, colon, value = item.rpartition(":")
        if not colon or not path.startswith("/"):
            raise ValueError("a device and a value, such as /dev/sda:100")
        found.append((path, value))
    return found
