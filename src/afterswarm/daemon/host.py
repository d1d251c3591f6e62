"""One host's daemon: its API, and its life in and out of a swarm. Implements `api.host.Host`."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from afterswarm.adapters.clock import WallClock
from afterswarm.agent.trust import csr, enrol
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.api import metrics
from afterswarm.api.app import App
from afterswarm.api.host import Acquaintance, InitRequest, JoinRequest, Keys, LocalInfo, Place, Standing
from afterswarm.api.swarm import ALREADY
from afterswarm.api.write import LOCKED
from afterswarm.daemon import addresses
from afterswarm.daemon.config import Config
from afterswarm.daemon.engine import EngineLook
from afterswarm.daemon.life import Life
from afterswarm.http.client import Client
from afterswarm.http.server import serve_tcp, serve_unix
from afterswarm.model.cluster import DATA_PATH_PORT, DEFAULT_POOL
from afterswarm.model.enrolment import PORT, split, where
from afterswarm.model.floating import Whereabouts
from afterswarm.model.guest import Wish
from afterswarm.model.node import Availability, Role
from afterswarm.model.refused import Refused
from afterswarm.ports import Replica

if TYPE_CHECKING:
    from afterswarm.control.founding import Founded
    from afterswarm.daemon.manager import Manager

TOO_LONG = "it took too long"
STILL_JOINING = (  # Docker's words
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "
    '"docker info" command to see the current swarm status of your node.'
)

log = logging.getLogger(__name__)


class Daemon:
    """`run` it until cancelled."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = WallClock()
        self._engine = Client.unix(config.engine)
        self._credentials = Credentials(config.identity, config.run / "identity")
        self._look = EngineLook(self._engine)
        self._group: asyncio.TaskGroup | None = None
        self._changing = asyncio.Lock()
        self._app = App(self)
        self._life = Life(
            config=config,
            credentials=self._credentials,
            clock=self._clock,
            engine=self._engine,
            description=self._look.described,
            follow=self._app.follow,
        )

    async def run(self) -> None:
        """Serve the API; take up the life that was led before."""
        self._config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config.run.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            await stack.enter_async_context(serve_unix(self._config.listen, self._app))
            if self._config.metrics:
                await stack.enter_async_context(serve_tcp(*split(self._config.metrics), metrics.only(self)))
                log.info("metrics at http://%s/metrics", self._config.metrics)
            log.info("API at unix://%s, engine at unix://%s", self._config.listen, self._config.engine)
            self._group = group
            group.create_task(self._look.run(), name="engine")
            if self._credentials.locked:
                log.warning('this manager is locked: it waits for "docker swarm unlock"; its containers go on')
            elif self._credentials.identity:
                self._begin()
            await asyncio.Event().wait()

    # ---- what the API asks ---------------------------------------------------------------------------------------

    @property
    def engine(self) -> Client:
        return self._engine

    @property
    def clock(self) -> WallClock:
        return self._clock

    @property
    def node_id(self) -> str:
        return self._identity.node_id if self._identity else ""

    @property
    def replica(self) -> Replica | None:
        manager = self._life.member.manager if self._life.member else None
        return manager.cache if manager else None

    def local(self) -> LocalInfo:
        identity = self._identity
        if identity is None:
            return LocalInfo(error=self._look.unfit)
        agent, manager = self._life.member, self._life.member.manager if self._life.member else None
        ready = manager.cache.synced.is_set() if manager else bool(agent and agent.connected)
        known = agent.managers if agent else []
        error = self._life.error or (agent.trouble if agent else "")
        locked = self._credentials.locked
        return LocalInfo(
            state="locked" if locked else "error" if error else "active" if ready or agent else "pending",
            node_addr=identity.address,
            control_available=bool(manager and manager.cache.synced.is_set()),
            error=error,
            manager=identity.role == Role.MANAGER,
            remote_managers=[(node_id, _shown(at)) for node_id, at in known]
            or [("", _shown(at)) for at in identity.managers],
        )

    async def init(self, request: InitRequest) -> str:
        from afterswarm.control.founding import found  # noqa: PLC0415 - `cryptography`, for managers only

        async with self._changing:
            if self._identity and request.force_new_cluster:
                return await self._begin_anew(request, self._identity)
            self._check_free()
            address, data_path = self._addresses(request.advertise_addr, request.data_path_addr)
            listen, port = self._ports(request.listen_addr, request.advertise_addr)
            pair = await csr.make()
            founded = found(
                pair.csr,
                address=address,
                port=port,
                availability=Availability(request.availability or "active"),
                spec=request.spec,
                pools=request.default_addr_pool or [DEFAULT_POOL],
                subnet_size=request.subnet_size or 24,
                data_path_port=request.data_path_port or DATA_PATH_PORT,
                now=self._clock.now(),
            )
            shutil.rmtree(self._config.etcd, ignore_errors=True)
            self._credentials.adopt(
                founded.enrolment, ca=founded.ca, key=pair.key, data_path=data_path, listen=listen, port=port
            )
            self._begin(founded)
            try:
                await self._life.settled()
            except TimeoutError:
                why = self._life.error or TOO_LONG
                await self._life.end()
                raise Refused(503, f"the swarm could not be started: {why}. See the daemon's log.") from None
            return self.node_id

    async def _begin_anew(self, request: InitRequest, identity: Identity) -> str:
        """This manager alone, with what its store has. Under the old address, if that is still there."""
        if self._credentials.locked:
            raise Refused(503, LOCKED)
        own = {address for found in addresses.of_this_host().values() for address in found}
        wish = request.advertise_addr or (identity.address if identity.address in own else "")
        data_path_wish = request.data_path_addr or (identity.data_path if identity.data_path in own else "")
        address, data_path = self._addresses(wish, data_path_wish)
        await self._life.stop()
        self._credentials.move(address, data_path)
        self._begin(self._clock.now())
        try:
            await self._life.settled()
        except TimeoutError:
            why = self._life.error or TOO_LONG
            raise Refused(503, f"the swarm could not be made anew: {why}. See the daemon's log.") from None
        return identity.node_id

    async def unlock(self, key: str) -> None:
        from afterswarm.daemon import lock  # noqa: PLC0415 - `cryptography`, for managers only

        async with self._changing:
            if not self._credentials.locked:
                raise Refused(409, "swarm is not locked")
            lock.open_with(self._credentials, key)
            self._begin()
            try:
                await self._life.settled()
            except TimeoutError:
                raise Refused(503, f"swarm component could not be started: {self._life.error or TOO_LONG}") from None

    async def join(self, request: JoinRequest) -> None:
        async with self._changing:
            self._check_free()
            wish = request.advertise_addr
            listen, port = self._ports(request.listen_addr, wish)
            address, data_path = self._addresses(wish, request.data_path_addr) if wish else ("", request.data_path_addr)
            joined = await enrol.join(
                request.remote_addrs,
                request.join_token,
                address=address,
                data_path=data_path,
                hostname=socket.gethostname(),
                availability=Availability(request.availability or "active"),
            )
            shutil.rmtree(self._config.etcd, ignore_errors=True)
            self._credentials.adopt(
                joined.enrolment, ca=joined.ca, key=joined.key, data_path=data_path, listen=listen, port=port
            )
            self._begin()
            try:
                await self._life.settled()
            except TimeoutError:
                raise Refused(503, STILL_JOINING) from None

    async def leave(self, *, force: bool) -> None:
        async with self._changing:
            await self._life.leave()
            log.info("this node left the swarm%s", " by force" if force else "")

    def acquaintances(self) -> list[Acquaintance]:
        return self._life.member.acquaintances() if self._life.member else []

    def standing(self) -> Standing | None:
        return self._life.member.standing() if self._life.member else None

    def floating(self) -> list[Whereabouts]:
        return self._life.member.floating() if self._life.member else []

    def engine_of(self, node_id: str) -> tuple[Client, str]:
        manager = self._life.member.manager if self._life.member else None
        if manager is None:
            raise Refused(503, "this node is not a swarm manager")
        return manager.hosts.engine_of(node_id)

    async def admit(self, wish: Wish) -> Place:
        if self._life.member is None:
            raise Refused(503, "this node is not part of a swarm")
        guest, network, endpoint, name_server = await self._life.member.guests.admit(wish)
        return Place(guest=guest.id, network=network, endpoint=endpoint, name_server=name_server)

    def made(self, guests: list[str]) -> None:
        if self._life.member:
            self._life.member.guests.made(guests)

    async def dismiss(self, guests: list[str]) -> None:
        if self._life.member:
            await self._life.member.guests.dismiss(guests)

    def seal(self, object_id: str, data: bytes) -> str:
        return self._managing().seal(object_id, data)

    def unseal(self, object_id: str, sealed: str) -> bytes:
        return self._managing().unseal(object_id, sealed)

    @property
    def keys(self) -> Keys:
        return self._managing().keys

    # ---- the life of a member ------------------------------------------------------------------------------------

    @property
    def _identity(self) -> Identity | None:
        return self._credentials.identity

    def _managing(self) -> Manager:
        manager = self._life.member.manager if self._life.member else None
        if manager is None:
            raise Refused(503, "this node is not a swarm manager")
        return manager

    def _begin(self, how: Founded | float | None = None) -> None:
        assert self._group  # noqa: S101 - set before anything can be asked
        self._life.begin(self._group, how)

    def _check_free(self) -> None:
        if self._identity:
            raise Refused(503, ALREADY)
        if self._look.unfit:
            raise Refused(503, self._look.unfit)

    def _addresses(self, advertise: str, data_path: str) -> tuple[str, str]:
        own = addresses.of_this_host()
        address = addresses.choose(advertise, own)
        return address, addresses.choose(data_path, own, flag="--data-path-addr") if data_path else ""

    def _ports(self, listen: str, advertise: str) -> tuple[str, int]:
        """What `--listen-addr` and `--advertise-addr` say of port 2377: where to open it, and what others are told."""
        host, port = addresses.listening(listen, addresses.of_this_host())
        own = where(host or "0.0.0.0", port) if host or port != PORT else ""
        return own, addresses.advertised(advertise, port)


def _shown(at: str) -> str:
    """A manager's place as `docker info` lists it: always with its port."""
    host, port = split(at)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
