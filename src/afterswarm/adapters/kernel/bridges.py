"""What a host does with the engine's bridges besides putting tunnels on them: it keeps them up, with the addresses and
the way to their subnet that the engine gave them, and sets what our traffic needs of the kernel and of their ports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from afterswarm.adapters.kernel import ipv6
from afterswarm.adapters.programs import run
from afterswarm.core.dataplane.vxlan import PREFIX, Link
from afterswarm.model.repair import LINKS, ROUTES, SETTINGS, Difference


def sync(wanted: Collection[Link]) -> list[Difference]:
    """Put right what somebody else changed; says what that was."""
    there = {found["ifname"]: found for found in _json("ip", "-j", "addr", "show", "type", "bridge")}
    links = [link for link in wanted if link.bridge in there]
    least = _least_mtu() if links else {}
    differences, commands = [], []
    for link in links:
        for what, command in _repairs(link, there[link.bridge], least.get(link.bridge, 0)):
            differences.append(Difference(LINKS, what))
            commands.append(command)
    _batch(commands)
    commands = []
    for what, command in _ways(links):
        differences.append(Difference(ROUTES, what))
        commands.append(command)
    _batch(commands)
    _send_back({link.bridge for link in links if link.ingress})
    return [*differences, *_settings(links)]


def _send_back(bridges: Collection[str]) -> None:
    """A container that dials a port of its own host may be chosen itself: its frame leaves by the port it came from."""
    if not bridges:
        return
    for port in _json("bridge", "-j", "-d", "link", "show"):
        if port.get("master") in bridges and not port["ifname"].startswith(PREFIX) and not port.get("hairpin"):
            with contextlib.suppress(OSError):  # its container has ended
                run("bridge", "link", "set", "dev", port["ifname"], "hairpin", "on")


def _repairs(link: Link, found: dict[str, Any], least: int) -> Iterator[tuple[str, str]]:
    if "UP" not in found["flags"]:
        yield f"{link.bridge} was down", f"link set dev {link.bridge} up"
    if least and found["mtu"] != least:
        yield f"{link.bridge} had an MTU of {found['mtu']}", f"link set dev {link.bridge} mtu {least}"
    addresses = {f"{a['local']}/{a['prefixlen']}" for a in found.get("addr_info", ()) if "local" in a}
    for address in link.addresses:
        if address not in addresses:
            yield (
                f"{link.bridge} had no address {address}",
                f"addr add {address} dev {link.bridge}{' nodad' * (':' in address)}",
            )


def _least_mtu() -> dict[str, int]:
    """Of what is on each bridge: the kernel gives it to the bridge until somebody sets another.

    With more, this host would send what is lost at the container, instead of telling the sender that it is too much.
    """
    found: dict[str, int] = {}
    for link in _json("ip", "-j", "link", "show"):
        if bridge := link.get("master"):
            found[bridge] = min(found.get(bridge, link["mtu"]), link["mtu"])
    return found


def _ways(links: Collection[Link]) -> Iterator[tuple[str, str]]:
    """The kernel makes a route with each address; it can be deleted by itself."""
    wanted = [(link, ip_interface(address)) for link in links for address in link.addresses]
    for version in {found.version for _, found in wanted}:
        shown = _json("ip", "-j", f"-{version}", "route", "show", "table", "main")
        there = {(r["dst"], r["dev"]) for r in shown if "dev" in r}
        for link, found in wanted:
            subnet = str(found.network)
            if found.version == version and (subnet, link.bridge) not in there:
                how = f"scope link src {found.ip}" if version == 4 else "metric 256"  # as the kernel itself
                yield f"there was no route to {subnet}", f"route replace {subnet} dev {link.bridge} proto kernel {how}"


def _settings(links: Collection[Link]) -> list[Difference]:
    wanted = {"net/ipv4/ip_forward": 1} if links else {}
    for link in links:
        wanted[f"net/ipv4/conf/{link.bridge}/rp_filter"] = 2  # answers may come through another of our bridges
        if link.ingress:
            wanted[f"net/ipv4/conf/{link.bridge}/route_localnet"] = 1  # 127.0.0.1:port; the ruleset guards it
    turned_on = any(link.ipv6 for link in links) and ipv6.forward()
    found = [Difference(SETTINGS, "net/ipv6/conf/all/forwarding was 0")] if turned_on else []
    return found + [
        Difference(SETTINGS, f"{name} was {before}")
        for name, value in wanted.items()
        if (before := _set(Path("/proc/sys") / name, str(value))) is not None
    ]


def _set(path: Path, value: str) -> str | None:
    """What it was before, if that was something else."""
    before = path.read_text().strip()
    if before == value:
        return None
    path.write_text(value)
    return before


def _batch(commands: list[str]) -> None:
    if commands:
        run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")


def _json(*command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*command) or "[]")
    return [item for item in found if item]
