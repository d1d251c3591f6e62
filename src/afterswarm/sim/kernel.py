"""A kernel in memory: remembers what it was told, and nothing else. One contract suite for this and the real one."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Sequence
from hashlib import sha256

from afterswarm.model.repair import ENCRYPTION, FDB, LINKS, ROUTES, RULES, Difference
from afterswarm.ports import Json, Ruleset


class SimKernel:
    """`rulesets`, in full, by pid (`None`: the host), `links` by name, `forgotten` as (pid, addresses), oldest first;
    `moved` likewise, where only datagrams were, and
    `given_up`, where only what was not answered was.

    `processes` are the pids there are: an `apply` to another raises `ProcessLookupError`, as with a container that
    has just ended. `broken` makes every call fail with that text.
    """

    def __init__(self, processes: Collection[int] = ()) -> None:
        self.processes = set(processes)
        self.rulesets: dict[int | None, str] = {}
        self.links: dict[str, Json] = {}
        self.returns: list[Json] = []
        self.sources: dict[int, str] = {}  # pid -> address
        self.sources6: dict[int, str] = {}
        self.wireguard: Json | None = None
        self.cannot_encrypt = ""  # why not
        self.underlays: dict[str, int] = {}  # address -> MTU
        self.forgotten: list[tuple[int | None, frozenset[str]]] = []
        self.moved: list[tuple[int | None, frozenset[str]]] = []
        self.given_up: list[tuple[int | None, frozenset[str]]] = []
        self.own_ipv6: list[str] | None = []
        self.forwards_ipv6 = False
        self.writes = 0  # calls that changed something
        self.disturbed = asyncio.Event()  # to be set by who breaks something, if it is to be noticed at once
        self._applied: dict[int | None, Ruleset] = {}  # by us, whatever is there now
        self.broken = ""

    async def apply(self, ruleset: Ruleset, *, netns_pid: int | None = None) -> list[Difference]:
        self._check(netns_pid)
        before = self._applied.get(netns_pid)
        same = before is not None and ruleset.since(before) == ""
        self._applied[netns_pid] = ruleset
        if same and netns_pid in self.rulesets:
            return []
        self.rulesets[netns_pid] = ruleset.full()
        self.writes += 1
        return [Difference(RULES, "table afterswarm was gone")] if same else []

    async def sync_links(self, links: Sequence[Json]) -> list[Difference]:
        self._check(None)
        wanted = {link["name"]: link for link in links}
        before, self.links = self.links, wanted
        self.writes += before != wanted
        return [
            Difference(FDB if _same_device(before.get(name), wanted.get(name)) else LINKS, f"{name} was another")
            for name in sorted(before.keys() | wanted.keys())
            if before.get(name) != wanted.get(name)
        ]

    async def sync_returns(self, returns: Sequence[Json]) -> list[Difference]:
        self._check(None)
        before, self.returns = self.returns, list(returns)
        self.writes += before != self.returns
        return [Difference(ROUTES, "the ways back were others")] if before != self.returns else []

    async def key_pair(self, private: str = "") -> tuple[str, str]:
        if self.cannot_encrypt:
            raise OSError(self.cannot_encrypt)
        private = private or f"private {id(self)}"
        return private, b64encode(sha256(private.encode()).digest()).decode()

    async def sync_wireguard(self, tunnel: Json | None, private: str = "") -> list[Difference]:  # noqa: ARG002
        self._check(None)
        if tunnel is not None and self.cannot_encrypt:
            raise OSError(self.cannot_encrypt)
        before, self.wireguard = self.wireguard, tunnel
        self.writes += before != tunnel
        return [Difference(ENCRYPTION, "the device was another")] if before != tunnel else []

    async def underlay(self, address: str) -> int:
        return self.underlays.get(address, 0)

    async def source(self, *, netns_pid: int) -> str:
        self._check(netns_pid)
        return self.sources.get(netns_pid, "")

    async def lead_out(self, gateway: str, *, netns_pid: int) -> str:  # noqa: ARG002
        self._check(netns_pid)
        return self.sources6.get(netns_pid, "")

    async def ipv6(self) -> list[str] | None:
        return self.own_ipv6

    async def forward_ipv6(self) -> None:
        self._check(None)
        self.forwards_ipv6 = True

    async def returning(self) -> bool:
        return True

    async def forget_flows(
        self,
        addresses: Collection[str],
        *,
        netns_pid: int | None = None,
        datagrams: bool = False,
        unanswered: bool = False,
    ) -> None:
        self._check(netns_pid)
        if addresses:
            kept = self.moved if datagrams else self.given_up if unanswered else self.forgotten
            kept.append((netns_pid, frozenset(addresses)))

    async def disturbances(self) -> AsyncIterator[set[str]]:
        while True:
            await self.disturbed.wait()
            self.disturbed.clear()
            yield {LINKS, RULES}

    def _check(self, pid: int | None) -> None:
        if self.broken:
            raise OSError(self.broken)
        if pid is not None and pid not in self.processes:
            raise ProcessLookupError(pid)


def _same_device(before: Json | None, now: Json | None) -> bool:
    return before is not None and now is not None and before | {"fdb": ()} == now | {"fdb": ()}
