"""This host's network: engine networks, tunnels, and the rules of the host and of every container on it.

Two loops, both level-triggered and repeated every few seconds, so that what somebody else broke is repaired:

    plumbing   engine networks (may take long: containers of an old network have to end)
    routing    links and rulesets (milliseconds), then flows to what is gone are forgotten, then `applied`

and a look at who has fallen silent (`silence`): its targets leave the rules at once and are back with its next beat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from afterswarm.agent.network.bridges import Bridges
from afterswarm.agent.network.drains import Drains
from afterswarm.agent.network.silence import Silence
from afterswarm.core.dataplane import nftables, paths, vxlan
from afterswarm.core.dns import Zone
from afterswarm.core.host.guests import as_tasks
from afterswarm.model.network import Network as Overlay
from afterswarm.model.session import Peer, Route, Wanted
from afterswarm.model.task import Task
from afterswarm.ports import Clock, Engine, EngineError, EngineGone, Json, Kernel

log = logging.getLogger(__name__)

REPAIR = 4.0  # seconds between repairs of what nobody told us about
PATIENCE = 5.0  # seconds that a task waits for news of its network
LOOK = 0.1  # seconds between looks for them


class Live(NamedTuple):
    """A running container. Its questions to the nameservers in `redirect` are answered by us."""

    pid: int
    task: Task
    source: str = ""  # the address that it speaks from to everybody else
    redirect: tuple[str, ...] = ()


class Network:
    """Implements `HostNetwork`. `heard` (node id -> time of its last beat) is only read.

    `zone` is what the resolver may answer: it follows once the rules for it are in place. `applied` is called with
    each revision that this host routes by, for its manager; `acknowledge` with the one that all its routes are of, for
    everybody; `routed` is what the others have acknowledged, only read.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        kernel: Kernel,
        node_id: str,
        clock: Clock,
        heard: Mapping[str, float],
        applied: Callable[[int], None] = lambda _rev: None,
        acknowledge: Callable[[int], None] = lambda _rev: None,
        routed: Mapping[str, int] | None = None,
        mtu: int = vxlan.MTU,
    ) -> None:
        self.zone = Zone()
        self.applied = applied
        self._acknowledge = acknowledge
        self._drains = Drains(clock, node_id, heard=heard, routed={} if routed is None else routed)
        self._kernel = kernel
        self._node_id = node_id
        self._clock = clock
        self._mtu = mtu
        self._bridges = Bridges(engine=engine, clock=clock, node_id=node_id, mtu=mtu)
        self._wanted = Wanted()
        self._live: dict[str, Live] = {}
        self._links: list[Json] | None = None  # as last made; None: not known
        self._links_lock = asyncio.Lock()
        self._ways: list[Json] | None = None  # back to other hosts; likewise
        self._basis = 0  # all routes of this revision are in `_wanted`
        self._settled = False  # the kernel holds what `_wanted` asks for
        self._routed: dict[str, str] = {}  # address -> node, of every target of the last rules
        self._routed_lost: frozenset[str] = frozenset()
        self._plumbing_due = asyncio.Event()
        self._routing_due = asyncio.Event()
        self._failed: dict[str, str] = {}
        self._silence = Silence(clock, node_id, heard=heard, changed=self._routing_due.set)

    # ---- what others say -----------------------------------------------------------------------------------------

    def want(self, wanted: Wanted) -> None:
        """New sections; `None` is unchanged. An older revision (of a manager that lags) than seen is not followed."""
        if wanted.rev < self._wanted.rev:
            return
        new = {
            name: value
            for name in ("networks", "routes", "peers", "tasks", "guests", "data_path_port")
            if (value := getattr(wanted, name)) is not None
        }
        self._wanted = msgspec.structs.replace(self._wanted, rev=wanted.rev, **new)
        self._silence.follow(self._peers)
        self._basis = max(self._basis, wanted.basis)
        if not new:
            if self._settled:
                self._follow(self._basis)
            return
        if "networks" in new:
            self._plumbing_due.set()
        self._settled = False
        self._routing_due.set()

    def begin_anew(self) -> None:
        """The swarm was made anew from a copy of it: a lower revision is not an older one now."""
        self._wanted = msgspec.structs.replace(self._wanted, rev=0)
        self._basis = 0

    def _follow(self, basis: int) -> None:
        self._drains.own = basis
        self._acknowledge(basis)

    def gateways(self) -> list[str]:
        """This host's own addresses in its networks: where the resolver listens."""
        return sorted(network.gateways[self._node_id] for network in self._networks.values())

    def unready(self, address: str) -> bool:
        """Whether this is a guest that was started and has no rules yet: those of tasks are there before."""
        guests = (g.attachment.address for g in self._wanted.guests or ())
        if address not in {a.partition("/")[0] for a in guests}:
            return False
        live = (a.address for live in self._live.values() for a in live.task.attachments)
        return address not in {a.partition("/")[0] for a in live}

    def ingress_gateways(self) -> dict[str, str]:
        """Node id -> its address in the ingress network."""
        found = (n for n in self._wanted.networks or () if n.spec.ingress)
        return next((n.gateways for n in found), {})

    async def prepare(self, task: Task) -> list[tuple[str, Json]]:
        endpoints: list[tuple[str, Json]] = []
        options = {n.target: n.driver_opts for n in task.spec.networks if n.driver_opts}
        for attachment in task.attachments:
            network = await self._known(attachment.network_id)
            if network.node_local:
                await self._bridges.ensure_own(network)
                endpoints.append((network.name, {}))
                continue
            await self._ensure(network)
            address = attachment.address.partition("/")[0]
            endpoint: Json = {"IPAMConfig": {"IPv4Address": address}, "MacAddress": vxlan.container_mac(address)}
            if network.id in options:
                endpoint["DriverOpts"] = options[network.id]
            endpoints.append((network.name, endpoint))
        if endpoints:
            try:
                await self._sync_links()
            except OSError as error:
                raise EngineError(500, f"cannot connect this node to the network: {error}") from error
        return endpoints

    async def prepare_own(self, network: Overlay) -> None:
        """Make this host's own network of a swarm-wide one without a swarm of its own (macvlan, …)."""
        await self._bridges.ensure_own(network)

    def dns(self, task: Task) -> list[str]:
        known = [self._networks[a.network_id] for a in task.attachments if a.network_id in self._networks]
        known.sort(key=lambda network: network.spec.ingress)  # where it is asked for by name, if anywhere
        return [network.gateways[self._node_id] for network in known[:1]]

    async def started(self, task: Task, pid: int, *, redirect: tuple[str, ...] = ()) -> None:
        if not task.attachments or not pid:  # the host's own namespace, or none of ours
            return
        before = self._live.get(task.id)
        if redirect and before and before[:2] == (pid, task) and before.redirect == redirect:
            return  # a guest, which is looked at often
        try:
            self._live[task.id] = Live(pid, task, await self._kernel.source(netns_pid=pid), redirect)
        except ProcessLookupError:
            self._live.pop(task.id, None)
            return
        await self._guarded(f"rules of task {task.id}", self._apply_container(task.id))

    async def drain(self, task: Task) -> None:
        route = next((r for r in self._routes if any(t.task_id == task.id for t in r.targets)), None)
        if task.id in self._live and route and (route.ports or route.vips or route.mode == "dnsrr"):
            await self._drains.drain(task, self._peers, route.drain)

    async def stopped(self, task_id: str) -> None:
        self._live.pop(task_id, None)
        for what in (f"rules of task {task_id}", f"flows of task {task_id}"):
            self._failed.pop(what, None)

    # ---- loops ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; everything stays in place then, and containers go on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plumb(), name="plumbing")
            group.create_task(self._route(), name="routing")
            group.create_task(self._silence.run(), name="who is silent")
            group.create_task(self._repair(), name="repair")

    async def clear(self) -> None:
        """Take everything away: this host has left the swarm and its containers have ended. Not while `run` runs."""
        self._live.clear()
        await self._guarded("rules", self._kernel.apply(nftables.NOTHING))
        await self._guarded("ways back", self._kernel.sync_returns([]))
        await self._guarded("links", self._kernel.sync_links([]))
        await self._guarded("networks", self._bridges.keep(()))

    async def _plumb(self) -> None:
        while await self._plumbing_due.wait():
            self._plumbing_due.clear()
            if self._wanted.networks is None:  # no manager has said yet: what is there stays
                continue
            for network_id in list(self._networks):  # looked up again each time: making one may take long
                network = self._networks.get(network_id)
                if network and not network.pending_delete:  # a new one may have its name and bridge already
                    await self._guarded(f"network {network.name}", self._ensure(network))
            await self._guarded("old networks", self._bridges.keep({n.id for n in self._wanted.networks or ()}))
            self._routing_due.set()

    async def _route(self) -> None:
        while await self._routing_due.wait():
            self._routing_due.clear()
            if self._wanted.routes is None or self._wanted.networks is None:
                continue
            rev, basis, silent, routes = self._wanted.rev, self._basis, self._silence.silent, self._routes
            networks = self._networks.values()
            # first the way, then who is sent there: an address that has moved to another host is one to be found
            linked = await self._guarded("links", self._sync_links())
            led_back = await self._guarded("ways back", self._sync_returns())
            host = nftables.host(
                node_id=self._node_id,
                networks=networks,
                routes=routes,
                peers=self._peers,
                silent=silent,
                tunnel_port=self._wanted.data_path_port or vxlan.PORT,
            )
            ruled = await self._guarded("rules", self._kernel.apply(host))
            for task_id in sorted(self._live):
                await self._guarded(f"rules of task {task_id}", self._apply_container(task_id))
            await self._forget(routes)
            self.zone = Zone.of(
                networks=self._networks.values(),
                routes=routes,
                tasks=[*as_tasks(self._wanted.guests or ()), *(self._wanted.tasks or ())],
                silent=silent,
            )
            if ruled:
                self._follow(basis)  # whom new connections go to is a matter of rules alone
            if ruled and linked and led_back:
                self.applied(rev)
            self._settled = ruled and not self._routing_due.is_set()

    async def _repair(self) -> None:
        while True:
            await self._clock.sleep(REPAIR)
            self._links = self._ways = None
            self._plumbing_due.set()
            self._routing_due.set()

    # ---- steps ---------------------------------------------------------------------------------------------------

    @property
    def _networks(self) -> dict[str, Overlay]:
        """Those that this host can be in already, by id."""
        found = self._wanted.networks or ()
        return {n.id: n for n in found if n.subnet and self._node_id in n.gateways}

    @property
    def _routes(self) -> list[Route]:
        return self._wanted.routes or []

    @property
    def _peers(self) -> list[Peer]:
        return self._wanted.peers or []

    async def _known(self, network_id: str) -> Overlay:
        deadline = self._clock.now() + PATIENCE
        while (network := self._networks.get(network_id) or self._own(network_id)) is None:
            if self._clock.now() >= deadline:
                raise EngineError(404, f"network {network_id} not found")
            await self._clock.sleep(LOOK)
        return network

    def _own(self, network_id: str) -> Overlay | None:
        return next((n for n in self._wanted.networks or () if n.id == network_id and n.node_local), None)

    async def _ensure(self, network: Overlay) -> None:
        if await self._bridges.ensure(network):
            self._links = self._ways = None  # a new bridge, with nothing on it

    async def _sync_links(self) -> None:
        async with self._links_lock:
            networks = [n for n in self._networks.values() if n.id in self._bridges.present]
            links: list[Json] = [
                msgspec.to_builtins(link)
                for link in vxlan.links(
                    node_id=self._node_id,
                    networks=networks,
                    routes=self._routes,
                    peers=self._peers,
                    mtu=self._mtu,
                    port=self._wanted.data_path_port or vxlan.PORT,
                )
            ]
            if links == self._links:
                return
            self._links = None
            await self._kernel.sync_links(links)
            self._links = links

    async def _sync_returns(self) -> None:
        found = paths.returns((n for n in self._networks.values() if n.id in self._bridges.present), self._node_id)
        ways: list[Json] = [msgspec.to_builtins(each) for each in found]
        if ways != self._ways:
            self._ways = None
            await self._kernel.sync_returns(ways)
            self._ways = ways

    async def _apply_container(self, task_id: str) -> None:
        live = self._live.get(task_id)
        if live is None or self._wanted.routes is None:  # adopted before a manager spoke: it has its rules
            return
        # A service's container that was connected to another network by hand is a task and a guest at once.
        here = [other.task for other in self._live.values() if other.pid == live.pid]
        ruleset = nftables.container(
            task_id=task_id,
            attached={a.network_id: a.address.partition("/")[0] for task in here for a in task.attachments},
            source=live.source,
            networks=self._networks.values(),
            routes=self._routes,
            silent=self._silence.silent,
            names=self._names(live) if len(here) == 1 else None,
        )
        try:
            await self._kernel.apply(ruleset, netns_pid=live.pid)
        except ProcessLookupError:
            self._drop(task_id, live)

    def _names(self, live: Live) -> nftables.Names | None:
        """What leads a guest's questions to us. One that was made for its network asks us anyway."""
        known = [a for a in live.task.attachments if a.network_id in self._networks]
        if not known or not live.redirect:
            return None
        gateway = self._networks[known[0].network_id].gateways[self._node_id]
        if gateway in live.redirect:
            return None
        return nftables.Names(gateway, known[0].address.partition("/")[0], live.redirect)

    async def _forget(self, routes: Iterable[Route]) -> None:
        """Flows to tasks that are gone or on hosts that are lost: their next packet is balanced anew."""
        before, self._routed = self._routed, _addresses(routes)
        lost = self._silence.lost
        fallen = frozenset() if self._silence.all_lost else lost - self._routed_lost
        self._routed_lost = lost
        gone = {a for a, node in before.items() if a not in self._routed}
        gone |= {a for a, node in self._routed.items() if node in fallen}
        if not gone:
            return
        await self._guarded("flows", self._kernel.forget_flows(gone))
        for task_id, live in sorted(self._live.items()):
            await self._guarded(f"flows of task {task_id}", self._forget_in(task_id, live, gone))

    async def _forget_in(self, task_id: str, live: Live, addresses: Collection[str]) -> None:
        try:
            await self._kernel.forget_flows(addresses, netns_pid=live.pid)
        except ProcessLookupError:
            self._drop(task_id, live)

    def _drop(self, task_id: str, live: Live) -> None:
        if self._live.get(task_id) == live:
            del self._live[task_id]

    async def _guarded(self, what: str, work: Awaitable[None]) -> bool:
        """Whether it worked. A failure is said once, and tried again with the next repair."""
        try:
            await work
        except (OSError, EngineError, EngineGone) as error:
            if self._failed.get(what) != str(error):
                log.warning("%s: %s", what, error)
            self._failed[what] = str(error)
            return False
        if self._failed.pop(what, ""):
            log.info("%s: well again", what)
        return True


def _addresses(routes: Iterable[Route]) -> dict[str, str]:
    return {address: t.node_id for route in routes for t in route.targets for address in t.addresses.values()}
