"""`afterswarm stack deploy`: reads, compares, does what is to be done, and waits until it has come true."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from afterswarm.http.errors import HttpError
from afterswarm.model.network import PREDEFINED
from afterswarm.model.service import ServiceSpec
from afterswarm.stack import plan as planning
from afterswarm.stack import registry
from afterswarm.stack.convert import ODD, Stack, Wanted, convert
from afterswarm.stack.names import IMAGE, Names, Trouble
from afterswarm.stack.plan import Mark, Running, Step
from afterswarm.stack.reader import Model
from afterswarm.stack.swarm import Swarm
from afterswarm.stack.voice import Voice
from afterswarm.stack.watch import watch

TRIES = 5
SEQUENCE = "update out of sequence"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says, besides which files to read."""

    stack: str
    host: str = ""
    prune: bool = False
    with_registry_auth: bool = False
    resolve_image: str = "always"
    detach: bool = False
    dry_run: bool = False
    ignore_unsupported: bool = False
    timeout: float = 300.0


async def deploy(options: Options, model: Model, voice: Voice) -> int:
    """The exit code: 1 when the stack is refused or does not get well in time."""
    trouble = Trouble()
    try:
        stack = convert(model.content, Names(options.stack, model.project), model.environment, trouble)
    except ODD as why:
        voice.error(f"this cannot be made into a stack: {why!r}")
        return 1
    for words in (*model.warnings, *trouble.notes):
        voice.warn(words)
    for words in trouble.refused:
        voice.error(words)
    if trouble.refused and not options.ignore_unsupported:
        voice.error("nothing was deployed; --ignore-unsupported leaves these things out")
        return 1
    async with Swarm(options.host) as swarm:
        return await _Deployment(swarm, options, voice).run(stack)


class _Deployment:
    """One run; `_auths` are the credentials for the images, by service."""

    def __init__(self, swarm: Swarm, options: Options, voice: Voice) -> None:
        self._swarm = swarm
        self._options = options
        self._voice = voice
        self._auths: dict[str, str] = {}

    async def run(self, stack: Stack) -> int:
        running = await self._swarm.running(stack.name)
        for name in stack.external_networks:
            if name not in running.networks and name not in PREDEFINED:
                self._voice.error(f"network {name} is declared as external, but there is none: create it first")
                return 1
        services = [await self._with_image(wanted, running) for wanted in stack.services]
        stack = replace(stack, services=services)
        steps = planning.plan(stack, running, prune=self._options.prune)
        if self._options.dry_run:
            self._show(steps)
            return 0
        changed = await self._apply(stack, running, steps)
        if self._options.detach:
            return 0
        return await watch(self._swarm, stack, changed, self._options.timeout, self._voice)

    def _show(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._voice.say(str(step))
        words = {Mark.CREATE: "to create", Mark.CHANGE: "to change", Mark.PRUNE: "to remove", Mark.SAME: "the same"}
        counts = {mark: sum(step.mark is mark for step in steps) for mark in words}
        counts[Mark.SAME] += sum(step.mark is Mark.AGAIN for step in steps)
        again = sum(step.mark is Mark.AGAIN for step in steps)
        told = ", ".join(f"{counts[mark]} {word}" for mark, word in words.items())
        maybe = f" ({again} of which only the swarm knows)" if again else ""
        self._voice.say(f"{told}{maybe}; nothing was done")

    async def _with_image(self, wanted: Wanted, running: Running) -> Wanted:
        """With the digest of its image."""
        spec = wanted.spec
        there = running.services.get(spec.name)
        old = there.spec if there else None
        auth = registry.auth(spec.labels[IMAGE]) if self._options.with_registry_auth else ""
        self._auths[spec.name] = auth
        same = isinstance(old, ServiceSpec) and old.labels.get(IMAGE) == spec.labels[IMAGE]
        words = ""
        if self._options.resolve_image == "always" or not (same or self._options.resolve_image == "never"):
            spec, words = await registry.resolved(self._swarm, spec, auth)
            if words:
                self._voice.warn(f"{spec.name}: {words}")
        if isinstance(old, ServiceSpec) and same and (words or self._options.resolve_image != "always"):
            spec = planning.keeping_image(spec, old)  # what the registry said before holds
        return replace(wanted, spec=spec)

    async def _apply(self, stack: Stack, before: Running, steps: Sequence[Step]) -> set[str]:
        """Names of the services that were created or changed. A service needs the ids of what it uses."""
        for step in steps:
            first = (step.kind == "service") == (step.mark is Mark.PRUNE)
            if step.mark is Mark.NOTE or (first and step.mark is not Mark.SAME):
                await self._do(step)
        running = await self._swarm.running(stack.name)
        sent = {s.name for s in steps if s.kind in ("secret", "config") and s.mark in (Mark.CHANGE, Mark.AGAIN)}
        changed = planning.brought_along(before, running, sent)
        for name in sorted(changed):
            self._voice.say(f"~ service {name}\n    its secrets or configs have other data")
        for step in planning.plan(stack, running):
            if step.kind == "service" and step.mark in (Mark.CREATE, Mark.CHANGE):
                await self._do(step)
                changed.add(step.name)
        for step in steps:
            if step.kind != "service" and step.mark is Mark.PRUNE:
                await self._prune(step)
        return changed

    async def _do(self, step: Step) -> None:
        if step.mark is not Mark.AGAIN:
            self._voice.say(str(step))
        match step.mark:
            case Mark.CREATE:
                await self._swarm.create(step, self._auths.get(step.name, ""))
            case Mark.CHANGE | Mark.AGAIN:
                await self._update(step)
            case Mark.PRUNE:
                await self._swarm.remove(step)
            case _:
                pass

    async def _update(self, step: Step) -> None:
        """Again with its newest version, when somebody else has changed the object meanwhile (or the swarm itself)."""
        assert step.there is not None  # noqa: S101 - it is changed
        for left in reversed(range(TRIES)):
            try:
                await self._swarm.update(step, self._auths.get(step.name, ""))
                return
            except HttpError as why:
                if SEQUENCE not in why.message or not left:
                    raise
                shown = await self._swarm.get(f"/{step.kind}s/{step.there.id}")
                step = replace(step, there=replace(step.there, version=shown["Version"]["Index"]))

    async def _prune(self, step: Step) -> None:
        """What is still in use stays until the next deployment."""
        self._voice.say(str(step))
        try:
            await self._swarm.remove(step)
        except HttpError as why:
            self._voice.warn(f"{step.kind} {step.name} stays for now: {why.message}")


def interrupted(stack: str) -> int:
    """Ctrl-C: the swarm goes on by itself."""
    words = f"stopped waiting; nothing is undone, the swarm goes on: docker stack ps {stack}"
    print(f"\n{words}", file=sys.stderr)  # noqa: T201 - the last words of a command
    return 130
