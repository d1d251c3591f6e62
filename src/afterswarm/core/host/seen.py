"""What the engine shows of one container, reduced to what decisions ask: `GET /containers/{id}/json` as a struct."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from afterswarm.model.task import PortStatus

Json = dict[str, Any]
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d(?:\.\d+)?)(?:Z|([+-])(\d\d):(\d\d))$")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One container. Times are seconds since the epoch, 0 = never."""

    id: str = ""
    alive: bool = False  # has a process: running, paused, restarting
    started_at: float = 0.0
    finished_at: float = 0.0
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    health: str = ""  # "" (no health check), starting, healthy, unhealthy
    networks: tuple[str, ...] = ()
    ports: tuple[PortStatus, ...] = ()

    @property
    def ran(self) -> bool:
        """It was started once, even if it is over now."""
        return self.alive or self.started_at > 0


def seen(inspect: Json) -> Seen:
    """Read an inspect answer. Fields that are missing are as if they were empty."""
    state = inspect.get("State") or {}
    settings = inspect.get("NetworkSettings") or {}
    health = (state.get("Health") or {}).get("Status") or ""
    return Seen(
        id=inspect.get("Id") or "",
        alive=bool(state.get("Running")),
        started_at=epoch(state.get("StartedAt") or ""),
        finished_at=epoch(state.get("FinishedAt") or ""),
        pid=state.get("Pid") or 0,
        exit_code=state.get("ExitCode") or 0,
        error=state.get("Error") or "",
        oom_killed=bool(state.get("OOMKilled")),
        health="" if health == "none" else health,
        networks=tuple(settings.get("Networks") or {}),
        ports=_ports(settings.get("Ports") or {}),
    )


def _ports(published: dict[str, list[dict[str, str]] | None]) -> tuple[PortStatus, ...]:
    """`{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, …]}`, each once: the second one is IPv6."""
    found: dict[tuple[int, str, int], None] = {}
    for key, bindings in published.items():
        target, _, protocol = key.partition("/")
        for binding in bindings or []:
            if binding.get("HostPort", "").isdigit():
                found[int(target), protocol, int(binding["HostPort"])] = None
    return tuple(PortStatus(target_port=t, protocol=p, published_port=n) for t, p, n in found)


def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 for the engine's zero time (year 1) and for what is none."""
    found = _TIME.match(text)
    if found is None or found[1] < "1970":
        return 0.0
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    # Days since the epoch in the proleptic Gregorian calendar; the year begins in March so that 29 February is last.
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719_468
    offset = (int(found[8]) * 3600 + int(found[9]) * 60) * (-1 if found[7] == "-" else 1) if found[7] else 0
    return days * 86_400 + int(found[4]) * 3600 + int(found[5]) * 60 + float(found[6]) - offset
