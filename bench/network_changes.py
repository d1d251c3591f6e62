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
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from afterswarm.adapters.kernel.linux import LinuxKernel
from afterswarm.adapters.kernel.nft import Rulesets
from afterswarm.core.dataplane.host_rules import host
from afterswarm.core.dataplane.ruleset import NOTHING
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
DEAD = "a host that 100 services have an endpoint on is given up"
WHOLE = "all rules of 10,000 services of 10 are written anew"


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


class Took(NamedTuple):
    """Milliseconds; `kernel` is the transactions alone, of what `apply` took."""

    plan: float
    apply: float
    kernel: float


class Timed(Rulesets):
    took = 0.0

    def _transact(self, text: str) -> None:
        began = time.perf_counter()
        super()._transact(text)
        self.took += time.perf_counter() - began


class Host:
    """As `agent.network.rules` drives it."""

    def __init__(self) -> None:
        self._kernel = LinuxKernel()
        self._kernel._rulesets = self._timed = Timed()
        self._rules = NOTHING

    async def follow(self, wanted: Sequence[Route]) -> Took:
        self._timed.took, began = 0.0, time.perf_counter()
        self._rules = host(node_id="n0", networks=[INGRESS], routes=wanted, peers=PEERS, before=self._rules)
        planned = time.perf_counter()
        await self._kernel.apply(self._rules)
        written = time.perf_counter()
        return Took((planned - began) * 1000, (written - planned) * 1000, self._timed.took * 1000)


def without(route: Route, *nodes: str) -> Route:
    """The endpoints there take no new connections."""
    targets = [replace(t, draining=True) if t.node_id in nodes else t for t in route.targets]
    return replace(route, targets=targets)


async def first(services: int) -> list[Took]:
    return [await Host().follow(routes(services))]


async def evicted(rounds: int) -> list[Took]:
    here, wanted, took = Host(), routes(10_000), []
    await here.follow(wanted)
    await here.follow(wanted)  # looks at what it has written
    for number in range(rounds):
        service = number * 331 % len(wanted)
        now = [*wanted[:service], without(wanted[service], "n3"), *wanted[service + 1 :]]
        took.append(await here.follow(now))
        await here.follow(wanted)
    return took


async def dead(rounds: int) -> list[Took]:
    here, wanted, took = Host(), routes(100), []
    await here.follow(wanted)
    await here.follow(wanted)
    for number in range(rounds):
        node = f"n{1 + number % (HOSTS - 1)}"
        took.append(await here.follow([without(route, node) for route in wanted]))
        await here.follow(wanted)
    return took


def measured(rounds: int) -> dict[str, Any]:
    """What was changed -> milliseconds: all together (median, p99), and of each part (median)."""
    command = ["unshare", "--net", sys.executable, __file__, str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for what, took in json.loads(done.stdout).items():
        both = sorted(plan + apply for plan, apply, _ in took)
        found[what] = {
            "median_ms": round(statistics.median(both), 2),
            "p99_ms": round(both[min(int(len(both) * 0.99), len(both) - 1)], 2),
            "planner_ms": round(statistics.median(plan for plan, _, _ in took), 2),
            "kernel_ms": round(statistics.median(kernel for _, _, kernel in took), 2),
            "kernel_best_ms": round(min(kernel for _, _, kernel in took), 2),
            "times": len(took),
        }
    return found


if __name__ == "__main__":
    count = int(sys.argv[1])
    made = {EVICTED: evicted(count), DEAD: dead(count), WHOLE: first(10_000)}
    print(json.dumps({what: asyncio.run(work) for what, work in made.items()}))
