"""The manager's end of agents' sessions: tells each host what it should be doing and writes down what it says.

A session says nothing about whether its node is alive: that is judged by beats. While the store cannot be reached,
nothing new is sent, so that nothing changes on hosts because of it. A manager that cannot follow the store for longer
sends its agents to others, its own agent included: it may have been made a worker, and be the last to know.

An agent says which revision it has seen from another manager; it is told nothing older, since what was started since
would be stopped again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import msgspec

from afterswarm.control.board import Board
from afterswarm.control.reporting import Reporting
from afterswarm.core.payloads import Unseal
from afterswarm.core.trust.certificate import Holder, holder
from afterswarm.http.message import Request, Response, Stream, Upgraded
from afterswarm.model.base import Change
from afterswarm.model.node import NodeReport, NodeState, Role
from afterswarm.model.session import BEAT, EPOCH, SEEN, SILENCE, Down, Hello, Reports, ToManager, Up, Welcome
from afterswarm.model.task import Task
from afterswarm.ports import Clock, Replica

GATHER = 0.02  # seconds; changes that come within it are sent together
BLIND = 3.0  # seconds without the store after which agents had better ask others
LOOK = 0.5  # seconds between looks at that

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(ToManager).decode
_encode = msgspec.json.Encoder().encode


class _Over(Exception):
    """The session has ended, and why."""


class _Session:
    """One agent that is connected. `sent` holds the sections as it knows them."""

    def __init__(self, node_id: str, stream: Stream) -> None:
        self.node_id = node_id
        self.stream = stream
        self.sent: dict[str, bytes] = {}
        self.dirty = True  # its sections may differ from `sent`
        self.woken = asyncio.Event()
        self.removed = False
        self.basis = 0  # every route of this revision was in it, or has not changed since

    def wake(self) -> None:
        self.dirty = True
        self.woken.set()


class Dispatcher:
    """`session` is the handler of `POST /session`; `run` must be running for it to have anything to say."""

    def __init__(self, replica: Replica, me: str, unseal: Unseal, clock: Clock) -> None:
        self._replica = replica
        self._me = me
        self._clock = clock
        self._board = Board(unseal)
        self._reporting = Reporting(replica, clock)
        self._sessions: dict[_Session, None] = {}
        self._touched = asyncio.Event()
        self._basis = 0  # the board holds every change up to this revision
        self._blind = False

    @property
    def connected(self) -> set[str]:
        """Nodes that have a session with this manager."""
        return {session.node_id for session in self._sessions}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reporting.run())
            group.create_task(self._tell())
            group.create_task(self._watch())
            async for changes in self._replica.changes():
                self._take(changes)

    def end(self) -> None:
        """This host is no manager any more: its agents had better ask others."""
        self._blind = True
        for session in self._sessions:
            session.woken.set()

    async def session(self, request: Request) -> Response | Upgraded:
        """503 while this manager knows nothing yet, 410 for a node that was removed."""
        who = holder(request.peer.certificate) if request.peer else None
        snap = self._replica.snapshot()
        if who is None:
            return Response.error(403, "a certificate of this swarm is needed")
        if snap.cluster is None or not self._basis or self._blind:
            return Response.error(503, "this manager does not see the store")
        if who.node_id not in snap.nodes:
            return Response.error(410, f"node {who.node_id} is not part of this swarm")
        try:
            seen = int(request.headers.get(SEEN, "0"))
            epoch = float(request.headers.get(EPOCH, "0"))
        except ValueError:
            return Response.error(400, f"{SEEN} is not a revision")
        if epoch > snap.cluster.epoch:
            return Response.error(503, "this manager belongs to a swarm that has been made anew since")
        if epoch < snap.cluster.epoch:
            seen = 0

        async def run(stream: Stream) -> None:
            await self._serve(who, stream, seen)

        return Upgraded(run, [("Connection", "Upgrade"), ("Upgrade", "afterswarm-session")])

    # ---- changes of the store ----------------------------------------------------------------------------------

    def _take(self, changes: list[Change]) -> None:
        snap = self._replica.snapshot()
        self._board.take(snap, changes)
        for change in changes:
            if isinstance(change.old, Task) and change.new is None and change.old.id in snap.reports:
                self._reporting.forget(change.old.id)
        self._touched.set()

    async def _tell(self) -> None:
        while True:
            await self._touched.wait()
            basis = self._replica.snapshot().rev  # its changes are all taken by the end of the pause
            await self._clock.sleep(GATHER)
            self._touched.clear()
            snap = self._replica.snapshot()
            nodes = self._board.refresh(snap)
            self._basis = basis
            if snap.rev > basis:  # there may be no later change to show that those of the pause are taken
                self._touched.set()
            for session in self._sessions:
                session.removed = session.node_id not in snap.nodes
                if nodes is None or session.node_id in nodes or session.removed:
                    session.wake()
                elif not session.dirty:
                    session.basis = basis

    async def _watch(self) -> None:
        seen = self._clock.now()
        while True:
            if self._replica.healthy:
                seen = self._clock.now()
            self._blind = self._clock.now() - seen > BLIND or self._going()
            await self._clock.sleep(LOOK)

    def _going(self) -> bool:
        """Whether this manager is to be made a worker: what becomes of it, its own agent learns from others sooner."""
        nodes = self._replica.snapshot().nodes
        mine = nodes.get(self._me)
        if mine is None or mine.spec.role == Role.MANAGER:
            return False
        return any(n.spec.role == n.role == Role.MANAGER and n.state == NodeState.READY for n in nodes.values())

    # ---- one session -------------------------------------------------------------------------------------------

    async def _serve(self, who: Holder, stream: Stream, seen: int) -> None:
        session = _Session(who.node_id, stream)
        self._sessions[session] = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(session))
                group.create_task(self._speak(session, seen))
                group.create_task(self._catch_up(session, seen))
        except* (_Over, ConnectionError) as ended:
            log.info("session with %s ended: %s", who.node_id, ended.exceptions[0])
        finally:
            del self._sessions[session]

    async def _hear(self, session: _Session) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    line = await session.stream.readline()
            except TimeoutError:
                raise _Over("it fell silent") from None
            if not line.endswith(b"\n"):
                raise _Over("it hung up")
            try:
                message: ToManager = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise _Over(f"it sent nonsense: {error}") from error
            match message:
                case Hello():
                    self._greeted(session, message)
                case Reports(reports=reports):
                    for report in reports:
                        self._reporting.put(msgspec.structs.replace(report, node_id=session.node_id))
                case Up():
                    pass

    def _greeted(self, session: _Session, hello: Hello) -> None:
        report = NodeReport(
            id=session.node_id,
            description=hello.description,
            address=hello.address,
            port=hello.port,
            data_path=hello.data_path,
            returns=hello.returns,
            wireguard=hello.wireguard,
            mtu=hello.mtu,
            ipv6=hello.ipv6,
            session_with=self._me,
            member_id=hello.member_id,
            trust=hello.trust,
            issuer=hello.issuer,
        )
        self._reporting.put_node(report)

    async def _speak(self, session: _Session, seen: int) -> None:
        cluster = self._replica.snapshot().cluster
        epoch = cluster.epoch if cluster else 0.0
        welcome = Welcome(node_id=session.node_id, manager_id=self._me, epoch=epoch)
        await session.stream.write(_encode(welcome) + b"\n")
        while True:
            if self._blind:
                raise _Over("this manager does not see the store")
            session.woken.clear()
            news = self._news(session) if self._replica.snapshot().rev >= seen else None
            await session.stream.write(news or self._nothing_new(session))
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await session.woken.wait()

    def _nothing_new(self, session: _Session) -> bytes:
        return _encode(Down(basis=0 if session.dirty else session.basis)) + b"\n"

    async def _catch_up(self, session: _Session, seen: int) -> None:
        await self._replica.reach(seen)
        session.wake()

    def _news(self, session: _Session) -> bytes | None:
        """The sections that changed since they were sent, as one line."""
        if session.removed:
            raise _Over("the node was removed from the swarm")
        if not session.dirty:
            return None
        session.dirty = False
        snap = self._replica.snapshot()
        sections = self._board.sections(snap, session.node_id)
        news = {name: text for name, text in sections.items() if session.sent.get(name) != text}
        session.sent = sections
        session.basis = self._basis
        if not news:
            return None
        fields = b"".join(b',"%s":%s' % (name.encode(), text) for name, text in news.items())
        return b'{"type":"Wanted","rev":%d,"basis":%d%s}\n' % (snap.rev, session.basis, fields)
