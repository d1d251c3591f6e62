"""A process of its own that answers containers' questions for names, on this host's gateway addresses.

Apart from the daemon, so that there are names while the daemon is restarted, or gone: it then goes on with what it was
told last. Containers' questions come from the engine's embedded server (127.0.0.11), which asks from inside the
container's namespace: the source address says whose question it is. What is not ours is passed on, as it is, to the
host's nameservers or those that the container was given.

The daemon binds the sockets and hands them over, so that this process needs no right at all and gives up those it was
born with. `agent.names.names` starts it with the control socket as file descriptor 3 and talks to it there (`wire`):

    {"at": address}                + its two sockets: answer there from now on
    {"networks": …, "askers": …, "keep": […]}   see `lookup.Book.take`
    {"unready": […]}               addresses whose rules are still to come: their questions wait, for a moment
    {"close": […]}                 addresses to answer on no more
    {"give": true}                 the sockets back, one message for each address
    {"end": true}                  finish what was begun, and end

Each is answered by {} once it is done. Small on purpose (15 MB): no asyncio, no msgspec, no logging.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from typing import NamedTuple

from dnslib import RCODE

from afterswarm.agent.names import answers, wire
from afterswarm.agent.names.nameservers import of_host
from afterswarm.agent.names.passing import Passing
from afterswarm.agent.names.streams import Streams
from afterswarm.core.dns.lookup import Book

CONTROL = 3  # file descriptor
HELD = 1.0  # seconds that an answer waits for the rules without which it is of no use
TICK = 0.1  # seconds between looks at what takes too long, while something is under way
ORPHANED = 30.0  # seconds between looks whether a daemon could still find us
AT_A_TURN = 64  # datagrams read from one socket before others have their turn
FAULTS = 20  # of ours that are written down
_NOBODY = 65534

Reply = Callable[[bytes], object]


class Held(NamedTuple):
    until: float
    question: bytes
    source: str
    stream: bool
    reply: Reply


class Server:
    """`nameservers` are the host's."""

    def __init__(
        self,
        control: socket.socket,
        *,
        path: str,
        version: str,
        nameservers: Callable[[], list[str]] = of_host,
        upstream_port: int = 53,
    ) -> None:
        self._control = control
        self._path = path
        self._version = version
        self._nameservers = nameservers
        self._selector = DefaultSelector()
        self._book = Book()
        self._passing = Passing(self._selector, time.monotonic, upstream_port)
        self._streams = Streams(self._selector, time.monotonic, self._asked)
        self._places: dict[str, list[socket.socket]] = {}
        self._line: socket.socket | None = None
        self._inbox = wire.Inbox()
        self._unready: frozenset[str] = frozenset()
        self._held: list[Held] = []
        self._turn = itertools.count()
        self._ending = False
        self._faults = 0
        self._selector.register(control, EVENT_READ, self._accept)

    def run(self) -> None:
        """Until told to end, or out of reach of any daemon."""
        looked = time.monotonic()
        while not self._ending or self._busy():
            for key, _ in self._selector.select(TICK if self._busy() else ORPHANED):
                key.data()
            now = time.monotonic()
            self._passing.sweep()
            self._streams.sweep()
            self._let_go(now)
            if now - looked >= ORPHANED and self._line is None:
                looked = now
                if self._orphaned():
                    return

    def _busy(self) -> bool:
        return bool(self._passing.open or self._held or self._streams.open)

    def _orphaned(self) -> bool:
        try:
            os.stat(self._path)  # noqa: PTH116
        except FileNotFoundError:
            return True
        except OSError:
            pass  # not to be seen by nobody
        return False

    # ---- questions -----------------------------------------------------------------------------------------------

    def _datagrams(self, place: socket.socket) -> None:
        for _ in range(AT_A_TURN):
            try:
                question, client = place.recvfrom(65535)
            except OSError:  # nothing left; or somebody whom we answered is not there any more
                return
            self._asked(question, client[0], stream=False, reply=partial(_send, place, client))

    def _asked(self, question: bytes, source: str, *, stream: bool, reply: Reply) -> None:
        if source in self._unready and self._line is not None:
            self._held.append(Held(time.monotonic() + HELD, question, source, stream, reply))
        else:
            self._try(question, source, stream=stream, reply=reply)

    def _try(self, question: bytes, source: str, *, stream: bool, reply: Reply) -> None:
        try:
            self._answer(question, source, stream=stream, reply=reply)
        except Exception as error:  # noqa: BLE001 - one strange question must not cost everybody the names
            reply(b"")
            if self._faults < FAULTS:
                self._faults += 1
                sys.excepthook(type(error), error, error.__traceback__)

    def _answer(self, question: bytes, source: str, *, stream: bool, reply: Reply) -> None:
        record = answers.read(question)
        if record is None:
            reply(b"")
            return
        asker = self._book.asker(source)
        known = answers.known(self._book, asker, record, next(self._turn), stream=stream)
        if known is not None:
            reply(known)
            return
        servers = (asker.nameservers if asker else ()) or self._nameservers()

        def done(came: bytes) -> None:
            reply(came or answers.failure(record, RCODE.SERVFAIL))

        self._passing.ask(question, [s for s in servers if s not in self._places], stream=stream, done=done)

    def _let_go(self, now: float) -> None:
        """Questions whose rules are there, or did not come."""
        held, self._held = self._held, []
        for each in held:
            if each.until > now and each.source in self._unready and self._line is not None:
                self._held.append(each)
            else:
                self._try(each.question, each.source, stream=each.stream, reply=each.reply)

    # ---- the daemon ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            line, _ = self._control.accept()
        except OSError:
            return
        self._hang_up()  # of two daemons the later one is meant
        line.setblocking(False)  # noqa: FBT003
        self._line, self._inbox = line, wire.Inbox()
        self._selector.register(line, EVENT_READ, self._hear)
        wire.send(line, {"version": self._version, "pid": os.getpid(), "listening": sorted(self._places)})

    def _hear(self) -> None:
        line = self._line
        assert line  # noqa: S101 - it is its callback
        try:
            there = self._inbox.receive(line)
            while (came := self._inbox.next()) is not None:
                self._do(line, *came)
                wire.send(line, {})
        except BlockingIOError:
            return
        except OSError:
            there = False
        if not there:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            self._selector.unregister(self._line)
            self._line.close()
            self._inbox.close()
            self._line = None

    def _do(self, line: socket.socket, message: wire.Json, sockets: list[socket.socket]) -> None:
        if "at" in message:
            self._close(message["at"])
            self._open(message["at"], sockets)
        self._book.take(message.get("networks", {}), message.get("askers"), message.get("keep"))
        if "unready" in message:
            self._unready = frozenset(message["unready"])
        for address in message.get("close", ()):
            self._close(address)
        if message.get("give"):
            line.settimeout(HELD)  # the daemon takes them while we send
            for address, places in sorted(self._places.items()):
                wire.send(line, {"at": address}, places)
            line.setblocking(False)  # noqa: FBT003
        if message.get("end"):
            self._selector.unregister(self._control)
            for places in self._places.values():
                for place in places:  # still needed to answer from
                    self._selector.unregister(place)
            self._streams.finish()
            self._ending = True

    def _open(self, address: str, places: list[socket.socket]) -> None:
        datagrams, connections = places
        for place in places:
            place.setblocking(False)  # noqa: FBT003
        self._places[address] = places
        self._selector.register(datagrams, EVENT_READ, partial(self._datagrams, datagrams))
        self._selector.register(connections, EVENT_READ, partial(self._streams.accept, connections))

    def _close(self, address: str) -> None:
        for place in self._places.pop(address, ()):
            self._selector.unregister(place)
            place.close()


def _send(place: socket.socket, client: tuple[str, int], reply: bytes) -> None:
    if reply:
        with suppress(OSError):  # it does not wait any more, or its way is gone
            place.sendto(reply, client)


def main() -> None:
    """`PATH VERSION [PORT]`: of the control socket, of this code, and of nameservers."""
    path, version = sys.argv[1:3]
    control = socket.socket(fileno=CONTROL)
    server = Server(control, path=path, version=version, upstream_port=int(sys.argv[3]))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    os.chdir("/")
    server.run()
