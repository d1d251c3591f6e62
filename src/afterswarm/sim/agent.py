"""A host's real agent (session, worker, network) on an engine and a kernel in memory, in virtual or in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import msgspec

from afterswarm.agent.containers.files import Files
from afterswarm.agent.containers.worker import Worker
from afterswarm.agent.network.keys import Keys
from afterswarm.agent.network.network import Network
from afterswarm.agent.session import Session
from afterswarm.core.trust.certificate import UNIT
from afterswarm.core.trust.token import digest_of
from afterswarm.http.client import Client
from afterswarm.http.errors import HttpError
from afterswarm.http.message import Handler, Peer, Request, Response
from afterswarm.model.node import NodeReport, Role
from afterswarm.model.session import Hello, Wanted
from afterswarm.ports import Clock
from afterswarm.sim import images
from afterswarm.sim.engine import SimEngine
from afterswarm.sim.kernel import SimKernel
from afterswarm.sim.pipe import Pipe, pipes


class Processes(set[int]):
    """The pids that an engine's containers have now."""

    def __init__(self, engine: SimEngine) -> None:
        super().__init__()
        self._engine = engine

    def __contains__(self, pid: object) -> bool:
        return any(c.running and c.pid == pid for c in self._engine.made.values())


class Line:
    """As much of `http.Client` as a session uses: it reaches the manager's handler without a network."""

    def __init__(self, node_id: str, manager: Handler, group: asyncio.TaskGroup) -> None:
        self._peer = Peer(
            certificate={
                "subject": ((("commonName", node_id),), (("organizationalUnitName", UNIT[Role.WORKER]),)),
            }
        )
        self._manager = manager
        self._group = group

    async def upgrade(self, method: str, target: str, *, headers: list[tuple[str, str]], protocol: str) -> Pipe:
        del protocol
        answer = await self._manager(Request(method, target, headers, peer=self._peer))
        if isinstance(answer, Response):
            raise HttpError(answer.status, "no session")
        ours, theirs = pipes()

        async def serve() -> None:
            await answer.run(theirs)  # type: ignore[arg-type]
            theirs.close()

        self._group.create_task(serve())
        return ours


class SimAgent:
    """`said` is what the node reports of itself; `manager` answers `POST /session`. `routed` is what beats say."""

    def __init__(
        self,
        said: NodeReport,
        *,
        manager: Handler,
        heard: Mapping[str, float],
        routed: dict[str, int],
        clock: Clock,
        run_dir: Path,
    ) -> None:
        self.said = said
        self.engine = SimEngine(hostname=said.description.hostname, clock=clock, latency=0.001, pull_takes=0.02)
        self.engine.registry, self.engine.programs = images.Registry(), images.Programs()
        self.kernel = SimKernel()
        self.kernel.processes = Processes(self.engine)
        self._manager = manager
        self._heard = heard
        self._routed = routed
        self._clock = clock
        self._run_dir = run_dir

    async def run(self) -> None:
        """The daemon's life. Containers outlive it, as in life."""
        async with asyncio.TaskGroup() as group:
            session: Session
            keys = Keys(self.kernel, self._run_dir / "wireguard.key")
            await keys.look()
            network = Network(
                engine=self.engine,
                kernel=self.kernel,
                node_id=self.said.id,
                clock=self._clock,
                heard=self._heard,
                acknowledge=lambda rev: self._routed.__setitem__(self.said.id, rev),
                routed=self._routed,
                keys=keys,
            )
            worker = Worker(
                engine=self.engine,
                network=network,
                clock=self._clock,
                node_id=self.said.id,
                hostname=self.engine.hostname,
                run_dir=self._run_dir,
                report=lambda report: session.send(report),  # noqa: PLW0108
                files=Files(self._run_dir, mount=lambda _: None),
            )

            def want(wanted: Wanted) -> None:
                if wanted.authority and wanted.authority.root:  # at once, where a real one renews its certificate
                    trust, issuer = digest_of(wanted.authority.root), wanted.authority.issuer
                    self.said = msgspec.structs.replace(self.said, trust=trust, issuer=issuer)
                    session.greet()
                network.want(wanted)
                worker.want(wanted)

            line = Line(self.said.id, self._manager, group)
            session = Session(
                connect=_always(line),
                managers=lambda: ["manager"],
                local=lambda: "",
                hello=lambda: Hello(
                    description=self.said.description,
                    address=self.said.address,
                    wireguard=keys.public,
                    trust=self.said.trust,
                    issuer=self.said.issuer,
                ),
                reports=worker.reports,
                on_wanted=want,
                on_managers=lambda _: None,
                removed=lambda: worker.want(Wanted(tasks=[])),
                clock=self._clock,
            )
            for part in (network, worker, session):
                group.create_task(part.run())


def _always(line: Line) -> Callable[[str], Client]:
    return lambda _address: cast("Client", line)
