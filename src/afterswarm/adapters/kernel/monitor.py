"""Hears at once when somebody changes what may be ours, instead of finding out with the next look.

The kernel tells its changes over netlink, ours as well. Only what hints at damage counts: something of ours that was
deleted, one of our devices that changed, and every transaction of nftables (an engine's, too). It says no more than
"look again", so a message that is lost or read wrongly costs nothing but the time until the next look.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from afterswarm.adapters.kernel import nfnetlink
from afterswarm.core.dataplane.vxlan import BRIDGE_PREFIX, PREFIX
from afterswarm.model.repair import LINKS, RULES

_ROUTE, _NETFILTER = 0, 12
_DEVICES = (1, 3)  # groups of linux/rtnetlink.h: links, neighbours
_WAYS = (5, 7, 8, 9, 11, 19)  # addresses, routes and rules, of IPv4 and of IPv6
_RULESETS = 7  # group, linux/netfilter/nfnetlink.h
_NEW_LINK, _DEL_LINK, _DEL_ADDRESS, _DEL_ROUTE, _DEL_NEIGHBOUR, _DEL_RULE = 16, 17, 21, 25, 29, 33
_NEW_GENERATION = 10 << 8 | 15
_BRIDGES = 7  # the family of forwarding entries
_WRITTEN = 0x40 | 0x80  # states of neighbours that nobody learnt
_HEADER = struct.Struct("=IHHII")
_LINK_HEADER, _NAME = 16, 3
_JOIN = 1  # NETLINK_ADD_MEMBERSHIP
_SOL_NETLINK = 270


class Monitor:
    """In the network namespace of the calling thread. To be used in a running loop."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()
        self._kinds = set[str]()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            for protocol, groups in (
                (_ROUTE, _DEVICES + _WAYS),
                (_NETFILTER, (_RULESETS,)),
            ):
                kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                made = socket.socket(socket.AF_NETLINK, kind, protocol)
                self._sockets.append(made)
                made.bind((0, 0))
                for group in groups:
                    made.setsockopt(_SOL_NETLINK, _JOIN, group)
                loop.add_reader(made, self._read, made)
        except OSError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets.clear()

    async def wait(self) -> set[str]:
        """What was heard of since the last time: RULES, and LINKS for all that is not nftables."""
        await self._heard.wait()
        self._heard.clear()
        heard, self._kinds = self._kinds, set()
        return heard

    def _read(self, where: socket.socket) -> None:
        try:
            data = where.recv(1 << 16)
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # more than we could follow
                self._hear({LINKS, RULES})
            return
        self._hear({what for kind, body in _messages(data) if (what := _what(kind, body))})

    def _hear(self, kinds: set[str]) -> None:
        if kinds:
            self._kinds |= kinds
            self._heard.set()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _what(kind: int, body: bytes) -> str:
    """ "" when it does not matter."""
    matters = kind in (_DEL_ADDRESS, _DEL_ROUTE, _DEL_RULE)
    if kind == _NEW_GENERATION:
        return RULES
    if kind in (_NEW_LINK, _DEL_LINK):
        name = dict(nfnetlink.attributes(body[_LINK_HEADER:])).get(_NAME, b"").decode(errors="replace")
        matters = name.startswith((PREFIX, BRIDGE_PREFIX))
    elif kind == _DEL_NEIGHBOUR:  # family, padding, device, state, …
        family, state = body[0], struct.unpack_from("=H", body, 8)[0]
        matters = family == _BRIDGES and bool(state & _WRITTEN)
    return LINKS if matters else ""
