"""The rules of the host and of every container that runs on it, and the flows that must not outlive their target."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import NamedTuple

from afterswarm.agent.network.guarded import Guarded
from afterswarm.agent.network.orders import Orders
from afterswarm.agent.network.repairs import Repairs
from afterswarm.agent.network.silence import Silence
from afterswarm.core import families
from afterswarm.core.dataplane.closed import confined
from afterswarm.core.dataplane.container_rules import Memo, Names, container
from afterswarm.core.dataplane.host_rules import host
from afterswarm.core.dataplane.ruleset import NOTHING, Ruleset
from afterswarm.model.repair import RULES
from afterswarm.model.session import Route
from afterswarm.model.task import Task
from afterswarm.ports import Kernel

log = logging.getLogger(__name__)


class Live(NamedTuple):
    """A running container. Its questions to the nameservers in `redirect` are answered by us."""

    pid: int
    task: Task
    source: str = ""  # the address that it speaks from to everybody else
    redirect: tuple[str, ...] = ()
    source6: str = ""


class Rules:
    """`live` by task id: what `started` was called for and runs, as far as is known."""

    def __init__(
        self, *, kernel: Kernel, orders: Orders, node_id: str, silence: Silence, guarded: Guarded, repairs: Repairs
    ) -> None:
        self.live: dict[str, Live] = {}
        self._kernel = kernel
        self._orders = orders
        self._node_id = node_id
        self._silence = silence
        self._guarded = guarded
        self._repairs = repairs
        self._host: Ruleset = NOTHING
        self._memo: Memo = {}
        self._routed: dict[str, str] = {}  # address -> node, of every target of the last rules
        self._chosen: frozenset[str] = frozenset()  # addresses of those among them that took new connections
        self._parted: dict[str, frozenset[str]] = {}  # lost nodes that all flows to were forgotten, here and inside

    async def started(self, task: Task, pid: int, redirect: tuple[str, ...]) -> None:
        before = self.live.get(task.id)
        if redirect and before and before[:2] == (pid, task) and before.redirect == redirect:
            return  # a guest, which is looked at often
        try:
            source = await self._kernel.source(netns_pid=pid)
            self.live[task.id] = Live(pid, task, source, redirect, await self._lead_out(task, pid))
        except ProcessLookupError:
            self.live.pop(task.id, None)
            return
        await self._guarded(f"rules of task {task.id}", self._apply(task.id), kind=RULES)

    async def _lead_out(self, task: Task, pid: int) -> str:
        """Answers to published ports have to leave the container, if by nothing else then by the ingress network."""
        networks = self._orders.networks
        entered = [n for a in task.attachments if (n := networks.get(a.network_id)) and n.spec.ingress and n.subnet6]
        if not entered:
            return ""
        gateway = families.twin(entered[0], entered[0].gateways[self._node_id])
        try:
            return await self._kernel.lead_out(gateway, netns_pid=pid)
        except ProcessLookupError:
            raise
        except OSError as error:
            log.warning("task %s has no way out by IPv6: %s", task.id, error)
            return ""

    def stopped(self, task_id: str) -> None:
        self.live.pop(task_id, None)
        self._guarded.forget(f"rules of task {task_id}", f"flows of task {task_id}")

    async def apply(self) -> bool:
        """Those of the host, then of each container; whether the host's are in place."""
        self._host = host(
            node_id=self._node_id,
            networks=self._orders.networks.values(),
            routes=self._orders.routes,
            peers=self._orders.peers,
            silent=self._silence.silent,
            tunnel_port=self._orders.tunnel_port,
            confined=confined(self._orders.wanted.tasks or (), self._orders.wanted.networks or ()),
            before=self._host,
        )
        ruled = await self._guarded("rules", self._apply_host(self._host), kind=RULES)
        silent = self._silence.silent
        self._memo = {place: parts for place, parts in self._memo.items() if place.silent == silent}
        for task_id in sorted(self.live):
            await self._guarded(f"rules of task {task_id}", self._apply(task_id), kind=RULES)
        return ruled

    async def clear(self) -> None:
        self.live.clear()
        await self._kernel.apply(NOTHING)

    async def forget(self, routes: Iterable[Route]) -> None:
        """Flows to tasks that are gone or on hosts that are lost: their next packet is balanced anew.

        A connection to a task that takes no new ones goes on until it ends. UDP knows no end: a client that keeps its
        socket would follow the task into the grave, so its next datagram goes to another one at once.
        """
        routes = list(routes)
        before, self._routed = self._routed, _addresses(routes)
        chosen, self._chosen = self._chosen, frozenset(_addresses(routes, chosen=True))
        gone = {a for a in before if a not in self._routed}
        for addresses, datagrams in ((gone, False), (chosen - self._chosen - gone, True)):
            await self._forget_here(addresses, datagrams=datagrams)
            await self._forget_inside(addresses, datagrams=datagrams)
        await self._part("inside", self._forget_inside)

    async def give_up(self) -> None:
        """Flows of this host to others that are not heard any more: its rules need not be waited for."""
        await self._part("here", self._forget_here)

    # ---- inside --------------------------------------------------------------------------------------------------

    async def _apply_host(self, ruleset: Ruleset) -> None:
        self._repairs.note(await self._kernel.apply(ruleset), "this host")

    async def _apply(self, task_id: str) -> None:
        live = self.live.get(task_id)
        if live is None or self._orders.wanted.routes is None:  # adopted before a manager spoke: it has its rules
            return
        # A service's container that was connected to another network by hand is a task and a guest at once.
        here = [other.task for other in self.live.values() if other.pid == live.pid]
        ruleset = container(
            task_id=task_id,
            attached={a.network_id: a.address.partition("/")[0] for task in here for a in task.attachments},
            source=live.source,
            source6=live.source6,
            networks=self._orders.networks.values(),
            routes=self._orders.routes,
            silent=self._silence.silent,
            names=self._names(live) if len(here) == 1 else None,
            memo=self._memo,
        )
        try:
            self._repairs.note(await self._kernel.apply(ruleset, netns_pid=live.pid), f"task {task_id}")
        except ProcessLookupError:
            self._drop(task_id, live)

    def _names(self, live: Live) -> Names | None:
        """What leads a guest's questions to us. One that was made for its network asks us anyway."""
        networks = self._orders.networks
        known = [a for a in live.task.attachments if a.network_id in networks]
        if not known or not live.redirect:
            return None
        gateway = networks[known[0].network_id].gateways[self._node_id]
        if gateway in live.redirect:
            return None
        return Names(gateway, known[0].address.partition("/")[0], live.redirect)

    def _on(self, nodes: Collection[str]) -> set[str]:
        """Addresses of targets on these nodes."""
        return {address for address, node in self._routed.items() if node in nodes} if nodes else set()

    async def _part(self, where: str, forget: Callable[..., Awaitable[None]]) -> None:
        """All flows to a lost host, once: one that answers later shows that the host is back. Else the unanswered."""
        stale = self._silence.stale
        lost, self._parted[where] = stale - self._parted.get(where, frozenset()), stale
        await forget(self._on(lost))
        await forget(self._on(self._silence.silent - lost), unanswered=True)

    async def _forget_inside(self, addresses: Collection[str], **which: bool) -> None:
        for task_id, live in sorted(self.live.items()) if addresses else ():
            forgotten = self._forget_in(task_id, live, addresses, **which)
            await self._guarded(f"flows of task {task_id}", forgotten, kind=RULES)

    async def _forget_here(self, addresses: Collection[str], **which: bool) -> None:
        if addresses:
            await self._guarded("flows", self._kernel.forget_flows(addresses, **which), kind=RULES)

    async def _forget_in(self, task_id: str, live: Live, addresses: Collection[str], **which: bool) -> None:
        try:
            await self._kernel.forget_flows(addresses, netns_pid=live.pid, **which)
        except ProcessLookupError:
            self._drop(task_id, live)

    def _drop(self, task_id: str, live: Live) -> None:
        if self.live.get(task_id) == live:
            del self.live[task_id]


def _addresses(routes: Iterable[Route], *, chosen: bool = False) -> dict[str, str]:
    """Address -> node of every target. `chosen`: of those that take new connections."""
    return {
        address: target.node_id
        for route in routes
        for target in route.targets
        if not chosen or (target.ready and not target.draining)
        for address in (*target.addresses.values(), *target.addresses6.values())
    }
