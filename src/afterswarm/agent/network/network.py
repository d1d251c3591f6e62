"""This host's network: engine networks, tunnels, and the rules of the host and of every container on it.

Two loops, both level-triggered and repeated every few seconds, so that what somebody else broke is repaired:

    plumbing   engine networks (may take long: containers of an old network have to end)
    routing    links and rulesets (milliseconds), then flows to what is gone are forgotten, then `applied`

and a look at who has fallen silent (`silence`): its targets leave containers' rules and are back with its next beat.
The host's rules see to that themselves (`core.dataplane.mesh`); what is forgotten at once are flows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from afterswarm.agent.network.bridges import Bridges
from afterswarm.agent.network.drains import Drains
from afterswarm.agent.network.guarded import Guarded
from afterswarm.agent.network.keys import Keys
from afterswarm.agent.network.naming import Hold, Naming, Tell
from afterswarm.agent.network.orders import Orders
from afterswarm.agent.network.places import Places
from afterswarm.agent.network.repairs import Repairs
from afterswarm.agent.network.rules import Rules
from afterswarm.agent.network.silence import Silence
from afterswarm.agent.network.tunnels import Tunnels
from afterswarm.model.network import Network as Overlay
from afterswarm.model.repair import ENCRYPTION, LINKS, NETWORKS, ROUTES, RULES
from afterswarm.model.session import Wanted
from afterswarm.model.task import Task
from afterswarm.ports import Clock, Engine, Json, Kernel

log = logging.getLogger(__name__)

REPAIR = 4.0  # seconds between looks at everything, whether or not anything was heard
CALM = 0.2  # seconds at least between looks at what was heard of
SHARE = 0.2  # of the time that such looks may take


class Network:
    """Implements `HostNetwork`. `heard` (node id -> time of its last beat) is only read.

    `tell` gets what the resolver may answer and where it listens, once the rules for it are in place; `hold` gets the
    addresses of containers whose rules are still to come. `acknowledge` gets the revision that all of this host's
    routes are of, for everybody; `routed` is what the others have acknowledged, only read. `applied` is the revision of
    the last orders that all is in place for.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        kernel: Kernel,
        node_id: str,
        clock: Clock,
        heard: Mapping[str, float],
        acknowledge: Callable[[int], None] = lambda _rev: None,
        routed: Mapping[str, int] | None = None,
        keys: Keys | None = None,
        tell: Tell | None = None,
        hold: Hold = lambda _addresses: None,
    ) -> None:
        self.applied = 0
        self._acknowledge = acknowledge
        self.drains = Drains(clock, node_id, heard=heard, routed={} if routed is None else routed)
        self._kernel = kernel
        self._node_id = node_id
        self._clock = clock
        self._plumbing_due = asyncio.Event()
        self._routing_due = asyncio.Event()
        self._looked = asyncio.Event()
        self._flows_due = asyncio.Event()
        self._orders = Orders(node_id)
        self.repairs = Repairs(clock)
        self._guarded = Guarded(self.repairs)
        self._silence = Silence(clock, node_id, heard=heard, changed=self._fell_silent)
        self._bridges = Bridges(engine=engine, kernel=kernel, clock=clock, node_id=node_id)
        self._tunnels = Tunnels(
            kernel=kernel,
            orders=self._orders,
            node_id=node_id,
            present=self._bridges.present,
            repairs=self.repairs,
            keys=keys,
        )
        self._rules = Rules(
            kernel=kernel,
            orders=self._orders,
            node_id=node_id,
            silence=self._silence,
            guarded=self._guarded,
            repairs=self.repairs,
        )
        self._naming = Naming(self._orders, self._rules.live, tell, hold)
        self._places = Places(
            orders=self._orders, bridges=self._bridges, tunnels=self._tunnels, repairs=self.repairs, clock=clock
        )
        self._settled = False  # the kernel holds what the orders ask for
        self.ingress_gateways = self._orders.ingress_gateways

    # ---- what others say -----------------------------------------------------------------------------------------

    def want(self, wanted: Wanted) -> None:
        """New sections; `None` is unchanged."""
        new = self._orders.take(wanted)
        if new is None:
            return
        self._silence.follow(self._orders.peers)
        if "guests" in new:
            self._naming.hold_back()
        if not new:
            if self._settled:
                self._follow(self._orders.basis)
            return
        if "networks" in new:
            self._plumbing_due.set()
        self._settled = False
        self._routing_due.set()

    def begin_anew(self) -> None:
        """The swarm was made anew from a copy of it: a lower revision is not an older one now."""
        self._orders.begin_anew()

    def _follow(self, basis: int) -> None:
        self.drains.own = basis
        self._acknowledge(basis)

    @property
    def silent(self) -> frozenset[str]:
        """Node ids of the hosts that are not heard."""
        return self._silence.silent

    @property
    def tunnel_port(self) -> int:
        return self._orders.tunnel_port

    def reach_out(self, containers: Iterable[str]) -> None:
        """Guests with these ids are in networks of their engine's too: a way out that the swarm does not know."""
        if self._naming.reach_out(containers):
            self._routing_due.set()

    def without_ipv6(self) -> None:
        """This host's kernel has none: it takes part in networks of both families with IPv4 alone."""
        self._orders.ipv6 = False

    async def prepare(self, task: Task) -> list[tuple[str, Json]]:
        return await self._places.prepare(task)

    async def prepare_own(self, network: Overlay) -> None:
        """Make this host's own network of a swarm-wide one without a swarm of its own (macvlan, …)."""
        await self._bridges.ensure_own(network)

    def dns(self, task: Task) -> list[str]:
        networks = self._orders.networks
        known = [networks[a.network_id] for a in task.attachments if a.network_id in networks]
        known.sort(key=lambda network: network.spec.ingress)  # where it is asked for by name, if anywhere
        return [network.gateways[self._node_id] for network in known[:1]]

    async def started(self, task: Task, pid: int, *, redirect: tuple[str, ...] = ()) -> None:
        if task.attachments and pid:  # else: the host's own namespace, or none of ours
            await self._rules.started(task, pid, redirect)
            self._naming.hold_back()

    async def drain(self, task: Task) -> None:
        routes = self._orders.routes
        route = next((r for r in routes if any(t.task_id == task.id for t in r.targets)), None)
        if task.id in self._rules.live and route and (route.ports or route.vips or route.mode == "dnsrr"):
            await self.drains.drain(task, self._orders.peers, route.drain)

    async def stopped(self, task_id: str) -> None:
        self._rules.stopped(task_id)
        self._naming.hold_back()

    # ---- loops ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; everything stays in place then, and containers go on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plumb(), name="plumbing")
            group.create_task(self._route(), name="routing")
            group.create_task(self._silence.run(), name="who is silent")
            group.create_task(self._give_up(), name="connections to the lost")
            group.create_task(self._repair(), name="repair")
            group.create_task(self._listen(), name="disturbances")

    async def clear(self) -> None:
        """Take everything away: this host has left the swarm and its containers have ended. Not while `run` runs."""
        await self._guarded("rules", self._rules.clear(), kind=RULES)
        await self._guarded("ways back", self._kernel.sync_returns([]), kind=ROUTES)
        await self._guarded("links", self._kernel.sync_links([]), kind=LINKS)
        await self._guarded("encryption", self._kernel.sync_wireguard(None), kind=ENCRYPTION)
        await self._guarded("networks", self._bridges.keep(()), kind=NETWORKS)

    async def _plumb(self) -> None:
        while await self._plumbing_due.wait():
            self._plumbing_due.clear()
            if self._orders.wanted.networks is None:  # no manager has said yet: what is there stays
                continue
            for network_id in list(self._orders.networks):  # looked up again each time: making one may take long
                network = self._orders.networks.get(network_id)
                if network and not network.pending_delete:  # a new one may have its name and bridge already
                    await self._guarded(f"network {network.name}", self._places.ensure(network), kind=NETWORKS)
            self._tunnels.surveyed = True
            there = {f"network {n.name}" for n in self._orders.networks.values()}
            self._guarded.forget(*(w for w in self.repairs.failing if w.startswith("network ") and w not in there))
            kept = {n.id for n in self._orders.wanted.networks or ()}
            await self._guarded("old networks", self._bridges.keep(kept), kind=NETWORKS)
            self._routing_due.set()

    async def _route(self) -> None:
        while await self._routing_due.wait():
            self._routing_due.clear()
            orders = self._orders
            if not orders.known:
                continue
            rev, basis, silent, routes = orders.wanted.rev, orders.basis, self._silence.silent, orders.routes
            # first the way, then who is sent there: an address that has moved to another host is one to be found
            # what is in the clear does without this
            await self._guarded("encryption", self._tunnels.seal(), kind=ENCRYPTION)
            linked = await self._guarded("links", self._tunnels.sync_links(), kind=LINKS)
            led_back = await self._guarded("ways back", self._tunnels.sync_returns(), kind=ROUTES)
            ruled = await self._rules.apply()
            await self._rules.forget(routes)
            await self._naming.follow(silent)
            if ruled:
                self._follow(basis)  # whom new connections go to is a matter of rules alone
            if ruled and linked and led_back:
                self.applied = rev
            if all(what.startswith("flows") for what in self.repairs.failing):  # those are done once, or not
                self.repairs.whole()
            self._looked.set()
            self._settled = ruled and not self._routing_due.is_set()

    def _fell_silent(self) -> None:
        self._flows_due.set()
        self._routing_due.set()

    async def _give_up(self) -> None:
        while await self._flows_due.wait():
            self._flows_due.clear()
            await self._rules.give_up()

    async def _repair(self) -> None:
        while True:
            await self._clock.sleep(REPAIR)
            self._tunnels.doubt()
            self._plumbing_due.set()
            self._routing_due.set()

    async def _listen(self) -> None:
        """Somebody has changed something, which may be ours: look at once, but not all the time."""
        while True:
            try:
                async for what in self._kernel.disturbances():
                    began = self._clock.now()
                    if LINKS in what:
                        self._tunnels.doubt()
                    self._looked.clear()
                    self._routing_due.set()
                    await self._looked.wait()
                    await self._clock.sleep(max(CALM, (self._clock.now() - began) / SHARE))
            except OSError as error:
                log.warning("changes by others are noticed only every %.0f seconds: %s", REPAIR, error)
                return
