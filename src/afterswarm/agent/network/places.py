"""What a task needs of its host's networks before its container is made: they are there, and lead to the others."""

from __future__ import annotations

from afterswarm.agent.network.bridges import Bridges
from afterswarm.agent.network.orders import Orders
from afterswarm.agent.network.repairs import Repairs
from afterswarm.agent.network.tunnels import Tunnels
from afterswarm.core import families
from afterswarm.core.dataplane import sizes, vxlan
from afterswarm.model.network import Network as Overlay
from afterswarm.model.repair import NETWORKS, Difference
from afterswarm.model.task import Task
from afterswarm.ports import Clock, EngineError, Json

PATIENCE = 5.0  # seconds that a task waits for news of its network
LOOK = 0.1  # seconds between looks for them


class Places:
    """One host's."""

    def __init__(self, *, orders: Orders, bridges: Bridges, tunnels: Tunnels, repairs: Repairs, clock: Clock) -> None:
        self._orders = orders
        self._bridges = bridges
        self._tunnels = tunnels
        self._repairs = repairs
        self._clock = clock
        self._made: dict[str, int] = {}  # network id -> size of packets, as it was last found or made

    async def prepare(self, task: Task) -> list[tuple[str, Json]]:
        """See `HostNetwork`."""
        endpoints: list[tuple[str, Json]] = []
        networks: list[Overlay] = []
        options = {n.target: n.driver_opts for n in task.spec.networks if n.driver_opts}
        for attachment in task.attachments:
            network = await self._known(attachment.network_id)
            if network.node_local:
                await self._bridges.ensure_own(network)
                endpoints.append((network.name, {}))
                continue
            await self.ensure(network)
            networks.append(network)
            address = attachment.address.partition("/")[0]
            endpoint: Json = {"IPAMConfig": {"IPv4Address": address}, "MacAddress": vxlan.container_mac(address)}
            if network.subnet6:
                endpoint["IPAMConfig"]["IPv6Address"] = families.twin(network, address)
            if network.id in options:
                endpoint["DriverOpts"] = options[network.id]
            endpoints.append((network.name, endpoint))
        if endpoints:
            try:
                if any(network.encrypted for network in networks):
                    await self._tunnels.seal()
                await self._tunnels.sync_links()
            except OSError as error:
                raise EngineError(500, f"cannot connect this node to the network: {error}") from error
        return endpoints

    async def ensure(self, network: Overlay) -> None:
        """The engine has it. Raises `EngineError`, `EngineGone`."""
        size = sizes.of_containers(network, self._orders.peers)
        before = self._made.get(network.id)
        new = await self._bridges.ensure(network, size)
        self._made = {key: value for key, value in self._made.items() if key in self._bridges.present}
        self._made[network.id] = size
        if new:
            self._tunnels.renewed()  # a new bridge, with nothing on it
            if before == size:
                self._repairs.note([Difference(NETWORKS, f"{network.name} was gone, or another")])

    async def _known(self, network_id: str) -> Overlay:
        deadline = self._clock.now() + PATIENCE
        while (network := self._orders.network(network_id)) is None:
            if why := self._tunnels.refusal(network_id):
                raise EngineError(500, why)
            if self._clock.now() >= deadline:
                raise EngineError(404, f"network {network_id} not found")
            await self._clock.sleep(LOOK)
        return network
