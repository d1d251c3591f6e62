"""What the shells need from the outside world. `adapters/` and `sim/` implement these; one contract suite for both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from afterswarm.model.base import Change, Obj
from afterswarm.model.repair import Difference
from afterswarm.model.snapshot import Snapshot

Json = dict[str, Any]  # the engine's own JSON, not ours to type


class Conflict(Exception):
    """Something the commit was planned from has moved on, by revision `rev`."""

    def __init__(self, rev: int) -> None:
        super().__init__(rev)
        self.rev = rev


class Fenced(Exception):
    """Another manager leads now: the term that the commit was made in is over."""


class Unavailable(Exception):
    """The store has no quorum, or cannot be reached; nothing is known about the last commit."""


class Compacted(Exception):
    """The revision to watch from is no longer kept: load again."""


class Batch(msgspec.Struct, frozen=True):
    """Everything that one revision changed. `changes` may be empty (a guard moved, or progress)."""

    rev: int
    changes: list[Change]


class Store(Protocol):
    """Quorum-backed objects with revisions: etcd's contract."""

    async def load(self) -> tuple[int, list[Obj]]:
        """Every object, and the revision it was read at. Raises `Unavailable`."""

    def watch(self, after: int) -> AsyncIterator[Batch]:
        """Batches after revision `after`, in order, without gaps. Raises `Compacted`, `Unavailable`."""

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        seen: int,
        guards: Collection[str] = (),
        reads: Collection[str] = (),
        fence: int | None = None,
    ) -> int:
        """Apply all or none, and return the new revision.

        `Conflict` unless every `old` is still the stored object (by `rev`), every create finds nothing, and none of
        `guards` and `reads` moved after revision `seen`. `guards` are moved by this commit. `Fenced` unless the
        object leader/leader is still at revision `fence`. `Unavailable` when the outcome is not known.
        """

    async def sweep(self, most: int) -> bool:
        """Forget all guards if there are more than `most`, and say whether.

        Who has planned before is refused as if all of them had moved, so nothing is lost but a second try.
        """


class EngineError(Exception):
    """The engine answered with an error: its HTTP status and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineGone(Exception):
    """The engine cannot be reached."""


class Engine(Protocol):
    """The Docker Engine of one host, as far as agents use it. JSON is the engine's own. Raises the two above."""

    async def info(self) -> Json: ...

    async def containers(self, label: str) -> list[Json]:
        """`GET /containers/json?all=1` of containers that have the label (`key` or `key=value`); "": of all."""

    async def inspect(self, container: str) -> Json: ...

    async def create(self, name: str, body: Json) -> str:
        """Returns the container's id."""

    async def start(self, container: str) -> None: ...

    async def stop(self, container: str, grace: float) -> None:
        """SIGTERM (or the container's stop signal), `grace` seconds, SIGKILL. Stopped already is fine."""

    async def kill(self, container: str) -> None: ...

    async def remove(self, container: str, *, volumes: bool = True) -> None:
        """By force. Absent already is fine."""

    async def connect(self, network: str, container: str, endpoint: Json) -> None: ...

    async def pull(self, image: str, auth: str = "") -> None:
        """Until the pull has ended; `EngineError` with the registry's words when it failed."""

    async def image(self, image: str) -> Json | None:
        """`GET /images/{name}/json`, `None` when absent."""

    async def networks(self, label: str) -> list[Json]:
        """Those that have the label; "": all."""

    async def create_network(self, body: Json) -> str: ...

    async def remove_network(self, network: str) -> None:
        """Absent already is fine."""

    def events(self, filters: Mapping[str, Sequence[str]]) -> AsyncIterator[Json]:
        """`GET /events` until cancelled or the engine goes (`EngineGone`)."""


class Ruleset(Protocol):
    """See `core.dataplane.ruleset`."""

    def full(self) -> str:
        """The transaction that makes our table this one, whatever it was."""

    def since(self, old: Any, /) -> str | None:
        """The transaction that makes a table that is `old` this one; "" when there is nothing to do, `None`: `full`."""


class Kernel(Protocol):
    """What one host's kernel should hold; see `core.dataplane`. Every call looks before it writes."""

    async def apply(self, ruleset: Ruleset, *, netns_pid: int | None = None) -> list[Difference]:
        """One atomic nft transaction, in this host's namespace or that of a container's process.

        Of what differs, where the last ruleset is as it was left; nothing when nothing does. What others had changed
        of the same ruleset is returned.
        """

    async def sync_links(self, links: Sequence[Json]) -> list[Difference]:
        """Make the VXLAN devices exactly these (see `core.dataplane.vxlan`). What was not so is returned."""

    async def sync_returns(self, returns: Sequence[Json]) -> list[Difference]:
        """Make the ways back to other hosts exactly these (see `core.dataplane.paths`). What was not so is returned."""

    async def key_pair(self, private: str = "") -> tuple[str, str]:
        """A WireGuard key, this private one or a fresh one, and its public half.

        Raises `OSError` with the reason where this host cannot encrypt.
        """

    async def sync_wireguard(self, tunnel: Json | None, private: str = "") -> list[Difference]:
        """Make the device of the encrypted networks this one (`core.dataplane.wireguard`); `None`: have none."""

    async def underlay(self, address: str) -> int:
        """The MTU of the device that has this address; 0 when none has, or none that leads anywhere."""

    async def source(self, *, netns_pid: int) -> str:
        """The address that a container speaks from when it takes its default route; "" without one."""

    async def lead_out(self, gateway: str, *, netns_pid: int) -> str:
        """Likewise of IPv6; a container without a default route gets one through this gateway."""

    async def ipv6(self) -> list[str] | None:
        """This host's own global IPv6 addresses; `None`: its kernel has no IPv6."""

    async def forward_ipv6(self) -> None:
        """Pass IPv6 packets on between interfaces, without losing the routers that were heard of meanwhile."""

    async def returning(self) -> bool:
        """Whether this kernel can send answers back as `sync_returns` asks."""

    async def forget_flows(
        self,
        addresses: Collection[str],
        *,
        netns_pid: int | None = None,
        datagrams: bool = False,
        unanswered: bool = False,
    ) -> None:
        """Delete conntrack entries that were translated to one of these addresses. `datagrams`: those of UDP alone.

        `unanswered`: those alone that nothing has come back on.
        """

    def disturbances(self) -> AsyncIterator[set[str]]:
        """Each time that somebody (perhaps we) has changed what may be ours, until cancelled. Raises `OSError`.

        What it may be: RULES (nftables'), LINKS (anything else) or both.
        """


class Addresses(Protocol):
    """Floating addresses in one host's kernel, which stays silent about one unless it is open. Raises `OSError`."""

    async def interfaces(self) -> dict[str, list[str]]:
        """Name of each that is up -> its addresses with their prefixes."""

    async def guard(self, places: Collection[tuple[str, str]], *, anew: bool) -> bool:
        """Keep exactly these (address, interface) silent; all are closed then. Not `anew`: only if it was lost."""

    async def add(self, address: str, device: str) -> None:
        """Put it on the interface, closed."""

    async def remove(self, address: str, device: str) -> None:
        """Absent already is fine."""

    def open(self, address: str) -> None:
        """The kernel answers for it for `core.floating.OPEN` seconds from now."""

    def announce(self, address: str, device: str) -> None:
        """Tell the network that it is here now."""


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds since some moment. Only ever grows, whatever is done to the time of day."""

    async def sleep(self, seconds: float) -> None: ...


class Replica(Protocol):
    """A manager's own, slightly late view of the store, and the way to write through it. See `control.cache`."""

    @property
    def healthy(self) -> bool:
        """Whether the view follows the store. When not, it shows what was."""

    def snapshot(self) -> Snapshot:
        """As of the last batch seen, with `now` from the clock. Valid until the next `await`."""

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        reads: Collection[str] = (),
        seen: int | None = None,
        fence: int | None = None,
    ) -> int:
        """Commit as planned from revision `seen` (default: the snapshot's), then wait until the view has it.

        Guards follow from the changes (`core.guards`); `created` and `updated` are stamped here. Raises what
        `Store.commit` raises. No changes and no reads: returns at once.
        """

    async def reach(self, rev: int) -> None:
        """Return once `snapshot()` shows `rev` or later."""

    def changes(self) -> AsyncIterator[list[Change]]:
        """First one batch that creates every object there is, then every batch as the view takes it in."""
