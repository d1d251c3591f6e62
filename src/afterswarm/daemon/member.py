"""What a host does as a member of a swarm: containers, network, beats, session; a manager has its own part besides."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from afterswarm import __version__
from afterswarm.adapters.engine import DockerEngine
from afterswarm.adapters.etcd.server import PEER_PORT as STORE
from afterswarm.adapters.etcd.server import Removed
from afterswarm.adapters.kernel.addresses import LinuxAddresses
from afterswarm.adapters.kernel.linux import LinuxKernel
from afterswarm.agent import describe
from afterswarm.agent.beats.beats import PORT as BEATS
from afterswarm.agent.beats.beats import Beats
from afterswarm.agent.containers.worker import Worker
from afterswarm.agent.floating.floats import Floats
from afterswarm.agent.floating.post import Post
from afterswarm.agent.names.names import Names
from afterswarm.agent.network.guests import Guests
from afterswarm.agent.network.keys import Keys
from afterswarm.agent.network.network import Network
from afterswarm.agent.session import Session
from afterswarm.agent.trust.diagnosis import Diagnosis
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.agent.trust.renewal import Renewal, connector
from afterswarm.api.host import Acquaintance, Standing
from afterswarm.core.trust.certificate import Holder, role_of
from afterswarm.daemon.config import Config
from afterswarm.daemon.gate import Routes, router
from afterswarm.daemon.managers import Managers
from afterswarm.http.children import apart
from afterswarm.http.client import Client
from afterswarm.http.server import serve_tcp
from afterswarm.model.enrolment import PORT, split, where
from afterswarm.model.floating import Ask, Choice, Floating, Letters, Whereabouts
from afterswarm.model.node import Description, Role
from afterswarm.model.session import Hello, Peer, Wanted
from afterswarm.model.task import Report
from afterswarm.ports import Clock, Replica

if TYPE_CHECKING:
    from afterswarm.control.founding import Founded
    from afterswarm.daemon.manager import Manager

LEAVING = 30.0  # seconds that containers get to end when the node leaves

log = logging.getLogger(__name__)

Follow = Callable[[Replica], Coroutine[None, None, None]]


class Member:
    """`run` it while the node is in a swarm. `removed` tells why it ended by itself."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: Credentials,
        identity: Identity,
        clock: Clock,
        engine: Client,
        description: Callable[[], Awaitable[Description]],
        follow: Follow,
    ) -> None:
        self.removed = False
        self.manager: Manager | None = None
        self.peers: list[Peer] = []  # all nodes, this one included
        self._config = config
        self._credentials = credentials
        self._identity = identity
        self._clock = clock
        self._client = engine
        self._describe = description
        self._description = Description()
        self._follow = follow
        self._managing: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._over = asyncio.Event()
        self._leaving = False
        self._beats = Beats(node_id=identity.node_id, clock=clock, run_dir=config.run)
        driver = DockerEngine(engine)
        self._kernel = LinuxKernel()
        self._floats = Floats(
            node_id=identity.node_id,
            boot=os.urandom(8).hex(),
            clock=clock,
            addresses=LinuxAddresses(),
            tell=self._tell,
            file=config.run / "floating",
            given=config.floating,
        )
        self._post = Post(identity.node_id, self._beats.tell, host=self._floats.take, manager=self._asked_for_vote)
        self._beats.hear = self._post.heard
        self._returns = False
        self._mtu = 0  # of the device that carries the data path
        self._keys = Keys(self._kernel, config.state / "wireguard.key")
        self._ipv6: list[str] | None = None
        self._names = Names(clock=clock, run_dir=config.run)
        self._network = Network(
            engine=driver,
            kernel=self._kernel,
            node_id=identity.node_id,
            clock=clock,
            heard=self._beats.heard,
            acknowledge=self._beats.acknowledge,
            routed=self._beats.routed,
            keys=self._keys,
            tell=self._names.tell,
            hold=self._names.hold,
        )
        self._names.repaired = self._network.repairs.note
        connect = connector(credentials)
        self._connect = connect
        self.others = Managers(connect, identity.node_id, lambda: self.managers)
        self.guests = Guests(engine=driver, network=self._network, clock=clock, ask=self.others.ask)
        self._worker = Worker(
            engine=driver,
            network=self._network,
            clock=clock,
            node_id=identity.node_id,
            hostname=socket.gethostname(),
            run_dir=config.run,
            report=self._report,
            prefer_offline=os.environ.get("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE") == "1",
        )
        self._renewal = Renewal(credentials, clock, connect, self._renewed)
        self._session = Session(
            connect=connect,
            managers=lambda: credentials.identity.managers if credentials.identity else [],
            local=lambda: identity.at if self.manager and self.manager.routes else "",
            hello=self._hello,
            reports=self._worker.reports,
            on_wanted=self._want,
            on_managers=credentials.remember,
            removed=self._on_removed,
            renewed=self._network.begin_anew,
            diagnose=Diagnosis(credentials, clock).look,
            clock=clock,
        )

    @property
    def connected(self) -> bool:
        """Whether a manager tells this node what to do."""
        return bool(self._session.manager_id)

    @property
    def trouble(self) -> str:
        """Why no manager takes this node, when waiting does not help."""
        return self._session.trouble

    @property
    def managers(self) -> list[tuple[str, str]]:
        """(node id, where it is) of the swarm's managers."""
        return [(p.node_id, where(p.address, p.port)) for p in self.peers if p.manager]

    def acquaintances(self) -> list[Acquaintance]:
        """Every node as this one knows it, for `afterswarm doctor`."""
        now = self._clock.now()
        heard, gateways = self._beats.heard, self._network.ingress_gateways()
        return [
            Acquaintance(
                node_id=p.node_id,
                hostname=p.hostname,
                address=p.address,
                manager=p.manager,
                self_=p.node_id == self._identity.node_id,
                heard_seconds_ago=round(now - heard[p.node_id], 3) if p.node_id in heard else None,
                gateway=gateways.get(p.node_id, ""),
                port=p.port or PORT,
            )
            for p in self.peers
        ]

    def standing(self) -> Standing:
        """How its network is, for `afterswarm doctor` and Prometheus."""
        repairs = self._network.repairs
        return Standing(
            ports={
                "control": self._identity.port,
                "store": STORE,
                "tunnels": self._network.tunnel_port,
                "beats": BEATS,
            },
            repairs=dict(repairs.done),
            failures=dict(repairs.failures),
            failing=dict(repairs.failing),
            last=repairs.last,
            last_at=repairs.last_at,
            looked=repairs.looked,
            now=self._clock.now(),
            routed=self._network.drains.own,
            silent=sorted(p.hostname or p.node_id for p in self.peers if p.node_id in self._network.silent),
            unacknowledged=self._network.drains.unacknowledged,
        )

    def floating(self) -> list[Whereabouts]:
        """Every floating address: whether it is here and, on a manager, who holds it."""
        holders = self.manager.votes.holders() if self.manager else {}
        names = {p.node_id: p.hostname or p.node_id for p in self.peers}
        here = {found.address: found for found in self._floats.whereabouts()}
        return [
            Whereabouts(
                address=address,
                here=here[address].here if address in here else "not asked for here",
                holder=names.get(holders.get(address, ""), ""),
            )
            for address in sorted({*here, *holders})
        ]

    def working(self) -> bool:
        """Whether the node is what it came to be: known to the swarm and, a manager, able to answer for it."""
        if self._identity.role == Role.WORKER or self.manager is None:
            return self.connected
        snap = self.manager.cache.snapshot()
        return (
            self.manager.begun
            and self.connected
            and snap.leader is not None
            and self._identity.node_id in snap.node_reports
        )

    async def run(self, begin: Founded | float | None = None) -> None:
        """Until cancelled or removed; containers, tunnels and rules stay in place. `begin`: see `Manager.run`."""
        gate = router(
            self._client,
            cluster_id=lambda: self._identity.cluster_id,
            manager=self._routes,
            trusted=self._trusted,
            now=self._clock.now,
        )
        async with AsyncExitStack() as stack:
            host, port = split(self._identity.listen) if self._identity.listen else ("", self._identity.port)
            await stack.enter_async_context(serve_tcp(host, port, gate, ssl=self._credentials.server_context()))
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._identity.role == Role.MANAGER:
                    self._manage(begin)
                tasks = [
                    group.create_task(self._beats.run(), name="beats"),
                    group.create_task(self._renewal.run(), name="certificate"),
                ]
                self._description = await self._describe()
                self._worker.here(self._description)
                self._returns = await self._kernel.returning()
                await self._look_at_the_wire()
                if not self._returns:
                    log.warning("no br_netfilter in this kernel: tasks here see other hosts' addresses, not clients'")
                self._ipv6 = await self._kernel.ipv6()
                if self._ipv6 is None:
                    self._network.without_ipv6()
                tasks += [
                    group.create_task(self._network.run(), name="network"),
                    group.create_task(self._names.run(), name="names"),
                    group.create_task(self._worker.run(), name="containers"),
                    group.create_task(self.guests.run(), name="guests"),
                    group.create_task(self._session.run(), name="session"),
                    group.create_task(self._floats.run(), name="floating addresses"),
                    group.create_task(
                        describe.follow(self._description, self._look, self._described, self._clock),
                        name="description",
                    ),
                ]
                await self._over.wait()
                for task in [*tasks, *([self._managing] if self._managing else [])]:
                    task.cancel()

    async def clear(self) -> None:
        """End this node's containers: it leaves, or was removed. What managers say from now on is not followed."""
        self._leaving = True
        self._floats.want(Wanted(floating=Floating(barred=True)))
        self._worker.want(Wanted(tasks=[]))
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVING):
                await self._worker.emptied()

    async def dismantle(self) -> None:
        """Take networks, tunnels, rules and names away, and beat no more. After `run` has ended."""
        self._beats.clear()
        await self._names.clear()
        await self._network.clear()
        self._keys.forget()

    # ---- what the manager says -----------------------------------------------------------------------------------

    def _want(self, wanted: Wanted) -> None:
        if self._leaving:
            return
        if wanted.authority is not None:
            self._trust(wanted.authority.root)
        self._renewal.want(wanted.role, wanted.authority.issuer if wanted.authority else "")
        if wanted.peers is not None:
            self.peers = wanted.peers
        self._beats.want(wanted)
        self._network.want(wanted)
        self._floats.want(wanted)
        self._worker.want(wanted)
        self.guests.want(wanted)

    def _trust(self, root: str) -> None:
        try:
            if self._credentials.follow(root):
                log.info("the swarm has another root certificate now")
                self._session.greet()
        except (ValueError, ssl.SSLError) as error:
            log.error("the swarm's root certificate cannot be read, the one before stays: %s", error)  # noqa: TRY400

    def _tell(self, node_id: str, letter: Letters) -> None:
        self._post.tell(node_id, letter)

    def _asked_for_vote(self, sender: str, letter: Ask | Choice) -> None:
        if self.manager:
            self.manager.votes.take(sender, letter)

    def _report(self, report: Report) -> None:
        self._session.send(report)

    def _hello(self) -> Hello:
        return Hello(
            description=self._description,
            address=self._identity.address,
            port=0 if self._identity.port == PORT else self._identity.port,
            data_path=self._identity.data_path,
            returns=self._returns,
            wireguard=self._keys.public,
            mtu=self._mtu,
            ipv6=self._ipv6,
            version=__version__,
            trust=self.manager.trust if self.manager else self._credentials.trust,
            issuer=self._identity.issuer,
        )

    async def _look_at_the_wire(self) -> bool:
        """Whether what this host says of it has changed."""
        path = self._identity.data_path or self._identity.address
        before, self._mtu = self._mtu, await self._kernel.underlay(path)
        return await self._keys.look() or self._mtu != before

    async def _has_moved(self) -> bool:
        """Whether this host speaks from other IPv6 addresses now. Whether it has IPv6 at all is asked once."""
        before, found = self._ipv6, await self._kernel.ipv6()
        if before is None or found is None or before == found:
            return False
        self._ipv6 = found
        return True

    async def _look(self) -> Description:
        if await self._has_moved() | await self._look_at_the_wire():
            self._session.greet()
        return await describe.describe(DockerEngine(self._client))

    def _described(self, found: Description) -> None:
        self._description = found
        self._session.greet()

    def _on_removed(self) -> None:
        assert self._group  # noqa: S101 - `run` has set it
        self.removed = True
        self._group.create_task(self._close_down(), name="removed")

    async def _close_down(self) -> None:
        await self.clear()
        self._over.set()

    # ---- the manager's part --------------------------------------------------------------------------------------

    def _routes(self) -> Routes | None:
        return self.manager.routes if self.manager else None

    def _trusted(self, who: Holder) -> bool:
        """A manager's certificate outlives a demotion. One that is about to become a manager counts among managers."""
        if self.manager and self.manager.routes:
            node = self.manager.cache.snapshot().nodes.get(who.node_id)
            return node is not None and role_of(node) == Role.MANAGER
        return not self.managers or any(node_id == who.node_id for node_id, _ in self.managers)

    def _renewed(self, identity: Identity, before: Identity) -> None:
        self._identity = identity
        if identity.issuer != before.issuer:
            self._session.greet()
        if identity.role == before.role:
            return
        if identity.role == Role.MANAGER:
            self._manage(None)
        elif self._managing:
            log.info("this node is a worker now: its store ends")
            self.manager = None  # at once: the store may take its time
            self._managing.cancel()

    def _manage(self, begin: Founded | float | None) -> None:
        from afterswarm.daemon.manager import Manager  # noqa: PLC0415 - `cryptography`, for managers only

        assert self._group  # noqa: S101 - `run` has set it
        manager = Manager(
            config=self._config,
            credentials=self._credentials,
            identity=self._identity,
            clock=self._clock,
            heard=self._beats.heard,
            engine=self._client,
            connect=self._connect,
            follow=self._follow,
            greet=self._session.greet,
            tell=self._tell,
        )
        self._managing = self._group.create_task(self._be_manager(manager, begin), name="manager")

    async def _be_manager(self, manager: Manager, begin: Founded | float | None) -> None:
        self.manager = manager
        removed = False
        try:
            await apart(manager.run(begin))
        except* Removed:
            removed = True
        finally:
            self.manager = None
            if self._identity.role == Role.WORKER:
                shutil.rmtree(self._config.etcd, ignore_errors=True)
                self._credentials.keep_cluster_key(b"")
        if removed and not self._leaving and self._identity.role == Role.MANAGER:
            # To be made a worker, which other managers will say now that there is none here; or the swarm was made
            # anew without this manager, and it may ask for a place again.
            log.warning("the other managers have removed this one")
            shutil.rmtree(self._config.etcd, ignore_errors=True)
            self._manage(None)
