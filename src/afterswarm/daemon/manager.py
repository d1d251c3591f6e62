"""The manager's part of a daemon: its member of the store, its view, leadership, and what other hosts may ask of it.

Only managers load this file, and with it `cryptography`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

import msgspec

from afterswarm.adapters.etcd.members import Members
from afterswarm.adapters.etcd.server import CLIENT_PORT, EtcdServer, Files, peer_url
from afterswarm.adapters.etcd.store import EtcdStore
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.agent.trust.renewal import Connect
from afterswarm.control import founding, seal
from afterswarm.control.cache import Cache
from afterswarm.control.controllers import CONTROLLERS
from afterswarm.control.dispatch import Dispatcher
from afterswarm.control.founding import Founded
from afterswarm.control.joining import Joining
from afterswarm.control.leader import lead, observe
from afterswarm.control.quorum import Quorum, ask
from afterswarm.control.remote import Hosts
from afterswarm.core.admit.defaults import ingress_network
from afterswarm.core.cluster.leadership import SILENCE
from afterswarm.core.trust.certificate import UNIT
from afterswarm.daemon.config import Config
from afterswarm.daemon.gate import Routes
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import DEFAULT_POOL, JoinTokens
from afterswarm.model.enrolment import MemberReply
from afterswarm.model.node import Role
from afterswarm.model.refused import Refused
from afterswarm.ports import Clock, Conflict, Unavailable

ASK_AGAIN = 0.3  # seconds between requests for a place in the store
ATTEMPTS = 10

log = logging.getLogger(__name__)


class Manager:
    """`run` it while this node is a manager. `heard`: node id -> when its last beat came."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: Credentials,
        identity: Identity,
        clock: Clock,
        heard: Mapping[str, float],
        engine: Client,
        connect: Connect,
        follow: Callable[[Cache], Coroutine[None, None, None]],
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._identity = identity
        self._clock = clock
        self._heard = heard
        self._connect = connect
        self._follow = follow
        self._files = Files(ca=credentials.ca_path, cert=credentials.cert_path, key=credentials.key_path)
        self._store = Client.tcp(
            "127.0.0.1", CLIENT_PORT, ssl=credentials.client_context(), server_hostname="127.0.0.1"
        )
        self._members = Members(self._store)
        self.cache = Cache(EtcdStore(self._store), clock)
        self.hosts = Hosts(self.cache, credentials.client_context(), me=identity.node_id, own=engine)
        self._routes: Routes | None = None

    @property
    def routes(self) -> Routes | None:
        """What port 2377 answers as a manager; `None` until the store's view is there."""
        return self._routes if self.cache.synced.is_set() else None

    async def run(self, founded: Founded | None = None) -> None:
        """Until cancelled. With `founded`, begin a new swarm with these objects."""
        etcd = await self._member(new=founded is not None)
        key = self._credentials.cluster_key
        dispatcher = Dispatcher(self.cache, self._identity.node_id, self.unseal, self._clock)
        joining = Joining(self.cache, self._clock, self.unseal, key)
        quorum = Quorum(
            self.cache,
            me=self._identity.node_id,
            members=self._members,
            alive=self._alive,
            clock=self._clock,
            cluster_key=key,
        )
        self._routes = {
            ("GET", "/ca"): joining.ca,
            ("POST", "/join"): joining.join,
            ("POST", "/renew"): joining.renew,
            ("POST", "/leave"): joining.leave,
            ("POST", "/session"): dispatcher.session,
            ("POST", "/member/add"): quorum.add,
        }
        me = self._identity.node_id
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(etcd.run(), name="etcd")
                group.create_task(self.cache.run(), name="view of the store")
                await self.cache.synced.wait()
                if founded:
                    await self._begin(founded)
                group.create_task(dispatcher.run(), name="dispatcher")
                group.create_task(quorum.run(), name="managers")
                group.create_task(lead(self.cache, me, self._heard, self._clock, CONTROLLERS), name="leadership")
                group.create_task(observe(self.cache, me, self._heard, self._clock), name="suspicions")
                group.create_task(self._follow(self.cache), name="events")
        finally:
            self._routes = None
            self.hosts.close()
            self._store.close()

    def seal(self, object_id: str, data: bytes) -> str:
        return seal.seal(self._credentials.cluster_key, object_id, data)

    def unseal(self, object_id: str, sealed: str) -> bytes:
        return seal.unseal(self._credentials.cluster_key, object_id, sealed)

    async def rotate_token(self, *, worker: bool, manager: bool) -> None:
        """New secrets; members stay members."""
        for _ in range(ATTEMPTS):
            snap = self.cache.snapshot()
            cluster = snap.cluster
            if cluster is None:
                break
            tokens = JoinTokens(
                worker=founding.new_token(cluster.ca_cert) if worker else cluster.tokens.worker,
                manager=founding.new_token(cluster.ca_cert) if manager else cluster.tokens.manager,
            )
            try:
                await self.cache.commit([Change(cluster, msgspec.structs.replace(cluster, tokens=tokens))])
            except Conflict as lost:
                await self.cache.reach(lost.rev)
            else:
                return
        raise Refused(503, "the tokens could not be rotated: others keep changing the swarm; try again")

    async def depart(self) -> None:
        """Leave the store's quorum, as far as the others can still agree to it.

        If this member leads the store, it hands over before: nobody has to wait for an election then, and of two
        members the one that stays is sure to hear that it is alone.
        """
        members = await self._members.members()
        staying = [
            m.id for m in members if m.name != self._identity.node_id and m.name in self._alive() and not m.learner
        ]
        status = await self._members.status()
        if staying and status.leader == status.member_id:
            with suppress(Unavailable, Refused):
                await self._members.move_leader(min(staying))
        if len(members) > 1:
            await self._members.remove(status.member_id)

    def _alive(self) -> set[str]:
        now = self._clock.now()
        return {self._identity.node_id, *(i for i, at in self._heard.items() if now - at < SILENCE)}

    async def _begin(self, founded: Founded) -> None:
        ingress = ingress_network() if founded.cluster.default_addr_pool == [DEFAULT_POOL] else ingress_network("")
        first: list[Obj] = [founded.cluster, founded.node, ingress]
        if self.cache.snapshot().cluster is None:
            await self.cache.commit([Change(None, obj) for obj in first])

    async def _member(self, *, new: bool) -> EtcdServer:
        """This manager's etcd, with its place among the members."""
        name, address = self._identity.node_id, self._identity.address
        known = EtcdServer(
            self._config.etcd, name=name, address=address, files=self._files, peer_name=UNIT[Role.MANAGER]
        )
        if new or known.has_data():
            return known
        shutil.rmtree(self._config.etcd, ignore_errors=True)
        place = await self._place(peer_url(address))
        self._credentials.keep_cluster_key(place.cluster_key)
        return EtcdServer(
            self._config.etcd,
            name=name,
            address=address,
            files=self._files,
            initial_cluster=place.initial_cluster,
            existing=True,
            peer_name=UNIT[Role.MANAGER],
        )

    async def _place(self, url: str) -> MemberReply:
        """Ask the other managers for a place until one gives it."""
        said = ""
        while True:
            identity = self._credentials.identity
            for address in identity.managers if identity else ():
                if address == self._identity.address:
                    continue
                client = self._connect(address)
                try:
                    return await ask(client, url)
                except (Refused, ConnectFailed) as error:
                    if str(error) != said:
                        said = str(error)
                        log.info("%s gives no place in the store yet: %s", address, said)
                finally:
                    client.close()
            await self._clock.sleep(ASK_AGAIN)
