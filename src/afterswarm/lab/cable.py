"""The lab's network: one bridge, one cable a host, a way out. Only things named `asw-…` are touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

from afterswarm.lab.hosts import BRIDGE, GATEWAY, GATEWAY6, PREFIX, LabHost

TABLE = "afterswarm-lab"
NAMED = Path("/run/netns")  # where `ip netns` keeps them
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class LabError(Exception):
    """Something the lab needs is not there; the message says what and the way out."""


def run(*argv: str, check: bool = True, stdin: str | None = None) -> str:
    """Run a program, return what it printed; `LabError` with its words when it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def lay_bridge() -> bool:
    """Make the bridge and the way out; returns whether the machine forwarded packets before."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        if f"{PREFIX}." in run("ip", "-4", "-o", "addr", "show"):
            raise LabError(f"{PREFIX}.0/24 is in use on this machine; the lab needs it for its hosts")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        if has_ipv6():
            run("ip", "addr", "add", f"{GATEWAY6}/64", "dev", BRIDGE, "nodad")
        run("ip", "link", "set", BRIDGE, "up")
    forwarded = FORWARD.read_text().strip() == "1"
    FORWARD.write_text("1\n")
    rules = f"""
        add table ip {TABLE}
        delete table ip {TABLE}
        table ip {TABLE} {{
          chain out {{ type nat hook postrouting priority 100; policy accept;
            ip saddr {PREFIX}.0/24 oifname != "{BRIDGE}" masquerade
          }}
        }}"""
    run("nft", "-f", "-", stdin=rules)
    return forwarded


def has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()


def has_named_namespaces() -> bool:
    """Whether `ip netns` has been used since the machine was booted: its first use leaves a mount."""
    return f" {NAMED} " in Path("/proc/self/mountinfo").read_text()


def forget_named_namespaces() -> None:
    """Take that mount away, unless somebody else has namespaces there now."""
    if has_named_namespaces() and not any(NAMED.iterdir()):
        run("umount", str(NAMED), check=False)
        NAMED.rmdir()


def plug(host: LabHost) -> None:
    """Make the host's network namespace and its cable."""
    if not (NAMED / host.netns).exists():
        run("ip", "netns", "add", host.netns)
    if not Path(f"/sys/class/net/{host.link}").exists():
        run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.netns)
    run("ip", "link", "set", host.link, "master", BRIDGE, "up")
    inside = ("ip", "-n", host.netns)
    run(*inside, "addr", "replace", f"{host.address}/24", "dev", "eth0")
    if has_ipv6():
        run(*inside, "addr", "replace", f"{host.address6}/64", "dev", "eth0", "nodad")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "route", "replace", "default", "via", GATEWAY)


def power_off(host: LabHost) -> None:
    run("ip", "link", "set", host.link, "down", check=False)


def cut(host: LabHost) -> None:
    """Nothing passes in either direction; the carrier stays, as when a switch fails."""
    run("bridge", "link", "set", "dev", host.link, "state", "0")


def heal(host: LabHost) -> None:
    run("bridge", "link", "set", "dev", host.link, "state", "3")


def unplug(host: LabHost) -> None:
    run("ip", "link", "del", host.link, check=False)
    run("ip", "netns", "del", host.netns, check=False)


def remove_bridge(*, forwarded: bool) -> None:
    run("ip", "link", "del", BRIDGE, check=False)
    run("nft", "delete", "table", "ip", TABLE, check=False)
    if not forwarded:
        FORWARD.write_text("0\n")
