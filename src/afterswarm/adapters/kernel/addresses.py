"""Floating addresses in this host's kernel: on an interface, guarded (`core.dataplane.guard`), announced."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from afterswarm.adapters.kernel import nfnetlink
from afterswarm.adapters.programs import run
from afterswarm.core.dataplane import announce, guard

T = TypeVar("T")

_TABLES, _GET_TABLE, _NAME = 10, 1, 1  # linux/netfilter/nf_tables.h
_FAMILY = {"netdev": 5, "inet": 1}


class LinuxAddresses:
    """Implements `ports.Addresses`. One thread of its own: what else the daemon asks of the kernel may take long."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="addresses")

    async def interfaces(self) -> dict[str, list[str]]:
        return await self._do(_interfaces)

    async def guard(self, places: Collection[tuple[str, str]], *, anew: bool) -> bool:
        return await self._do(lambda: self._guard(places, anew=anew))

    async def add(self, address: str, device: str) -> None:
        await self._do(lambda: run("ip", "address", "replace", *_as(address, device)))

    async def remove(self, address: str, device: str) -> None:
        def remove() -> None:
            try:
                run("ip", "address", "del", f"{address}/{_bits(address)}", "dev", device)
            except OSError:
                if address in {text.partition("/")[0] for text in _interfaces().get(device, ())}:
                    raise

        await self._do(remove)

    def open(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, guard.MARK)
            out.bind((address, 0))  # fails unless the address is here: the packet must not leave
            out.sendto(b"", (address, guard.PORT))

    def announce(self, address: str, device: str) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((device, 0))
            mac: bytes = out.getsockname()[4]
            if len(mac) != 6:
                return  # nobody asks for addresses there
            for frame in announce.frames(address, mac):
                out.send(frame)

    def _guard(self, places: Collection[tuple[str, str]], *, anew: bool) -> bool:
        there = [_there(family) for family in guard.FAMILIES]
        if not anew and all(there):
            return False
        if not places and not any(there):
            return True  # nothing to take away, in a kernel that may not even know such tables
        run("nft", "-f", "-", stdin=guard.ruleset(places))
        return True

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _interfaces() -> dict[str, list[str]]:
    shown = json.loads(run("ip", "-json", "address", "show", "up") or "[]")
    return {
        link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ()) if "local" in a]
        for link in shown
        if "ifname" in link
    }


def _bits(address: str) -> int:
    return 128 if ":" in address else 32


def _as(address: str, device: str) -> list[str]:
    """Alone in its prefix, and never chosen as the address that this host speaks from by itself."""
    found = [f"{address}/{_bits(address)}", "dev", device]
    return [*found, "nodad", "preferred_lft", "0"] if ":" in address else found


def _there(family: str) -> bool:
    """Whether our table is there; a look costs one message and changes nothing."""
    name = nfnetlink.attribute(_NAME, guard.NAME.encode() + b"\0")
    with closing(nfnetlink.Conversation()) as kernel:
        try:
            return any(True for _ in kernel.ask(nfnetlink.message(_TABLES, _GET_TABLE, 0, _FAMILY[family], name)))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                return False
            raise
