"""Keeps the resolver (`server`), a process that outlives this daemon, and tells it what it may answer and where.

A daemon that begins finds the resolver of the one before it and goes on with that. One of another version is replaced:
its sockets go to the new one, so that questions which wait in them are answered, and only then it is told to end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from afterswarm.agent.names import starting
from afterswarm.agent.names.line import Line, connect
from afterswarm.agent.names.starting import version
from afterswarm.core.dns.zone import Zone
from afterswarm.model.repair import DNS, Difference
from afterswarm.ports import Clock

log = logging.getLogger(__name__)

PORT = 53
LOOK = 0.5  # seconds between looks at the resolver
PATIENCE = 5.0  # seconds for it to begin
BEHIND = 1.0  # seconds that `tell` waits


class Names:
    """`run` it, and `tell` it what is to be answered and where. `run_dir` is on a tmpfs, like `/run`."""

    def __init__(self, *, clock: Clock, run_dir: Path, port: int = PORT, upstream_port: int = PORT) -> None:
        self.repaired: Callable[[Sequence[Difference]], None] = lambda _found: None  # told of each new resolver
        self._clock = clock
        self._lost = ""  # how the one before ended, until there is another
        self._path = run_dir / "names.sock"
        self._errors = run_dir / "names.err"
        self._port = port
        self._upstream_port = upstream_port
        self._zone: Zone | None = None  # None: no manager has said yet; what is there stays
        self._addresses: list[str] = []
        self._unready: frozenset[str] = frozenset()
        self._line: Line | None = None
        self._pid = 0  # of the resolver that we talk to
        self._children: set[int] = set()
        self._sent: dict[str, bytes] = {}  # what the resolver has, by what it is about
        self._said: tuple[Zone, frozenset[str]] | None = None
        self._listening: set[str] = set()
        self._due = asyncio.Event()
        self._told = asyncio.Event()
        self._failed: dict[str, str] = {}

    async def tell(self, zone: Zone, addresses: Iterable[str]) -> None:
        """Rules for what is in it are in place. Waits until it is what the resolver answers, but not for long."""
        self._zone, self._addresses = zone, sorted(addresses)
        self._told.clear()
        self._due.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(BEHIND):
                await self._told.wait()

    def hold(self, unready: frozenset[str]) -> None:
        """Questions from these addresses are to wait for their rules, a moment."""
        if unready != self._unready:
            self._unready = unready
            self._due.set()

    async def run(self) -> None:
        """Until cancelled. The resolver goes on then."""
        try:
            while True:
                self._due.clear()
                self._reap()
                if self._zone is not None:
                    await self._keep(self._zone)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._due.wait()
        finally:
            self._drop()

    async def clear(self) -> None:
        """This host has left the swarm: no more names. Not while `run` runs."""
        for path in (self._new, self._path):
            await self._end(path)
        self._reap()
        self._errors.unlink(missing_ok=True)

    # ---- inside --------------------------------------------------------------------------------------------------

    async def _keep(self, zone: Zone) -> None:
        try:
            if self._line is not None and self._line.is_over():
                words = self._last_words()
                log.warning("the resolver has ended: %s", words)
                self._lost = f"the resolver had ended: {words}"
                self._drop()
            async with asyncio.timeout(2 * PATIENCE):
                self._line = self._line or await self._meet(zone)
                await self._tell(self._line, zone)  # first: it answers as soon as it has a socket
                await self._listen(self._line)
        except (OSError, TimeoutError, EOFError) as error:
            self._say("names cannot be answered", str(error) or "the resolver does not answer")
            self._drop()
            if isinstance(error, TimeoutError):
                self._kill()
        else:
            self._failed.pop("names cannot be answered", None)
            if self._lost:
                self.repaired([Difference(DNS, self._lost)])
                self._lost = ""
            if zone is self._zone:
                self._told.set()

    async def _meet(self, zone: Zone) -> Line:
        """The resolver of the daemon before, if it is of this version, or else a new one."""
        self._listening, self._sent, self._said = set(), {}, None
        try:
            line, hello = await connect(self._path)
        except OSError:
            try:  # of a daemon that had ended one and did not come to the last step
                line, hello = await connect(self._new)
                self._new.replace(self._path)
            except OSError:
                return await self._begin(self._path)
        await self._end(self._new)  # begun by a daemon that did not come further
        self._pid = hello["pid"]
        if hello["version"] == version():
            self._listening = set(hello["listening"])
            return line
        log.info("another version of the resolver takes over")
        try:
            return await self._replace(line, zone)
        finally:
            line.close()

    async def _replace(self, old: Line, zone: Zone) -> Line:
        places = await old.give()
        new = await self._begin(self._new)
        try:
            await self._tell(new, zone)
            for address, sockets in places.items():
                await new.say({"at": address}, sockets)
                self._listening.add(address)
                for each in sockets:
                    each.close()
            await old.say({"end": True})
        except BaseException:
            new.close()
            raise
        self._new.replace(self._path)
        return new

    async def _end(self, path: Path) -> None:
        """Whoever is there."""
        try:
            async with asyncio.timeout(PATIENCE):
                line, hello = await connect(path)
                self._pid = hello["pid"]
                await line.say({"end": True})
                await line.ended()
        except TimeoutError:
            self._kill()
        except (OSError, EOFError):
            pass  # nobody
        path.unlink(missing_ok=True)

    @property
    def _new(self) -> Path:
        return self._path.with_suffix(".new")

    async def _begin(self, at: Path) -> Line:
        self._pid = starting.begin(
            at, path=self._path, version=version(), errors=self._errors, upstream_port=self._upstream_port
        )
        self._children.add(self._pid)
        line, _ = await connect(at)
        return line

    def _reap(self) -> None:
        """Take leave of those that have ended, of those that this daemon has started."""
        for pid in list(self._children):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._children.discard(pid)

    def _kill(self) -> None:
        """It hangs."""
        with suppress(OSError):
            if str(self._path).encode() in Path(f"/proc/{self._pid}/cmdline").read_bytes():
                os.kill(self._pid, signal.SIGKILL)

    async def _listen(self, line: Line) -> None:
        wanted = set(self._addresses)
        if gone := sorted(self._listening - wanted):
            await line.say({"close": gone})
            self._listening -= set(gone)
        for address in sorted(wanted - self._listening):
            what = f"names cannot be answered on {address} port {self._port}"
            try:
                sockets = starting.bound(address, self._port)
            except OSError as error:
                self._say(what, str(error))
                continue
            await line.say({"at": address}, sockets)
            for each in sockets:
                each.close()
            self._listening.add(address)
            self._failed.pop(what, None)

    async def _tell(self, line: Line, zone: Zone) -> None:
        """What has changed."""
        if self._said and self._said[0] is zone and self._said[1] == self._unready:
            return
        now = {f"network {key}": msgspec.json.encode(section) for key, section in zone.networks.items()}
        now["askers"] = msgspec.json.encode(zone.askers)
        now["unready"] = msgspec.json.encode(sorted(self._unready))
        new = {key: msgspec.Raw(value) for key, value in now.items() if self._sent.get(key) != value}
        if new or self._sent.keys() != now.keys():
            message: dict[str, object] = {key: new[key] for key in ("askers", "unready") if key in new}
            message["networks"] = {k: new[f"network {k}"] for k in zone.networks if f"network {k}" in new}
            message["keep"] = sorted(zone.networks)
            await line.say(message)
            self._sent = now
        self._said = (zone, self._unready)

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _last_words(self) -> str:
        try:
            return self._errors.read_text().strip().rpartition("\n")[2] or "it said nothing"
        except OSError:
            return "it said nothing"

    def _say(self, what: str, why: str) -> None:
        """Once for each reason."""
        if self._failed.get(what) != why:
            log.error("%s: %s", what, why)
        self._failed[what] = why
