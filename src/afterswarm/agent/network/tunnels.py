"""This host's links to the others, and the ways back to them: in step with the networks that its engine has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import msgspec

from afterswarm.agent.network.orders import Orders
from afterswarm.core.dataplane import paths, vxlan
from afterswarm.model.network import Network as Overlay
from afterswarm.ports import Json, Kernel


class Tunnels:
    """`present`: ids of the networks whose bridge is there. It is only read."""

    def __init__(self, *, kernel: Kernel, orders: Orders, node_id: str, present: Collection[str], mtu: int) -> None:
        self._kernel = kernel
        self._orders = orders
        self._node_id = node_id
        self._present = present
        self._mtu = mtu
        self._links: list[Json] | None = None  # as last made; None: not known
        self._ways: list[Json] | None = None  # back to other hosts; likewise
        self._one_at_a_time = asyncio.Lock()

    def doubt(self) -> None:
        """What is there may not be what was made: the next time, the kernel is looked at."""
        self._links = self._ways = None

    async def sync_links(self) -> None:
        async with self._one_at_a_time:
            links: list[Json] = [
                msgspec.to_builtins(link)
                for link in vxlan.links(
                    node_id=self._node_id,
                    networks=self._here(),
                    routes=self._orders.routes,
                    peers=self._orders.peers,
                    mtu=self._mtu,
                    port=self._orders.tunnel_port,
                )
            ]
            if links == self._links:
                return
            self._links = None
            await self._kernel.sync_links(links)
            self._links = links

    async def sync_returns(self) -> None:
        found = paths.returns(self._here(), self._node_id)
        ways: list[Json] = [msgspec.to_builtins(each) for each in found]
        if ways != self._ways:
            self._ways = None
            await self._kernel.sync_returns(ways)
            self._ways = ways

    def _here(self) -> list[Overlay]:
        return [n for n in self._orders.networks.values() if n.id in self._present]
