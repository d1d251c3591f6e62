"""A kernel's floating addresses in memory: the twin of `adapters.kernel.addresses`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from afterswarm.core.floating import OPEN


class SimAddresses:
    """Implements `ports.Addresses`. `own` are the host's own addresses, by interface."""

    def __init__(self, own: dict[str, list[str]], now: Callable[[], float]) -> None:
        self.own = own
        self.guarded: set[tuple[str, str]] = set()
        self.here: dict[str, str] = {}  # address -> interface
        self.open_until: dict[str, float] = {}
        self.announced: list[str] = []
        self.lost = False  # somebody flushed the rules
        self._now = now

    async def interfaces(self) -> dict[str, list[str]]:
        floating = {device: [f"{a}/32" for a, at in self.here.items() if at == device] for device in self.own}
        return {device: [*addresses, *floating[device]] for device, addresses in self.own.items()}

    async def guard(self, places: Collection[tuple[str, str]], *, anew: bool) -> bool:
        if not anew and not self.lost:
            return False
        self.guarded, self.open_until, self.lost = set(places), {}, False
        return True

    async def add(self, address: str, device: str) -> None:
        self.here[address] = device

    async def remove(self, address: str, device: str) -> None:
        if self.here.get(address) == device:
            del self.here[address]

    def open(self, address: str) -> None:
        if address not in self.here:
            raise OSError(f"{address} is not here")
        self.open_until[address] = self._now() + OPEN

    def announce(self, address: str, device: str) -> None:
        self.announced.append(f"{address}@{device}")

    def answers(self, address: str) -> bool:
        """Whether a client gets an answer from this host now."""
        guarded = any(a == address for a, _ in self.guarded)
        return address in self.here and (not guarded or self._now() < self.open_until.get(address, 0.0))
