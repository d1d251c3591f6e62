"""VXLAN devices, their forwarding entries, and the bridges' own addresses on the wire.

Through iproute2's batch mode, not a netlink library: that would be 12 MB in every worker for a few changes a minute.
Only devices whose name begins with ours are ever looked at.

A bridge learns where an address is from the frames that come in, and would keep sending frames into the tunnel for
minutes when an address has moved from another host to this one. So its port of the tunnel learns nothing, and the
addresses behind it are written there as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from afterswarm.adapters.kernel import ipv6
from afterswarm.adapters.programs import run
from afterswarm.core.dataplane import diff
from afterswarm.core.dataplane.sizes import IPV6
from afterswarm.core.dataplane.vxlan import BRIDGE_PREFIX, EVERYBODY, PREFIX, Link
from afterswarm.model.repair import FDB, Difference


def sync(wanted: Collection[Link]) -> list[Difference]:
    """Make the devices these; says what was not so.

    One whose bridge is not there (the engine has just taken it away) waits for the next.
    """
    before = _bridges()
    try:
        return _sync(wanted, before)
    except OSError:
        after = _bridges()
        if after.keys() == before.keys():
            raise
        return _sync(wanted, after)  # the engine was quicker


def _sync(wanted: Collection[Link], bridges: dict[str, str]) -> list[Difference]:
    below = _below(wanted)
    wanted = [link for link in wanted if link.bridge in bridges and (not link.via or link.via in below)]
    by = {link.name: f" via {link.via}" for link in wanted if link.via}  # of what goes, too: the device is the same
    fdb = _forwarding()
    links, forwarding = [], []
    steps = diff.steps(_devices(bridges, fdb), wanted)
    found = diff.told(steps)
    for step in steps:
        match step:
            case diff.Delete(name):
                links.append(f"link del dev {name}")
            case diff.Create(link):
                how = f"id {link.vni} local {link.local} dstport {link.port} nolearning"
                how += f" dev {link.via}" if link.via else ""
                ipv6.trust(link)
                links += [f"link add {link.name} type vxlan {how}", *_settings(link)]
                links += [f"address replace {address} dev {link.bridge} nodad" for address in link.ipv6]
                if link.ipv6 and ipv6.EVERYWHERE in ipv6.of(link.bridge):  # the kernel asks by the oldest
                    links += [
                        f"address del {ipv6.EVERYWHERE}/64 dev {link.bridge}",
                        f"address add {ipv6.EVERYWHERE}/64 dev {link.bridge} nodad",
                    ]
            case diff.Adjust(link):
                links += _settings(link)
            case diff.Learn(name, mac, host):
                forwarding.append(f"fdb append {mac} dev {name} dst {host}{by.get(name, '')} self permanent")
            case diff.Unlearn(name, mac, host):
                forwarding.append(f"fdb del {mac} dev {name} dst {host}{by.get(name, '')} self permanent")
    kept = {e["ifname"] for e in fdb}
    for link in wanted:
        if not any((e["ifname"], e["mac"]) == (link.bridge, link.bridge_mac) for e in fdb):
            found.append(Difference(FDB, f"{link.bridge} did not know itself"))  # nor take what is sent to this host
            forwarding.append(f"fdb replace {link.bridge_mac} dev {link.bridge} self local")
        behind = {mac for mac, _ in link.fdb if mac != EVERYBODY}
        known = {e["mac"] for e in fdb if (e.get("ifname"), e.get("master")) == (link.name, link.bridge) and _fixed(e)}
        if link.name in kept:
            found += [Difference(FDB, f"{link.bridge} did not know {mac}") for mac in sorted(behind - known)]
            found += [Difference(FDB, f"{link.bridge} had {mac}") for mac in sorted(known - behind)]
        forwarding += [f"fdb del {mac} dev {link.name} master static" for mac in sorted(known - behind)]
        forwarding += [f"fdb replace {mac} dev {link.name} master static" for mac in sorted(behind - known)]
    if links:
        run("ip", "-batch", "-", stdin="\n".join(links) + "\n")
    if forwarding:
        run("bridge", "-batch", "-", stdin="\n".join(forwarding) + "\n")
    return found


def _below(wanted: Collection[Link]) -> set[str]:
    """The devices there are that some of these stand on."""
    if not any(link.via for link in wanted):
        return set()
    return {found["ifname"] for found in _json("ip", "-j", "link", "show")} & {link.via for link in wanted}


def underlay(address: str) -> int:
    """Of a device that leads somewhere: on the loopback an address has no wire of its own."""
    for link in _json("ip", "-j", "address", "show"):
        if "LOOPBACK" not in link["flags"] and any(a.get("local") == address for a in link.get("addr_info", ())):
            return int(link["mtu"])
    return 0


def _settings(link: Link) -> list[str]:
    return [
        f"link set dev {link.name} mtu {link.mtu}",
        *([f"link set dev {link.name} addrgenmode none"] if link.mtu >= IPV6 else []),
        f"link set dev {link.name} master {link.bridge}",
        f"link set dev {link.name} type bridge_slave learning off",
        f"link set dev {link.name} up",
        f"link set dev {link.bridge} address {link.bridge_mac}",
    ]


def _bridges() -> dict[str, str]:
    """Name -> MAC of every bridge."""
    return {link["ifname"]: link["address"] for link in _json("ip", "-j", "link", "show", "type", "bridge")}


def _forwarding() -> list[dict[str, Any]]:
    """The entries of all bridges and tunnels of ours."""
    ours = (PREFIX, BRIDGE_PREFIX)
    return [entry for entry in _json("bridge", "-j", "fdb", "show") if entry.get("ifname", "").startswith(ours)]


def _fixed(entry: dict[str, Any]) -> bool:
    """Neither learnt nor the device's own address."""
    return bool(entry.get("state") == "static")


def _devices(bridges: dict[str, str], fdb: list[dict[str, Any]]) -> list[Link]:
    """Our devices as they are. One that is not as `_settings` makes it shows by an empty bridge."""
    found = _json("ip", "-j", "-d", "link", "show", "type", "vxlan")
    ours = [link for link in found if link["ifname"].startswith(PREFIX)]
    known: dict[str, list[tuple[str, str]]] = {link["ifname"]: [] for link in ours}
    for entry in fdb:
        if entry["ifname"] in known and "dst" in entry:
            known[entry["ifname"]].append((entry["mac"], entry["dst"]))
    return [_device(link, bridges, tuple(sorted(known[link["ifname"]]))) for link in ours]


def _device(link: dict[str, Any], bridges: dict[str, str], fdb: tuple[tuple[str, str], ...]) -> Link:
    data = link["linkinfo"]["info_data"]
    port = link["linkinfo"].get("info_slave_data", {})
    bridge = link.get("master", "") if "UP" in link["flags"] and not port.get("learning") else ""
    return Link(
        name=link["ifname"],
        vni=data.get("id", 0),
        local=data.get("local") or data.get("local6", ""),
        via=data.get("link", ""),
        port=data.get("port", 0),
        mtu=link["mtu"],
        bridge=bridge,
        bridge_mac=bridges.get(bridge, ""),
        fdb=fdb,
    )


def _json(*command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*command) or "[]")
    return [item for item in found if item]  # old versions print {} for what a filter left out
