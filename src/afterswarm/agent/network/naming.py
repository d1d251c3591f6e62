"""What the resolver is told of this host's networks, once the rules for it are in place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from afterswarm.agent.network.orders import Orders
from afterswarm.agent.network.rules import Live
from afterswarm.core.dns.zone import Zone
from afterswarm.core.host.guests import as_tasks

Tell = Callable[[Zone, list[str]], Awaitable[None]]
Hold = Callable[[frozenset[str]], None]


class Naming:
    """`live` is only read. `tell` gets the zone and where to listen, `hold` addresses whose rules are still to come."""

    def __init__(self, orders: Orders, live: Mapping[str, Live], tell: Tell | None, hold: Hold) -> None:
        self._orders = orders
        self._live = live
        self._tell = tell
        self._hold = hold
        self._outward: frozenset[str] = frozenset()
        self._made_from: tuple[object, ...] = (None,) * 7
        self._zone = Zone()

    def reach_out(self, containers: Iterable[str]) -> bool:
        """Guests with these ids are in networks of their engine's too; whether that is news."""
        before, self._outward = self._outward, frozenset(containers)
        if before == self._outward:
            self._outward = before
        return before != self._outward

    def hold_back(self) -> None:
        """Guests that have no rules yet are answered a moment later: those of tasks are there before."""
        guests = {g.attachment.address.partition("/")[0] for g in self._orders.wanted.guests or ()}
        live = {a.address.partition("/")[0] for live in self._live.values() for a in live.task.attachments}
        self._hold(frozenset(guests - live))

    async def follow(self, silent: Collection[str]) -> None:
        if self._tell is None:
            return
        orders, told = self._orders, self._orders.wanted
        known = (told.networks, told.routes, told.tasks, told.guests, silent, self._outward, orders.ipv6)
        if any(a is not b for a, b in zip(known, self._made_from, strict=True)):
            self._zone = Zone.of(
                networks={**{n.id: n for n in told.networks or ()}, **orders.networks}.values(),
                routes=orders.routes,
                tasks=[*as_tasks(told.guests or ()), *(told.tasks or ())],
                silent=silent,
                outward=self._outward,
            )
            self._made_from = known
        await self._tell(self._zone, orders.gateways())
