"""Which tasks get new connections: those that are ready on hosts that are heard, and rather any than none."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address
from zlib import crc32

from afterswarm.model.session import Target


def choose(targets: Iterable[Target], network_id: str, silent: Collection[str]) -> list[Target]:
    """The targets to use in one network, by address.

    `silent` are the nodes this host does not hear. In turn, the first that is not empty: ready ones on hosts that
    are heard; ready ones anywhere (the silence may be ours); draining ones (they still answer, for a while).
    """
    here = sorted(
        (t for t in targets if t.addresses.get(network_id) and (t.ready or t.draining)),
        key=lambda t: (IPv4Address(t.addresses[network_id]), t.task_id),
    )
    ready = [t for t in here if t.ready and not t.draining]
    heard = [t for t in ready if t.node_id not in silent]
    return heard or ready or here


def rotate(targets: list[Target], seed: str) -> list[Target]:
    """The same ring from another start, so that clients that open one connection each do not all meet the first."""
    start = crc32(seed.encode()) % len(targets) if targets else 0
    return targets[start:] + targets[:start]
