"""The manager's part of a daemon: its member of the store, its view, leadership, and what other hosts may ask of it.

Only managers load this file, and with it `cryptography`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

from afterswarm.adapters.etcd.members import Members
from afterswarm.adapters.etcd.server import CLIENT_PORT, EtcdServer, Files, peer_url
from afterswarm.adapters.etcd.store import EtcdStore
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.agent.trust.renewal import Connect
from afterswarm.control import seal
from afterswarm.control.cache import Cache
from afterswarm.control.controllers import CONTROLLERS
from afterswarm.control.dispatch import Dispatcher
from afterswarm.control.floating import Votes
from afterswarm.control.founding import Founded
from afterswarm.control.guests import Guests
from afterswarm.control.joining import Joining
from afterswarm.control.keys import Keys
from afterswarm.control.leader import lead, observe
from afterswarm.control.quorum import Quorum, ask
from afterswarm.control.remote import Hosts
from afterswarm.core.admit.defaults import ingress_network
from afterswarm.core.cluster import anew
from afterswarm.core.cluster.leadership import SILENCE
from afterswarm.core.trust.certificate import UNIT
from afterswarm.daemon import lock
from afterswarm.daemon.config import Config
from afterswarm.daemon.gate import Routes
from afterswarm.daemon.upkeep import Upkeep
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import DEFAULT_POOL
from afterswarm.model.enrolment import MemberReply
from afterswarm.model.floating import Letters
from afterswarm.model.node import Role
from afterswarm.model.refused import Refused
from afterswarm.ports import Clock, Conflict, Unavailable

ASK_AGAIN = 0.3  # seconds between requests for a place in the store

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
        greet: Callable[[], None],
        tell: Callable[[str, Letters], None],
    ) -> None:
        self.begun = False  # the store and the objects are what they are to be
        self._config = config
        self._credentials = credentials
        self._identity = identity
        self._clock = clock
        self._heard = heard
        self._connect = connect
        self._follow = follow
        self._files = Files(ca=credentials.ca_path, cert=credentials.cert_path, key=credentials.key_path)
        self._store = Client.tcp("127.0.0.1", CLIENT_PORT, ssl=credentials.client_context, server_hostname="127.0.0.1")
        self._members = Members(self._store)
        store = EtcdStore(self._store)
        self.cache = Cache(store, clock)
        self._upkeep = Upkeep(
            cache=self.cache,
            store=store,
            members=self._members,
            credentials=credentials,
            clock=clock,
            me=identity.node_id,
            alive=self._alive,
            greet=greet,
        )
        self.hosts = Hosts(self.cache, credentials.client_context, me=identity.node_id, own=engine)
        self.votes = Votes(self.cache, me=identity.node_id, clock=clock, heard=heard, tell=tell)
        self.keys = Keys(lambda: credentials.cluster_key, clock.now)
        self._routes: Routes | None = None

    @property
    def trust(self) -> str:
        """Digest of the root certificate that this host and its store count on."""
        return self._upkeep.trust

    @property
    def routes(self) -> Routes | None:
        """What port 2377 answers as a manager; `None` until the store's view is there."""
        return self._routes if self.cache.synced.is_set() else None

    async def run(self, begin: Founded | float | None = None) -> None:
        """Until cancelled. With what was founded, begin a new swarm; with a time, make the swarm anew (its epoch).

        Raises `Removed`, in a group, when the other managers have removed this one.
        """
        etcd = await self._member(begin)
        key = self._credentials.cluster_key
        dispatcher = Dispatcher(self.cache, self._identity.node_id, self.unseal, self._clock)
        joining = Joining(self.cache, self._clock, self.unseal, key)
        guests = Guests(self.cache, self._clock)
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
            ("POST", "/guest/admit"): guests.admit,
            ("POST", "/guest/report"): guests.report,
            ("POST", "/member/add"): quorum.add,
        }
        me = self._identity.node_id
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(etcd.run(), name="etcd")
                group.create_task(self.cache.run(), name="view of the store")
                await self.cache.synced.wait()
                if isinstance(begin, Founded):
                    await self._begin(begin)
                elif begin:
                    await self._begin_anew(begin)
                self.begun = True
                group.create_task(self._upkeep.run(etcd), name="upkeep of the store")
                group.create_task(lock.keep_in_step(self.cache, self._credentials), name="autolock")
                group.create_task(dispatcher.run(), name="dispatcher")
                group.create_task(quorum.run(), name="managers")
                group.create_task(lead(self.cache, me, self._heard, self._clock, CONTROLLERS), name="leadership")
                group.create_task(observe(self.cache, me, self._heard, self._clock), name="suspicions")
                group.create_task(self.votes.run(), name="floating addresses")
                group.create_task(self._follow(self.cache), name="events")
        finally:
            self._routes = None
            dispatcher.end()
            self.hosts.close()
            self._store.close()

    def seal(self, object_id: str, data: bytes) -> str:
        return seal.seal(self._credentials.cluster_key, object_id, data)

    def unseal(self, object_id: str, sealed: str) -> bytes:
        return seal.unseal(self._credentials.cluster_key, object_id, sealed)

    async def depart(self) -> None:
        """Leave the store's quorum, as far as the others can still agree to it.

        If this member leads the store, it hands over before: nobody has to wait for an election then, and of two
        members the one that stays is sure to hear that it is alone.
        """
        with suppress(Unavailable, Refused):
            await self._upkeep.hand_over()
        members, status = await self._members.members(), await self._members.status()
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

    async def _begin_anew(self, epoch: float) -> None:
        """Until it is done: half of it, with the others still counted on as managers, would be worse than waiting."""
        said = ""
        while True:
            try:
                status = await self._members.status()
                await self._members.move(status.member_id, peer_url(self._identity.address))
                snap = self.cache.snapshot()
                await self.cache.commit(anew.changes(snap, self._identity.node_id, epoch), seen=snap.rev)
            except Conflict as lost:
                await self.cache.reach(lost.rev)
            except Unavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.info("the swarm cannot be made anew yet: %s", said)
                await self._clock.sleep(ASK_AGAIN)
            else:
                log.warning("the swarm was made anew: this is its only manager")
                return

    async def _member(self, begin: Founded | float | None) -> EtcdServer:
        """This manager's etcd, with its place among the members."""
        name, address = self._identity.node_id, self._identity.address
        known = EtcdServer(
            self._config.etcd,
            name=name,
            address=address,
            files=self._files,
            force_new=isinstance(begin, float),
            peer_name=UNIT[Role.MANAGER],
        )
        if begin or known.has_data():
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
                if address == self._identity.at:
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
