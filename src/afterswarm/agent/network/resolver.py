"""A DNS server on this host's own address in each of its overlay networks.

Containers' questions come from the engine's embedded server (127.0.0.11), which asks from inside the container's
namespace: the source address says whose question it is. Names of services are answered from `Network.zone`, with a
time to live of 0; all others are passed on, as they are, to the host's nameservers or those that the service was given.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from dnslib import PTR, QTYPE, RCODE, RR, A, DNSError, DNSRecord

from afterswarm.agent.network.upstream import ask
from afterswarm.core import dns
from afterswarm.core.dns import Answer, Zone
from afterswarm.ports import Clock

log = logging.getLogger(__name__)

PORT = 53
LOOK = 0.5  # seconds between looks at where to listen
AT_ONCE = 200  # questions being passed on
IDLE = 10.0  # seconds of a TCP connection
HELD = 1.0  # seconds that an answer waits for the rules without which it is of no use
WAIT = 0.02
_FREEBIND = 15  # linux/in.h: listen on an address before a bridge has it


def host_nameservers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """As the host's own resolver has them. IPv4 only, as everything of ours."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and ":" not in w[1]]


class Resolver:
    """`zone` and `addresses` are asked for anew each time: what may be answered, and where to listen.

    `unready` says of an asker's address that rules for its container are still to come.
    """

    def __init__(
        self,
        *,
        zone: Callable[[], Zone],
        addresses: Callable[[], list[str]],
        clock: Clock,
        unready: Callable[[str], bool] = lambda _source: False,
        upstream: Callable[[], list[str]] = host_nameservers,
        port: int = PORT,
        upstream_port: int = PORT,
    ) -> None:
        self._zone = zone
        self._addresses = addresses
        self._clock = clock
        self.unready = unready
        self._upstream = upstream
        self._port = port
        self._upstream_port = upstream_port
        self._listening: dict[str, tuple[asyncio.DatagramTransport, asyncio.Server]] = {}
        self._failed: dict[str, str] = {}
        self._turn = itertools.count()
        self._passing = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._follow(group)
                    await self._clock.sleep(LOOK)
        finally:
            for address in list(self._listening):
                self._close(address)

    async def answer(self, question: bytes, source: str, *, stream: bool) -> bytes:
        """The answer as bytes; empty when the question cannot be read. `stream`: it came by TCP."""
        until = self._clock.now() + HELD
        while self.unready(source) and self._clock.now() < until:
            await self._clock.sleep(WAIT)
        known = self.known(question, source, stream=stream)
        return await self._pass_on(question, source, stream=stream) if known is None else known

    def known(self, question: bytes, source: str, *, stream: bool = False) -> bytes | None:
        """What can be said without asking anybody; `None`: somebody upstream may know."""
        try:
            record = DNSRecord.parse(question)
        except DNSError:
            return b""
        if record.header.qr or len(record.questions) != 1:
            return b""
        zone = self._zone()
        asker = zone.asker(source)
        if asker is None:
            return _coded(record, RCODE.REFUSED)
        found = zone.answer(asker, str(record.q.qname), record.q.qtype)
        return None if found is None else self._packed(record, found, stream=stream)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _packed(self, record: DNSRecord, found: Answer, *, stream: bool) -> bytes:
        reply = record.reply(ra=1, aa=1)
        if not found.exists:
            reply.header.rcode = RCODE.NXDOMAIN
        turn = next(self._turn) % max(len(found.values), 1)
        for value in found.values[turn:] + found.values[:turn]:
            data = A(value) if found.kind == dns.A else PTR(value)
            reply.add_answer(RR(record.q.qname, found.kind, rdata=data, ttl=0))
        packed: bytes = reply.pack()
        room = max([512, *(extra.rclass for extra in record.ar if extra.rtype == QTYPE.OPT)])
        return packed if stream or len(packed) <= room else reply.truncate().pack()

    async def _pass_on(self, question: bytes, source: str, *, stream: bool) -> bytes:
        asker = self._zone().asker(source)
        servers = (asker.nameservers if asker else ()) or self._upstream()
        servers = [server for server in servers if server not in self._listening]
        if self._passing < AT_ONCE:
            self._passing += 1
            try:
                reply = await ask(question, servers, port=self._upstream_port, stream=stream)
            finally:
                self._passing -= 1
            if reply:
                return reply
        return _coded(DNSRecord.parse(question), RCODE.SERVFAIL)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        wanted = set(self._addresses())
        for address in self._listening.keys() - wanted:
            self._close(address)
        for address in sorted(wanted - self._listening.keys()):
            try:
                self._listening[address] = await self._listen(address, group)
                self._failed.pop(address, None)
            except OSError as error:
                if self._failed.get(address) != str(error):
                    log.error("cannot answer names on %s port %d: %s", address, self._port, error)  # noqa: TRY400
                self._failed[address] = str(error)

    async def _listen(self, address: str, group: asyncio.TaskGroup) -> tuple[asyncio.DatagramTransport, asyncio.Server]:
        loop = asyncio.get_running_loop()
        stream = self._socket(socket.SOCK_STREAM, address)
        server = await asyncio.start_server(self._serve_stream, sock=stream)
        try:
            datagrams = self._socket(socket.SOCK_DGRAM, address)
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self, group), sock=datagrams)
        except OSError:
            server.close()
            raise
        return transport, server

    def _socket(self, kind: int, address: str) -> socket.socket:
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            made.bind((address, self._port))
        except OSError:
            made.close()
            raise
        return made

    def _close(self, address: str) -> None:
        transport, server = self._listening.pop(address)
        transport.close()
        server.close()

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        try:
            async with asyncio.timeout(IDLE):
                while True:
                    size = int.from_bytes(await reader.readexactly(2))
                    reply = await self.answer(await reader.readexactly(size), source, stream=True)
                    writer.write(len(reply).to_bytes(2) + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass  # the other side is through with us, or should be
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, group: asyncio.TaskGroup) -> None:
        self._resolver = resolver
        self._group = group
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # Python 3.11's own is not a subclass of it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        known = None if self._resolver.unready(addr[0]) else self._resolver.known(data, addr[0])
        if known is None:
            self._group.create_task(self._pass_on(data, addr), name="name passed on")
        else:
            self._reply(known, addr)

    async def _pass_on(self, data: bytes, addr: tuple[str, int]) -> None:
        self._reply(await self._resolver.answer(data, addr[0], stream=False), addr)

    def _reply(self, reply: bytes, addr: tuple[str, int]) -> None:
        if reply and self._transport and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


def _coded(record: DNSRecord, code: int) -> bytes:
    reply = record.reply(ra=1, aa=0)
    reply.header.rcode = code
    return bytes(reply.pack())
