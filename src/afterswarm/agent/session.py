"""The agent's end of its session with a manager: one at a time, another at once when it goes or falls silent.

The manager on this very host comes first, if there is one. The others are tried one after the other without waiting
for a slow one to fail, since a host whose power was cut does not even refuse. Whatever happened meanwhile is said
again on each connection: what this node is, and the state of all its tasks.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from afterswarm.http.children import apart
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed, HttpError
from afterswarm.http.message import Stream
from afterswarm.model.enrolment import where
from afterswarm.model.session import (
    BEAT,
    EPOCH,
    SEEN,
    SILENCE,
    Down,
    Hello,
    Reports,
    ToAgent,
    Up,
    Wanted,
    Welcome,
)
from afterswarm.model.task import Report
from afterswarm.ports import Clock

PROTOCOL = "afterswarm-session"
STAGGER = 0.25  # seconds until the next manager is tried while one has not answered
CONNECTING = 3.0  # seconds for one of them
PAUSE = 0.2  # seconds between rounds in which none took us; doubled each time
PAUSE_MOST = 1.0
GONE = 410  # a manager that knows the swarm and does not know us

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(ToAgent).decode
_encode = msgspec.json.Encoder().encode
_UP = _encode(Up()) + b"\n"


class _Over(Exception):
    """The session has ended, and why."""


async def _nothing() -> str:
    return ""


class Session:
    """`run` it. `managers` are addresses; `local` is this host's own while it is a manager, else "".

    `hello`, `reports` and `managers` are asked at each connection. `on_wanted` gets every `Wanted`, of which the first
    one of a session is complete; `renewed` is called before when revisions begin anew. `removed` is called, and `run`
    returns, when the swarm does not know this node any more: most managers say so, and none says otherwise.
    """

    def __init__(
        self,
        *,
        connect: Callable[[str], Client],
        managers: Callable[[], list[str]],
        local: Callable[[], str],
        hello: Callable[[], Hello],
        reports: Callable[[], list[Report]],
        on_wanted: Callable[[Wanted], None],
        on_managers: Callable[[list[str]], None],
        removed: Callable[[], None],
        clock: Clock,
        renewed: Callable[[], None] = lambda: None,
        diagnose: Callable[[], Awaitable[str]] = _nothing,
        rng: random.Random | None = None,
    ) -> None:
        self.trouble = ""  # why no manager takes us, when that is for good
        self.manager_id = ""  # node id of the manager that the session is with; "" while there is none
        self._connect = connect
        self._managers = managers
        self._local = local
        self._hello = hello
        self._reports = reports
        self._on_wanted = on_wanted
        self._on_managers = on_managers
        self._removed = removed
        self._clock = clock
        self._renewed = renewed
        self._diagnose = diagnose
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._seen = 0  # newest revision that was acted on
        self._epoch = 0.0  # of the swarm, that it is of
        self._basis = 0  # all routes of this revision were heard of
        self._pending: dict[str, Report] = {}
        self._greet = False
        self._fruitless = True  # the current session has brought nothing
        self._woken = asyncio.Event()

    def send(self, report: Report) -> None:
        """A task's state changed."""
        self._pending[report.id] = report
        self._woken.set()

    def greet(self) -> None:
        """What `hello` returns has changed."""
        self._greet = True
        self._woken.set()

    async def run(self) -> None:
        last = ""
        pause = PAUSE
        while True:
            addresses = self._order(last)
            found, refusals = await self._first(addresses)
            if found is None:
                if refusals * 2 > len(addresses):
                    log.warning("this node was removed from the swarm")
                    self._removed()
                    return
                if pause == PAUSE_MOST:
                    self.trouble = await self._diagnose()
                await self._clock.sleep(pause)
                pause = min(pause * 2, PAUSE_MOST)
                continue
            pause, self.trouble = PAUSE, ""
            last, stream = found
            try:
                await apart(self._attend(stream))
            finally:
                self.manager_id = ""
                stream.close()
            if self._fruitless:
                await self._clock.sleep(PAUSE)

    def _order(self, last: str) -> list[str]:
        """Our own manager, then the others in any order, and at the end the one that just failed us."""
        local = self._local()
        others = [a for a in dict.fromkeys(self._managers()) if a and a not in (local, last)]
        self._rng.shuffle(others)
        head = [local] if local and local != last else []
        return [*head, *others, *([last] if last else [])]

    # ---- finding a manager -------------------------------------------------------------------------------------

    async def _first(self, addresses: list[str]) -> tuple[tuple[str, Stream] | None, int]:
        """The first manager that takes us, and how many said that they do not know us."""
        won: list[tuple[str, Stream]] = []
        unknown: list[str] = []
        tasks: list[asyncio.Task[None]] = []

        async def attempt(address: str, done: asyncio.Event) -> None:
            try:
                async with asyncio.timeout(CONNECTING):
                    seen = [(SEEN, str(self._seen)), (EPOCH, str(self._epoch))]
                    stream = await self._connect(address).upgrade("POST", "/session", headers=seen, protocol=PROTOCOL)
            except HttpError as refused:
                log.info("%s refuses a session: %s", address, refused.message)
                if refused.status == GONE:
                    unknown.append(address)
            except (ConnectFailed, TimeoutError) as error:
                log.info("no session with %s: %s", address, str(error) or "no answer")
            else:
                if won:
                    stream.close()
                else:
                    won.append((address, stream))
            finally:
                done.set()
            if won:
                for other in tasks:
                    if other is not asyncio.current_task():
                        other.cancel()

        async with asyncio.TaskGroup() as group:
            for address in addresses:
                done = asyncio.Event()
                tasks.append(group.create_task(attempt(address, done)))
                with suppress(TimeoutError):
                    async with asyncio.timeout(STAGGER):
                        await done.wait()
                if won:
                    break
        return (won[0] if won else None), len(unknown)

    # ---- one session -------------------------------------------------------------------------------------------

    async def _attend(self, stream: Stream) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(stream))
                group.create_task(self._speak(stream))
        except* (_Over, ConnectionError) as ended:
            log.info("the session with %s ended: %s", self.manager_id or "a manager", ended.exceptions[0])

    async def _hear(self, stream: Stream) -> None:
        self._fruitless = True
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    line = await stream.readline()
            except TimeoutError:
                raise _Over("it fell silent") from None
            if not line.endswith(b"\n"):
                raise _Over("it hung up")
            try:
                message: ToAgent = _decode(line)
            except msgspec.DecodeError as error:
                raise _Over(f"it sent nonsense: {error}") from error
            match message:
                case Welcome(manager_id=manager_id, epoch=epoch):
                    if epoch < self._epoch:
                        raise _Over("it belongs to a swarm that has been made anew since")
                    if epoch > self._epoch:
                        self._epoch, self._seen, self._basis = epoch, 0, 0
                        self._renewed()
                    self.manager_id = manager_id
                    log.info("session with manager %s", manager_id)
                case Wanted():
                    if self._fruitless and message.rev < self._seen:
                        raise _Over("it knows less than we have seen")
                    self._fruitless = False
                    self._take(message)
                case Down(basis=basis):
                    if not self._fruitless and basis > self._basis:
                        self._take(Wanted(rev=self._seen, basis=basis))

    def _take(self, wanted: Wanted) -> None:
        self._seen = max(self._seen, wanted.rev)
        self._basis = max(self._basis, wanted.basis)
        if wanted.peers is not None:
            managers = [where(peer.address, peer.port) for peer in wanted.peers if peer.manager]
            if managers:
                self._on_managers(managers)
        self._on_wanted(wanted)

    async def _speak(self, stream: Stream) -> None:
        self._greet = True
        self._pending = {report.id: report for report in self._reports()}
        while True:
            self._woken.clear()
            out: list[Hello | Reports] = []
            if self._greet:
                self._greet = False
                out.append(self._hello())
            if self._pending:
                out.append(Reports(reports=list(self._pending.values())))
                self._pending = {}
            await stream.write(b"".join(_encode(message) + b"\n" for message in out) or _UP)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._woken.wait()
