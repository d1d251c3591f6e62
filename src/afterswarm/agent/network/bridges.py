"""The engine's bridge networks, one per overlay network of this host: made, adopted, replaced, removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from afterswarm.core.dataplane import bridge
from afterswarm.model.network import LABEL, Network
from afterswarm.ports import Clock, Engine, EngineError, Json, Kernel

log = logging.getLogger(__name__)

PATIENCE = 20.0  # seconds for containers of a network that is in the way to end
RETRY = 0.2


class Bridges:
    """`present` holds the ids of networks that the engine had when last seen."""

    def __init__(self, *, engine: Engine, kernel: Kernel, clock: Clock, node_id: str) -> None:
        self.present: set[str] = set()
        self._engine = engine
        self._kernel = kernel
        self._clock = clock
        self._node_id = node_id
        self._too_late: dict[str, int] = {}  # network id -> MTU that it could not get, since it was in use
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self, network: Network, mtu: int) -> bool:
        """The engine has the network, as it should be; true when it was made just now.

        Raises `EngineError`, `EngineGone`.
        """
        wanted = bridge.body(network, network.gateways[self._node_id], mtu)
        deadline = self._clock.now() + PATIENCE
        while True:
            async with self._one_at_a_time:
                ours = await self._engine.networks(LABEL)
                fitting = next((found for found in ours if bridge.fits(found, wanted, size=False)), None)
                if fitting and (bridge.fits(fitting, wanted) or not await self._resized(fitting, network, mtu)):
                    self.present.add(network.id)
                    return False
                self.present.discard(network.id)
                in_use = [n for n in ours if bridge.in_the_way(n, wanted) and not await self._remove(n)]
                if not in_use:
                    if network.subnet6:
                        await self._kernel.forward_ipv6()
                    await self._engine.create_network(wanted)
                    log.info("network %s (%s) made: %s", network.name, network.id, network.subnet)
                    self.present.add(network.id)
                    return True
            if self._clock.now() >= deadline:
                raise EngineError(409, f"network {in_use[0]['Name']} of before is still in use on this node")
            await self._clock.sleep(RETRY)  # not under the lock: others need not wait for these containers

    async def ensure_own(self, network: Network) -> None:
        """The engine has a network of its own (macvlan, …) by this name, made as its configuration there says."""
        async with self._one_at_a_time:
            there = await self._engine.networks("")
            if any((n.get("Labels") or {}).get(LABEL) == network.id for n in there):
                return
            name = (network.spec.config_from or {}).get("Network")
            configuration = next((n for n in there if n["Name"] == name and n.get("ConfigOnly")), None)
            if name and configuration is None:
                raise EngineError(404, f"configuration network {name} not found on this node")
            await self._engine.create_network(bridge.node_local(network, configuration))
            log.info("network %s (%s) made: %s", network.name, network.id, network.spec.driver)

    async def keep(self, ids: Collection[str]) -> None:
        """Remove our networks but these. One that containers are still in stays until a later call."""
        async with self._one_at_a_time:
            for found in await self._engine.networks(LABEL):
                network_id = found["Labels"][LABEL]
                if network_id not in ids and await self._remove(found):
                    self.present.discard(network_id)

    async def _resized(self, found: Json, network: Network, mtu: int) -> bool:
        """Whether it is gone, to be made anew. One in use stays: its containers are worth more than its size."""
        if self._too_late.get(network.id) == mtu:
            return False
        if await self._remove(found):
            return True
        self._too_late[network.id] = mtu
        log.warning("network %s keeps its MTU, since containers are in it; it should be %d", network.name, mtu)
        return False

    async def _remove(self, found: Json) -> bool:
        """False: still in use."""
        try:
            await self._engine.remove_network(found["Id"])
        except EngineError as error:
            log.debug("network %s stays: %s", found["Name"], error)
            return False
        log.info("network %s removed", found["Name"])
        return True
