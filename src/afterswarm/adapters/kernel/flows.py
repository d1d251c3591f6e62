"""Connections that the kernel remembers, and the way through Docker's own filter."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from afterswarm.adapters.kernel import nfnetlink
from afterswarm.adapters.programs import run
from afterswarm.core.dataplane.vxlan import Link
from afterswarm.model.repair import FIREWALL, Difference

_CONNTRACK, _GET, _DELETE = 1, 1, 2  # linux/netfilter/nfnetlink_conntrack.h
_ORIGINAL, _REPLY, _STATUS, _STATE, _ID, _ZONE = 1, 2, 3, 4, 12, 18
_OF_TCP, _NAME = 1, 1  # in the state: of which protocol it is, and its name
_ENDED = b"\x07"  # TCP_CONNTRACK_TIME_WAIT
_ANSWERED = 2  # of the status: IPS_SEEN_REPLY
_IP = 1
_SOURCE = {socket.AF_INET: 1, socket.AF_INET6: 3}
_PROTOCOL, _NUMBER = 2, 1
_UDP = bytes([socket.IPPROTO_UDP])
_NESTED = 0x8000
_BATCH = 64  # deletions per system call

_IPV6 = Path("/proc/net/if_inet6")
CHAIN = "AFTERSWARM"


def forget(addresses: Collection[str], *, datagrams: bool = False, unanswered: bool = False) -> None:
    """Delete the entries whose answers would come from one of these addresses (`conntrack -D -r`), in one pass.

    `datagrams`: those of UDP alone. `unanswered`: those alone that nothing has come back on. Connections that have
    ended stay: the next one from that port is balanced anew by itself, and may be by now. It has the same name, and
    often the same id, since the kernel puts it where the ended one was; so it would be deleted in its stead.
    """
    for family in _SOURCE:
        here = [address for address in addresses if (":" in address) == (family == socket.AF_INET6)]
        if here:
            wanted = {socket.inet_pton(family, address) for address in here}
            _forget(family, wanted, datagrams=datagrams, unanswered=unanswered)


def _forget(family: socket.AddressFamily, wanted: set[bytes], *, datagrams: bool, unanswered: bool) -> None:
    with closing(nfnetlink.Conversation()) as kernel, closing(nfnetlink.Conversation()) as other:
        entries = kernel.ask(nfnetlink.message(_CONNTRACK, _GET, nfnetlink.DUMP, family))
        found = _from(family, wanted, entries, datagrams=datagrams, unanswered=unanswered)
        try:
            while some := list(islice(found, _BATCH)):  # soon after they were seen: much may happen meanwhile
                other.tell(b"".join(some))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                raise OSError(error.errno, "the kernel has no nf_conntrack_netlink") from error
            raise


def _from(
    family: socket.AddressFamily,
    wanted: set[bytes],
    entries: Iterable[bytes],
    *,
    datagrams: bool,
    unanswered: bool,
) -> Iterator[bytes]:
    """The requests that delete those entries: each is named by its original direction, zone and id."""
    for entry in entries:
        if not any(address in entry for address in wanted):  # taking it apart is the slow part
            continue
        found = dict(nfnetlink.attributes(entry))
        reply = dict(nfnetlink.attributes(found.get(_REPLY, b"")))
        protocol = dict(nfnetlink.attributes(reply.get(_PROTOCOL, b""))).get(_NUMBER)
        if datagrams and protocol != _UDP:
            continue
        if unanswered and int.from_bytes(found.get(_STATUS, b"")) & _ANSWERED:
            continue
        if _ended(found.get(_STATE, b"")):
            continue
        if dict(nfnetlink.attributes(reply.get(_IP, b""))).get(_SOURCE[family]) in wanted:
            name = nfnetlink.attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
            name += b"".join(nfnetlink.attribute(kind, found[kind]) for kind in (_ID, _ZONE) if kind in found)
            yield nfnetlink.message(_CONNTRACK, _DELETE, 0, family, name)


def _ended(state: bytes) -> bool:
    tcp = dict(nfnetlink.attributes(state)).get(_OF_TCP, b"")
    return dict(nfnetlink.attributes(tcp)).get(_NAME) == _ENDED


def accept(links: Collection[Link]) -> list[Difference]:
    """Let overlay traffic through Docker's FORWARD chain, whose policy is to drop. Says what was missing for that.

    Docker calls DOCKER-USER before all else and never empties it, so one jump there is enough. Without such a chain
    (no engine yet, or one that filters by nftables) there is nothing to do.
    """
    found = _accept("iptables", links)
    return [*found, *_accept("ip6tables", [link for link in links if link.ipv6])] if _IPV6.exists() else found


def _accept(program: str, links: Collection[Link]) -> list[Difference]:
    there = run(program, "-w", "-S").splitlines()
    if "-N DOCKER-USER" not in there:
        return []
    found = []
    jump = f"-A DOCKER-USER -j {CHAIN}"
    wanted = [rule for link in links for rule in _rules(link)]
    if [line for line in there if line.startswith(f"-A {CHAIN} ")] != wanted or f"-N {CHAIN}" not in there:
        lines = ["*filter", f":{CHAIN} - [0:0]", *wanted, "COMMIT", ""]
        run(f"{program}-restore", "-w", "--noflush", stdin="\n".join(lines))
        found.append(Difference(FIREWALL, f"chain {CHAIN} had other rules"))
    if wanted and jump not in there:
        run(program, "-w", "-I", "DOCKER-USER", "-j", CHAIN)
        found.append(Difference(FIREWALL, f"DOCKER-USER did not lead to {CHAIN}"))
    if not wanted:
        if jump in there:
            run(program, "-w", "-D", "DOCKER-USER", "-j", CHAIN)
        run(program, "-w", "-X", CHAIN)
    return found


def _rules(link: Link) -> list[str]:
    bridge = link.bridge
    rules = [
        f"-A {CHAIN} -i {bridge} -o {bridge} -j ACCEPT",
        # answers leave through whichever of its networks a container has its default route in
        f"-A {CHAIN} -i {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    if link.ingress:
        rules.append(f"-A {CHAIN} -o {bridge} -m conntrack --ctstate DNAT -j ACCEPT")
    return rules
