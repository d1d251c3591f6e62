"""This host's links to the others, and the ways back to them: in step with the networks that its engine has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import msgspec

from afterswarm.agent.network.keys import Keys
from afterswarm.agent.network.orders import Orders
from afterswarm.agent.network.repairs import Repairs
from afterswarm.core.dataplane import paths, vxlan, wireguard
from afterswarm.model.network import Network as Overlay
from afterswarm.ports import Json, Kernel


class Tunnels:
    """`present`: ids of the networks whose bridge is there. It is only read."""

    def __init__(
        self,
        *,
        kernel: Kernel,
        orders: Orders,
        node_id: str,
        present: Collection[str],
        repairs: Repairs,
        keys: Keys | None,
    ) -> None:
        self._kernel = kernel
        self._orders = orders
        self._node_id = node_id
        self._present = present
        self._repairs = repairs
        self._keys = keys
        self.surveyed = False  # before, `present` is short of what an earlier daemon left, which is to stay
        self._sealed: tuple[Json | None, str] | None = None  # as last made; None: not known
        self._links: list[Json] | None = None  # as last made; None: not known
        self._ways: list[Json] | None = None  # back to other hosts; likewise
        self._sure = set[str]()  # which of the three are taken to be as they were made
        self._one_at_a_time = asyncio.Lock()

    def doubt(self) -> None:
        """What is there may not be what was made: the next time, the kernel is looked at."""
        self._sure.clear()

    def renewed(self) -> None:
        """A bridge was made anew: what it lacks is nobody's doing."""
        self._links = self._ways = None

    def refusal(self, network_id: str) -> str:
        """Why this host cannot be in the network, ever: it is encrypted and this host cannot encrypt."""
        network = next((n for n in self._orders.wanted.networks or () if n.id == network_id), None)
        if network is None or not network.encrypted or self._keys is None or self._keys.public:
            return ""
        return f"network {network.name} is encrypted, and this node cannot encrypt: {self._keys.why}"

    async def seal(self) -> None:
        """The device of the encrypted networks, before their links: these stand on it. Raises `OSError`."""
        async with self._one_at_a_time:
            found = wireguard.tunnel(node_id=self._node_id, networks=self._here(), peers=self._orders.peers)
            private = self._keys.private if self._keys else ""
            if found and not private:
                raise OSError(f"this node cannot encrypt: {self._keys.why if self._keys else 'it has no key'}")
            wanted: tuple[Json | None, str] = (msgspec.to_builtins(found), private)
            before, self._sealed = self._sealed, None
            if wanted != before or "sealed" not in self._sure:
                self._sure.add("sealed")
                differences = await self._kernel.sync_wireguard(*wanted)
                if differences:
                    self._links = None  # those on it went with the device of before
                if wanted == before:
                    self._repairs.note(differences)
            self._sealed = wanted

    async def sync_links(self) -> None:
        async with self._one_at_a_time:
            links: list[Json] = [
                msgspec.to_builtins(link)
                for link in vxlan.links(
                    node_id=self._node_id,
                    networks=self._here(),
                    routes=self._orders.routes,
                    peers=self._orders.peers,
                    port=self._orders.tunnel_port,
                )
            ]
            before, self._links = self._links, None
            if links != before or "links" not in self._sure:
                self._sure.add("links")  # who doubts from now on may be right
                differences = await self._kernel.sync_links(links)
                if links == before:
                    self._repairs.note(differences)
            self._links = links

    async def sync_returns(self) -> None:
        if not self.surveyed:  # they need their bridges
            return
        found = paths.returns(self._here(), self._node_id)
        ways: list[Json] = [msgspec.to_builtins(each) for each in found]
        before, self._ways = self._ways, None
        if ways != before or "ways" not in self._sure:
            self._sure.add("ways")
            differences = await self._kernel.sync_returns(ways)
            if ways == before:
                self._repairs.note(differences)
        self._ways = ways

    def _here(self) -> list[Overlay]:
        return [n for n in self._orders.networks.values() if n.id in self._present or not self.surveyed]
