"""Keeps established connections translated while somebody else's `nft flush ruleset` has taken our rules away.

The kernel translates packets of a connection that it knows as long as *any* NAT chain is there and *any* rule asks for
connection tracking. With the last ones gone, the next packet of a client would reach the host itself and be refused,
which ends the connection before any repair. So a NAT chain with a rule that does nothing stays in a table that belongs
to a socket of ours (`owner`): others cannot take it away, and the kernel does, when the socket closes. Linux 5.12 or
later; on others, there is no such safety net.
"""

from __future__ import annotations

import socket
import struct

from afterswarm.adapters.kernel import nfnetlink

_TABLES = 10  # linux/netfilter/nf_tables.h, as the rest
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_BATCH_BEGIN, _BATCH_END = 16, 17  # linux/netfilter/nfnetlink.h
_CREATE, _APPEND, _ACK = 0x400, 0x800, 0x4
_NAME, _FLAGS, _OWNER = 1, 2, 2
_OF_TABLE, _CHAIN_NAME, _HOOK, _TYPE = 1, 3, 4, 7
_NUMBER, _PRIORITY = 1, 2
_IN_CHAIN, _EXPRESSIONS, _ELEMENT, _EXPRESSION, _DATA = 2, 4, 1, 1, 2
_INTO, _KEY = 1, 2  # of the expression `ct`
_NESTED = 0x8000
_INET = 1  # both versions of IP
TABLE = "afterswarm_hold"
_AFTER_ALL = 300  # the chain holds nothing: whenever it comes


def hold() -> nfnetlink.Conversation:
    """In the namespace of the calling thread, until the answer is closed. Raises `OSError` where it cannot be had."""
    kernel = nfnetlink.Conversation()
    hook = nfnetlink.attribute(_NUMBER, struct.pack("!I", 0))  # prerouting: any will do
    hook += nfnetlink.attribute(_PRIORITY, struct.pack("!i", _AFTER_ALL))
    chain = _named(_OF_TABLE, TABLE) + _named(_CHAIN_NAME, "hold") + nfnetlink.attribute(_HOOK | _NESTED, hook)
    table = _named(_NAME, TABLE) + nfnetlink.attribute(_FLAGS, struct.pack("!I", _OWNER))
    state = nfnetlink.attribute(_INTO, struct.pack("!I", 1)) + nfnetlink.attribute(_KEY, struct.pack("!I", 0))
    asks = _named(_EXPRESSION, "ct") + nfnetlink.attribute(_DATA | _NESTED, state)
    rule = _named(_OF_TABLE, TABLE) + _named(_IN_CHAIN, "hold")
    rule += nfnetlink.attribute(_EXPRESSIONS | _NESTED, nfnetlink.attribute(_ELEMENT | _NESTED, asks))
    batch = [
        _border(_BATCH_BEGIN),
        nfnetlink.message(_TABLES, _NEW_TABLE, _CREATE | _ACK, _INET, table),
        nfnetlink.message(_TABLES, _NEW_CHAIN, _CREATE | _ACK, _INET, chain + _named(_TYPE, "nat")),
        nfnetlink.message(_TABLES, _NEW_RULE, _CREATE | _APPEND | _ACK, _INET, rule),
        _border(_BATCH_END),
    ]
    try:
        kernel.tell(b"".join(batch))
        kernel.acknowledged(3)
    except OSError:
        kernel.close()
        raise
    return kernel


def _border(kind: int) -> bytes:
    """Of a batch: which subsystem it is for stands where others have a resource."""
    return struct.pack("=IHHIIBBH", 20, kind, 1, 0, 0, 0, 0, socket.htons(_TABLES))


def _named(kind: int, name: str) -> bytes:
    return nfnetlink.attribute(kind, name.encode() + b"\0")
