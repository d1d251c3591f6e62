"""A Docker Engine in memory: latency, images that come from a registry, programs that end, power cuts.

It passes the same contract suite as the real one (`tests/contract/test_engine.py`). A test drives it from outside with
`exit`, `set_health`, `crash` and `boot`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from random import Random

from afterswarm import ids
from afterswarm.ports import Clock, EngineError, EngineGone, Json
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.container import Program, SimContainer

LOST_POWER = 255  # exit code that an engine gives to containers it finds dead


class SimEngine:
    """Implements `ports.Engine`. `registry` holds what can be pulled, `images` what is here already."""

    def __init__(
        self,
        *,
        hostname: str = "sim",
        clock: Clock | None = None,
        seed: int = 0,
        latency: float = 0.01,
        pull_takes: float = 0.5,
        cpus: int = 4,
        memory: int = 8 << 30,
    ) -> None:
        self.hostname = hostname
        self.clock = clock or LoopClock()
        self.latency = latency
        self.pull_takes = pull_takes
        self.resources = (cpus, memory)
        self.images: set[str] = set()
        self.registry: set[str] = set()
        self.private: dict[str, str] = {}  # image -> what its registry wants to be told
        self.programs: dict[str, Program] = {}
        self.made: dict[str, SimContainer] = {}
        self.nets: dict[str, Json] = {}
        self.calls: list[tuple[str, str]] = []  # what was asked: ("pull", image), ("create", name), …
        self.up = True
        self._rng = Random(seed)  # noqa: S311 - reproducible on purpose
        self._count = 0
        self._listeners: list[asyncio.Queue[Json | None]] = []

    # ---- what a test does to it ----------------------------------------------------------------------------------

    def exit(self, container: str, code: int = 0, error: str = "") -> None:
        """The container's process ends by itself."""
        self._end(self._find(container), code, error)

    def set_health(self, container: str, health: str) -> None:
        found = self._find(container)
        if found.running and found.health != health:
            found.health = health
            self._say("container", f"health_status: {health}", found)

    def crash(self) -> None:
        """Power cut: every process is gone, nothing answers until `boot`."""
        self.disconnect()
        for container in self.made.values():
            container.forget_timers()
            if container.running:
                container.status = "dead-in-the-dark"

    def disconnect(self) -> None:
        """The engine is restarted with its containers left running, or its socket is gone; `boot` brings it back."""
        self.up = False
        for queue in self._listeners:
            queue.put_nowait(None)

    def boot(self) -> None:
        self.up = True
        for container in self.made.values():
            if container.status == "dead-in-the-dark":
                container.status = "running"
                self._end(container, LOST_POWER)

    def running(self) -> list[str]:
        """Names of running containers, sorted."""
        return sorted(c.name for c in self.made.values() if c.running)

    # ---- ports.Engine --------------------------------------------------------------------------------------------

    async def info(self) -> Json:
        await self._called("info")
        return {
            "ID": self.hostname,
            "Name": self.hostname,
            "ServerVersion": "20.10.24",
            "OSType": "linux",
            "Architecture": "x86_64",
            "NCPU": self.resources[0],
            "MemTotal": self.resources[1],
            "Labels": [],
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "host"], "Log": ["json-file"]},
            "Swarm": {"LocalNodeState": "inactive"},
        }

    async def containers(self, label: str) -> list[Json]:
        await self._called("containers", label)
        found = [c.listed() for c in reversed(self.made.values()) if not label or _has_label(c.labels, label)]
        await asyncio.sleep(self.latency * self._rng.random())  # it is of before by the time it is read
        return found

    async def inspect(self, container: str) -> Json:
        await self._called("inspect", container)
        return self._find(container).inspect()

    async def create(self, name: str, body: Json) -> str:
        await self._called("create", name)
        if body["Image"] not in self.images:
            raise EngineError(404, f"No such image: {body['Image']}")
        for other in self.made.values():
            if other.name == name:
                words = f'Conflict. The container name "/{name}" is already in use by container "{other.id}".'
                raise EngineError(409, words)
        self._count += 1
        made = SimContainer(
            id=ids.derive(self.hostname, name, self._count) + "0" * 39,
            name=name,
            body=body,
            program=self.programs.get(body["Image"], Program()),
            created=self.clock.now(),
            networks=dict((body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}),
        )
        self.made[made.id] = made
        self._say("container", "create", made)
        return made.id

    async def start(self, container: str) -> None:
        await self._called("start", container)
        found = self._find(container)
        if found.running:
            return
        if found.program.start_error:
            found.error, found.exit_code = found.program.start_error, 127
            raise EngineError(400, found.program.start_error)
        self._count += 1
        found.status, found.pid, found.started, found.exit_code, found.error = (
            "running",
            self._count,
            self._now(),
            0,
            "",
        )
        found.over.clear()
        found.ports = self._publish(found)
        self._say("container", "start", found)
        found.after(found.program.exits_after, partial(self._end, found, found.program.exit_code))
        if found.has_check:
            found.health = "starting"
            found.after(found.program.healthy_after, partial(self.set_health, found.id, "healthy"))
            found.after(found.program.unhealthy_after, partial(self.set_health, found.id, "unhealthy"))

    async def stop(self, container: str, grace: float) -> None:
        await self._called("stop", container)
        found = self._find(container)
        if not found.running:
            return
        takes = min(found.program.stop_takes, grace)
        try:
            async with asyncio.timeout(takes):
                await found.over.wait()
        except TimeoutError:
            self._answer()
            killed = found.program.stop_takes > grace
            self._end(found, 137 if killed else found.program.exit_code_on_stop)

    async def kill(self, container: str) -> None:
        await self._called("kill", container)
        found = self._find(container)
        if not found.running:
            raise EngineError(409, f"Cannot kill container: {container}: Container {found.id} is not running")
        self._end(found, 137)

    async def remove(self, container: str, *, volumes: bool = True) -> None:
        del volumes  # none are kept here
        await self._called("remove", container)
        try:
            found = self._find(container)
        except EngineError:
            return
        self._end(found, 137)
        del self.made[found.id]
        self._say("container", "destroy", found)

    async def connect(self, network: str, container: str, endpoint: Json) -> None:
        await self._called("connect", f"{network} {container}")
        found = self._find(container)
        if not any(network in (n["Name"], n["Id"]) for n in self.nets.values()):
            raise EngineError(404, f"network {network} not found")
        found.networks[network] = endpoint

    async def pull(self, image: str, auth: str = "") -> None:
        await self._called("pull", image)
        await asyncio.sleep(self.pull_takes)
        self._answer()
        if self.private.get(image, auth) != auth:
            words = "no basic auth credentials" if not auth else "unauthorized: authentication required"
            raise EngineError(500, f"Head https://registry/v2/{image}: {words}")
        if image not in self.registry:
            raise EngineError(404, f"manifest for {image} not found: manifest unknown: manifest unknown")
        self.images.add(image)

    async def image(self, image: str) -> Json | None:
        await self._called("image", image)
        return {"Id": "sha256:" + ids.derive(image), "RepoTags": [image]} if image in self.images else None

    async def networks(self, label: str) -> list[Json]:
        await self._called("networks", label)
        return [dict(n) for n in self.nets.values() if not label or _has_label(n.get("Labels") or {}, label)]

    async def create_network(self, body: Json) -> str:
        await self._called("create_network", body["Name"])
        if any(n["Name"] == body["Name"] for n in self.nets.values()):
            raise EngineError(409, f"network with name {body['Name']} already exists")
        self._count += 1
        network = {**body, "Id": ids.derive(self.hostname, body["Name"], self._count) + "0" * 39}
        self.nets[network["Id"]] = network
        return str(network["Id"])

    async def remove_network(self, network: str) -> None:
        await self._called("remove_network", network)
        for found in [n for n in self.nets.values() if network in (n["Name"], n["Id"])]:
            if any(found["Name"] in c.networks for c in self.made.values() if c.running):
                raise EngineError(403, f"error while removing network: network {found['Name']} has active endpoints")
            del self.nets[found["Id"]]

    async def events(self, filters: Mapping[str, Sequence[str]]) -> AsyncIterator[Json]:
        await self._called("events")
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while (event := await queue.get()) is not None:
                if _wanted(event, filters):
                    yield event
        finally:
            self._listeners.remove(queue)
        raise EngineGone("the engine ended its stream of events")

    # ---- inside --------------------------------------------------------------------------------------------------

    async def _called(self, what: str, of: str = "") -> None:
        self._answer()
        self.calls.append((what, of))
        await asyncio.sleep(self.latency * (0.5 + self._rng.random()))
        self._answer()

    def _answer(self) -> None:
        if not self.up:
            raise EngineGone(f"unix:///{self.hostname}/docker.sock cannot be reached: Connection refused")

    def _now(self) -> float:
        return self.clock.now()

    def _find(self, container: str) -> SimContainer:
        for found in self.made.values():
            if container in (found.id, found.name):
                return found
        raise EngineError(404, f"No such container: {container}")

    def _end(self, container: SimContainer, code: int, error: str = "") -> None:
        if not container.running:
            return
        container.forget_timers()
        container.status, container.pid, container.finished = "exited", 0, self._now()
        container.exit_code, container.error = code, error
        container.over.set()
        self._say("container", "die", container, exitCode=str(code))

    def _publish(self, container: SimContainer) -> dict[str, list[dict[str, str]]]:
        bindings: dict[str, list[dict[str, str]]] = (container.body.get("HostConfig") or {}).get("PortBindings") or {}
        published: dict[str, list[dict[str, str]]] = {}
        for port, wanted in bindings.items():
            for binding in wanted:
                self._count += 1
                number = binding.get("HostPort") or str(49152 + self._count)
                published.setdefault(port, []).append({"HostIp": "0.0.0.0", "HostPort": number})
        return published

    def _say(self, kind: str, action: str, container: SimContainer, **more: str) -> None:
        attributes = {**container.labels, "name": container.name, "image": container.body["Image"], **more}
        event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": container.id, "Attributes": attributes},
            "time": int(self._now()),
            "timeNano": int(self._now() * 1e9),
        }
        for queue in self._listeners:
            queue.put_nowait(event)


def _has_label(labels: Mapping[str, str], label: str) -> bool:
    key, given, value = label.partition("=")
    return key in labels and (not given or labels[key] == value)


def _wanted(event: Json, filters: Mapping[str, Sequence[str]]) -> bool:
    """The engine's own rules: kinds of filter are joined by "and", values of one by "or", labels by "and"."""
    kinds, actions = filters.get("type"), filters.get("event")
    action = event["Action"].partition(":")[0]
    return (
        (not kinds or event["Type"] in kinds)
        and (not actions or action in actions or event["Action"] in actions)
        and all(_has_label(event["Actor"]["Attributes"], label) for label in filters.get("label", ()))
    )
