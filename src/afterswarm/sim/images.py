"""Images whose names say how their containers behave, for swarms that real clients look at.

nginx:1          runs until it is stopped
exits:3          ends by itself with code 3, a moment after its start
healthy:0.5      has a health check, and passes it after half a second
unhealthy:0.5    has a health check, and fails it after half a second
slow:4           takes 4 seconds to end once it is told to
broken:1         cannot be started
missing:1        cannot be pulled
"""

from __future__ import annotations

import hashlib

from afterswarm.sim.container import Program

RUNS = 0.3  # seconds until `exits` does


def parts(image: str) -> tuple[str, str]:
    """Name and tag, without registry and digest."""
    name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    return name, tag


def program(image: str) -> Program:
    """What a container of this image does."""
    name, tag = parts(image)
    match name:
        case "exits":
            return Program(exits_after=RUNS, exit_code=int(_number(tag)))
        case "healthy":
            return Program(has_check=True, healthy_after=_number(tag))
        case "unhealthy":
            return Program(has_check=True, healthy_after=None, unhealthy_after=_number(tag))
        case "slow":
            return Program(stop_takes=_number(tag))
        case "broken":
            return Program(start_error='exec: "broken": executable file not found in $PATH: unknown')
        case _:
            return Program()


def digest(image: str) -> str:
    return "sha256:" + hashlib.sha256(image.encode()).hexdigest()


class Registry(set[str]):
    """Holds every image but `missing`."""

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and parts(image)[0] != "missing"


class Programs(dict[str, Program]):
    """`program` as a dictionary of all images."""

    def get(self, image: str, _default: object = None) -> Program:
        return program(image)


def _number(tag: str) -> float:
    try:
        return float(tag)
    except ValueError:
        return 0.0
