"""As much of netfilter's netlink protocol as we speak ourselves: asking, dumping, and taking attributes apart.

Format: linux/netlink.h, linux/netfilter/nfnetlink.h. Loading a library for these few messages costs more memory than
the rest of the daemon's network part.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

REQUEST, DUMP = 0x001, 0x300
_NETFILTER = 12
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0xC000  # flag bits of an attribute's type


def message(subsystem: int, kind: int, flags: int, family: int = 0, attributes: bytes = b"") -> bytes:
    """One request: netlink header, netfilter header (family, version 0, resource 0), attributes as they are."""
    body = struct.pack("!BBH", family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), subsystem << 8 | kind, flags | REQUEST, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded; `kind` may carry the flag of nesting."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type (without flags) and value of each."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            return
        yield kind & ~_NESTED, data[at + 4 : at + length]
        at += length + 3 & ~3


class Conversation:
    """A netlink socket in the current network namespace. Raises `OSError` with the kernel's error."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def tell(self, messages: bytes) -> None:
        """Requests that nobody waits for: the kernel has carried them out when this returns."""
        self._socket.send(messages)

    def acknowledged(self, count: int) -> None:
        """So many of the requests told before asked for a word that they were carried out: take it."""
        while count > 0:
            data, at = self._socket.recv(1 << 16), 0
            while at + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                    if number:
                        raise OSError(number, f"netlink: {os.strerror(number)}")
                    count -= 1
                at += length + 3 & ~3

    def ask(self, request: bytes) -> Iterator[bytes]:
        """The attributes of each answering message: of one, or of all until the end of a dump."""
        self._socket.send(request)
        dump = _HEADER.unpack_from(request)[2] & DUMP == DUMP
        while True:
            data = self._socket.recv(1 << 20)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += length + 3 & ~3
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, f"netlink: {os.strerror(number)}")
                if kind == _DONE:
                    return
                yield body[4:]  # past the netfilter header
            if not dump:
                return
