"""Rules and tables of the ways back to other hosts, through iproute2; the address that a container speaks from."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

from afterswarm.adapters.programs import run
from afterswarm.core.dataplane.paths import MARK, MASK, PRIORITY, Return
from afterswarm.model.repair import ROUTES, Difference

ELSEWHERE6 = "2001:db8::1"  # likewise (RFC 3849)
ELSEWHERE = "192.0.2.1"  # nobody has it (RFC 5737)

_IPV6 = Path("/proc/net/if_inet6")
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def sees_bridged() -> bool:
    """Whether netfilter sees what crosses a bridge: without it, nobody notes where a connection came through."""
    if not _BRIDGED.exists():
        try:
            run("modprobe", "br_netfilter")
        except OSError:
            return False
    try:
        if _BRIDGED.read_text().strip() != "1":
            _BRIDGED.write_text("1")
    except OSError:
        return False
    return True


def sync(wanted: Collection[Return]) -> list[Difference]:
    """Make our rules and tables these, and say what was not so; others' are not looked at."""
    found = _sync("-4", [way for way in wanted if ":" not in way.source])
    if _IPV6.exists():
        found += _sync("-6", [way for way in wanted if ":" in way.source])
    return found


def _sync(family: str, wanted: Collection[Return]) -> list[Difference]:
    rules = {_rule(r) for r in _json("ip", "-j", family, "rule", "show") if r.get("priority") == PRIORITY}
    goal = {f"from {way.source} fwmark {way.mark:#x} lookup {way.mark}" for way in wanted}
    routes = {
        (int(r["table"]), r["gateway"], r["dev"])
        for r in _json("ip", "-j", family, "route", "show", "table", "all", "default")
        if str(r.get("table", "")).isdecimal() and int(r["table"]) & MASK == MARK and "gateway" in r
    }
    ways = {(way.mark, way.gateway, way.device) for way in wanted}
    kept = {way.mark for way in wanted}
    changes = [f"rule del {rule} priority {PRIORITY}" for rule in sorted(rules - goal)]
    changes += [f"route del default table {table}" for table, *_ in sorted(routes) if table not in kept]
    changes += [
        f"route replace default via {gateway} dev {device} table {table} onlink"
        for table, gateway, device in sorted(ways - routes)
    ]
    changes += [f"rule add {rule} priority {PRIORITY}" for rule in sorted(goal - rules)]
    if changes:
        run("ip", family, "-batch", "-", stdin="\n".join(changes) + "\n")
    found = [f"there was no rule {rule}" for rule in sorted(goal - rules)]
    found += [f"there was a rule {rule}" for rule in sorted(rules - goal)]
    found += [f"table {table} did not lead to {gateway}" for table, gateway, _ in sorted(ways - routes)]
    found += [f"table {table} led to {gateway}" for table, gateway, _ in sorted(routes - ways)]
    return [Difference(ROUTES, what) for what in found]


def source() -> str:
    """The address in this namespace from which a packet to somewhere else leaves; "" when there is no way out."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asked:
        try:
            asked.connect((ELSEWHERE, 9))  # sends nothing: the kernel chooses a route
        except OSError:
            return ""
        return str(asked.getsockname()[0])


def lead_out(gateway: str) -> str:
    """The IPv6 address in this namespace from which a packet to somewhere else leaves.

    An engine gives a container its default routes in one network, which may have no IPv6: then `gateway` is one.
    """
    if not _json("ip", "-j", "-6", "route", "show", "default"):
        run("ip", "-6", "route", "replace", "default", "via", gateway, "metric", "4096")
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as asked:
        try:
            asked.connect((ELSEWHERE6, 9))
        except OSError:
            return ""
        return str(asked.getsockname()[0])


def _rule(found: dict[str, Any]) -> str:
    mark = int(found.get("fwmark", "0"), 0)
    source = f"{found.get('src')}/{found['srclen']}" if "srclen" in found else found.get("src")
    return f"from {source} fwmark {mark:#x} lookup {found.get('table')}"


def _json(*command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*command) or "[]")
    return [item for item in found if item]
