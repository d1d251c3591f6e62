"""What a change of the rules costs: one endpoint of 10,000 services of ten, and a host of a hundred services.

    python bench/network_changes.py ROUNDS        (in a network namespace of its own)

From the routes as a daemon has them to the kernel having followed: the planner, its difference, and the transaction.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from afterswarm.adapters.kernel.linux import LinuxKernel
from afterswarm.core.dataplane import nftables
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route, Target

HOSTS = 10
INGRESS = Network(
    id="ingress000000000000000000",
    spec=NetworkSpec(name="ingress", ingress=True),
    subnet="10.0.0.0/8",
    vni=4096,
    gateways={f"n{host}": f"10.255.255.{host + 1}" for host in range(HOSTS)},
)
PEERS = [Peer(node_id=f"n{host}", address=f"192.0.2.{host + 1}", returns=True) for host in range(HOSTS)]
EVICTED = "one endpoint is evicted, 10,000 services of 10"
DEAD = "a host dies that 100 services have an endpoint on"


def routes(services: int) -> list[Route]:
    return [
        Route(
            service_id=f"s{service}",
            name=f"s{service}",
            ports=[PortConfig(target_port=80, published_port=10000 + service)],
            targets=[
                Target(
                    task_id=f"t{service}-{host}",
                    node_id=f"n{host}",
                    name=f"s{service}.{host}",
                    addresses={INGRESS.id: f"10.{service >> 8 & 255}.{service & 255}.{host + 1}"},
                    ready=True,
                )
                for host in range(HOSTS)
            ],
        )
        for service in range(services)
    ]


class Host:
    """As `agent.network.rules` drives it."""

    def __init__(self) -> None:
        self._kernel = LinuxKernel()

    async def follow(self, wanted: Sequence[Route], silent: Iterable[str] = ()) -> float:
        """Milliseconds."""
        began = time.perf_counter()
        ruleset = nftables.host(node_id="n0", networks=[INGRESS], routes=wanted, peers=PEERS, silent=set(silent))
        await self._kernel.apply(ruleset)
        return (time.perf_counter() - began) * 1000


async def evicted(rounds: int) -> list[float]:
    host, wanted, took = Host(), routes(10_000), []
    await host.follow(wanted)
    for number in range(rounds):
        service = number * 331 % len(wanted)
        route = wanted[service]
        less = replace(
            route, targets=[replace(route.targets[3], draining=True), *route.targets[:3], *route.targets[4:]]
        )
        now = [*wanted[:service], less, *wanted[service + 1 :]]
        took.append(await host.follow(now))
        await host.follow(wanted)
    return took


async def dead(rounds: int) -> list[float]:
    host, wanted, took = Host(), routes(100), []
    await host.follow(wanted)
    for number in range(rounds):
        took.append(await host.follow(wanted, silent=[f"n{1 + number % (HOSTS - 1)}"]))
        await host.follow(wanted)
    return took


def measured(rounds: int) -> dict[str, Any]:
    """What was changed -> median and p99 in milliseconds, in a namespace of its own."""
    command = ["unshare", "--net", sys.executable, __file__, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        what: {
            "median_ms": round(statistics.median(took), 3),
            "p99_ms": round(sorted(took)[int(len(took) * 0.99)], 3),
            "all_ms": [round(each, 3) for each in took],
        }
        for what, took in json.loads(done.stdout).items()
    }


if __name__ == "__main__":
    count = int(sys.argv[1])
    print(json.dumps({EVICTED: asyncio.run(evicted(count)), DEAD: asyncio.run(dead(count))}))
