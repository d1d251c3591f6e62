"""The real `Kernel`: everything in the network namespace that the daemon runs in, or in that of a container."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from afterswarm.adapters.kernel import bridges, flows, hold, ipv6, netlink, nfnetlink, routing, wireguard
from afterswarm.adapters.kernel.monitor import Monitor
from afterswarm.adapters.kernel.namespaces import inside
from afterswarm.adapters.kernel.nft import Rulesets
from afterswarm.core.dataplane.paths import Return
from afterswarm.core.dataplane.ruleset import NOTHING
from afterswarm.core.dataplane.vxlan import Link
from afterswarm.core.dataplane.wireguard import Tunnel
from afterswarm.model.repair import RULES, Difference
from afterswarm.ports import Json, Ruleset

log = logging.getLogger(__name__)

T = TypeVar("T")


class LinuxKernel:
    """One thread does it all, in order: a thread may change its namespace, and libnftables is not made for several.

    Raises `ProcessLookupError` when the process of `netns_pid` has gone, `OSError` with a reason for the rest.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        self._rulesets = Rulesets()
        self._hold: nfnetlink.Conversation | None = None
        self._holding = False  # or it was tried

    async def apply(self, ruleset: Ruleset, *, netns_pid: int | None = None) -> list[Difference]:
        def write() -> list[str]:
            if netns_pid is None:
                self._hold_on(ruleset)
            return self._rulesets.apply(ruleset, netns_pid)

        return [Difference(RULES, what) for what in await self._do(write)]

    async def sync_links(self, links: Sequence[Json]) -> list[Difference]:
        wanted = [msgspec.convert(link, Link) for link in links]

        def sync() -> list[Difference]:
            found = [*netlink.sync(wanted), *bridges.sync(wanted), *flows.accept(wanted)]
            self._rulesets.tidy()
            self._rulesets.forget_ended()
            return found

        return await self._do(sync)

    async def sync_returns(self, returns: Sequence[Json]) -> list[Difference]:
        wanted = [msgspec.convert(each, Return) for each in returns]
        return await self._do(lambda: routing.sync(wanted))

    async def key_pair(self, private: str = "") -> tuple[str, str]:
        return await self._do(lambda: wireguard.key_pair(private))

    async def sync_wireguard(self, tunnel: Json | None, private: str = "") -> list[Difference]:
        wanted = None if tunnel is None else msgspec.convert(tunnel, Tunnel)
        return await self._do(lambda: wireguard.sync(wanted, private))

    async def underlay(self, address: str) -> int:
        return await self._do(lambda: netlink.underlay(address))

    async def source(self, *, netns_pid: int) -> str:
        def look() -> str:
            with inside(netns_pid):
                return routing.source()

        return await self._do(look)

    async def lead_out(self, gateway: str, *, netns_pid: int) -> str:
        def lead() -> str:
            with inside(netns_pid):
                return routing.lead_out(gateway)

        return await self._do(lead)

    async def ipv6(self) -> list[str] | None:
        return await self._do(ipv6.own)

    async def forward_ipv6(self) -> None:
        await self._do(ipv6.forward)

    async def returning(self) -> bool:
        return await self._do(routing.sees_bridged)

    async def forget_flows(
        self,
        addresses: Collection[str],
        *,
        netns_pid: int | None = None,
        datagrams: bool = False,
        unanswered: bool = False,
    ) -> None:
        def forget() -> None:
            with inside(netns_pid):
                flows.forget(addresses, datagrams=datagrams, unanswered=unanswered)

        await self._do(forget)

    async def disturbances(self) -> AsyncIterator[set[str]]:
        with Monitor() as monitor:
            while True:
                yield await monitor.wait()

    def _hold_on(self, ruleset: Ruleset) -> None:
        """While there are rules, what they have translated must outlive them: see `hold`."""
        if ruleset is NOTHING:
            if self._hold:
                self._hold.close()
            self._hold, self._holding = None, False
        elif not self._holding:
            self._holding = True
            try:
                self._hold = hold.hold()
            except OSError as error:
                log.info("connections may break when another program empties nftables: %s", error)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
