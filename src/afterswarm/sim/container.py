"""A container in memory, as `sim.engine` keeps it and as a real engine would show it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from afterswarm.ports import Json

NEVER = "0001-01-01T00:00:00Z"


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """How a container of some image behaves. Times are seconds after its start; `None` is never."""

    exits_after: float | None = None
    exit_code: int = 0
    start_error: str = ""
    has_check: bool = False  # the image brings a health check; a container may have its own, or none
    healthy_after: float | None = 1.0  # with a health check only
    unhealthy_after: float | None = None
    stop_takes: float = 0.1  # from the stop signal to the end; longer than the grace means SIGKILL
    exit_code_on_stop: int = 0


@dataclass
class SimContainer:
    """Mutable on purpose: it is the simulated world, not ours to plan."""

    id: str
    name: str
    body: Json
    program: Program
    created: float
    networks: dict[str, Json] = field(default_factory=dict)
    status: str = "created"
    pid: int = 0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    error: str = ""
    health: str = ""
    ports: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body.get("Labels") or {})

    @property
    def has_check(self) -> bool:
        test = (self.body.get("Healthcheck") or {}).get("Test") or []
        return test[0] != "NONE" if test else self.program.has_check

    def after(self, seconds: float | None, act: Callable[[], None]) -> None:
        if seconds is not None:
            self.timers.append(asyncio.get_running_loop().call_later(seconds, act))

    def forget_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def inspect(self) -> Json:
        state: Json = {
            "Status": self.status,
            "Running": self.running,
            "Pid": self.pid,
            "ExitCode": self.exit_code,
            "Error": self.error,
            "OOMKilled": False,
            "StartedAt": stamp(self.started),
            "FinishedAt": stamp(self.finished),
        }
        if self.has_check and self.started:
            state["Health"] = {"Status": self.health}
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Created": stamp(self.created),
            "State": state,
            "Config": {key: value for key, value in self.body.items() if key not in ("HostConfig", "NetworkingConfig")},
            "HostConfig": self.body.get("HostConfig") or {},
            "NetworkSettings": {"Networks": dict(self.networks), "Ports": dict(self.ports) if self.running else {}},
        }

    def listed(self) -> Json:
        words = {"running": "Up 1 second", "created": "Created"}.get(self.status, f"Exited ({self.exit_code})")
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Image": self.body.get("Image", ""),
            "Labels": self.labels,
            "State": self.status,
            "Status": f"{words} ({self.health})" if self.running and self.has_check else words,
            "NetworkSettings": {"Networks": dict(self.networks)},
        }


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else NEVER
