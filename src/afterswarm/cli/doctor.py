"""`afterswarm doctor`: is everything here that a swarm needs? One line each, and what to do where not."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

from afterswarm.agent.beats.beats import PORT as BEATS
from afterswarm.cli import probes
from afterswarm.cli.probes import NOBODY, OPEN, SILENT
from afterswarm.core.dataplane.wireguard import PORT as WIREGUARD
from afterswarm.model.enrolment import PORT

STORE = 2380  # etcd, between managers
VXLAN = 4789
DNS = 53  # our resolver listens on every gateway address
OLDEST = (20, 10)
IDLE = 3600  # seconds
STALE = 20.0  # seconds; all of the network is looked at more often
APART = 2.0  # seconds that two clocks may differ by


class Mark(StrEnum):
    """NOTE: it cannot be told, or does not matter yet."""

    OK = "ok"
    FAIL = "FAIL"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """`advice` is what to do."""

    mark: Mark
    what: str
    advice: str = ""


def judged(good: bool, what: str, advice: str = "") -> Finding:  # noqa: FBT001 - it is what was found
    """OK, or FAIL with advice."""
    return Finding(Mark.OK, what) if good else Finding(Mark.FAIL, what, advice)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `doctor` onto the command line."""
    doctor = commands.add_parser("doctor", help="is everything here that a swarm needs? One line each")
    doctor.add_argument("--peer", metavar="ADDRESS", help="also: are the ports open towards this host?")
    doctor.add_argument("--listen", default="/run/afterswarm/docker.sock", metavar="PATH", help="our daemon's socket")
    doctor.add_argument("--engine", default="/var/run/docker.sock", metavar="PATH", help="the engine's socket")
    doctor.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; returns 1 when one of them is bad."""
    if not probes.is_root():
        print("afterswarm doctor: run it as root (sudo afterswarm doctor)", file=sys.stderr)
        return 1
    bad = 0
    listen, engine_socket = args.listen.removeprefix("unix://"), args.engine.removeprefix("unix://")
    info = _swarm(listen)
    about_peer = peer(args.peer, listen) if args.peer else ()
    for finding in (*kernel(), *engine(engine_socket), *daemon(info, listen), *floats(listen), *about_peer):
        print(
            f"{finding.mark:<4}  {finding.what}" + (f"\n      {finding.advice}" if finding.advice else ""), flush=True
        )
        bad += finding.mark is Mark.FAIL
    return 1 if bad else 0


def kernel() -> Iterator[Finding]:
    """What this host's kernel and packages lack."""
    missing = probes.missing_programs()
    if missing:
        advice = f"apt-get install --no-install-recommends {' '.join(missing)}"
        yield Finding(Mark.FAIL, "programs are missing", advice)
    else:
        yield Finding(Mark.OK, f"programs: {', '.join(probes.PROGRAMS)}")
    for feature in probes.KERNEL:
        lack = probes.kernel_lacks(feature)
        advice = "load or build the kernel's module (modprobe vxlan br_netfilter nf_conntrack nf_tables)"
        yield judged(not lack, f"kernel: {feature}" + (f" ({lack})" if lack else ""), advice)
    lack = probes.encryption_lacks()
    if lack:
        advice = "only networks with --opt encrypted need it: apt-get install wireguard-go wireguard-tools"
        yield Finding(Mark.NOTE, f"encryption: {lack}", advice)
    else:
        yield Finding(Mark.OK, "encryption: WireGuard")
    yield from idle(probes.remembered())


def idle(seconds: int | None) -> Iterator[Finding]:
    """For how long the kernel remembers a connection that says nothing: a published port forgets it with the kernel."""
    if seconds is not None:
        advice = f"sysctl -w {probes.REMEMBERED}=432000, which is usual, and remove what lowers it from /etc/sysctl.d"
        yield judged(seconds >= IDLE, f"kernel: idle connections are remembered for {seconds / 60:,.0f} min", advice)


def engine(path: str) -> Iterator[Finding]:
    """Whether the engine of this host can be used."""
    try:
        info = probes.get(path, "/info")
    except OSError as error:
        advice = "install one (apt-get install docker.io), start it (systemctl start docker), or say where: --engine"
        yield Finding(Mark.FAIL, f"engine: no answer at {path} ({error})", advice)
        return
    version = str(info.get("ServerVersion", ""))
    numbers = tuple(int(n) for n in version.split("+", maxsplit=1)[0].split(".")[:2] if n.isdigit())
    yield judged(not numbers or numbers >= OLDEST, f"engine: Docker {version}", "20.10 or later is needed: upgrade it")
    state = (info.get("Swarm") or {}).get("LocalNodeState") or "inactive"
    free = state == "inactive"
    advice = f"take it out: docker -H unix://{path} swarm leave --force (what that swarm runs here will stop)"
    yield judged(
        free, "engine: not in swarm mode itself" if free else f"engine: in swarm mode itself ({state})", advice
    )


def _swarm(listen: str) -> dict[str, Any] | None:
    try:
        return dict(probes.get(listen, "/info").get("Swarm") or {})
    except OSError:
        return None


def daemon(swarm: dict[str, Any] | None, listen: str) -> Iterator[Finding]:
    """Whether our daemon runs, and what it thinks of itself; where not, whether its ports are free."""
    if swarm is not None:
        state, error = swarm.get("LocalNodeState") or "inactive", swarm.get("Error") or ""
        good = state in {"active", "inactive"} and not error
        text = f"daemon: running, swarm {state}" + (f": {error}" if error else "")
        yield judged(good, text, "see its log: journalctl -u afterswarm")
        yield from network(_standing(listen))
        return
    advice = "start it: systemctl start afterswarm, or afterswarm daemon"
    yield Finding(Mark.NOTE, f"daemon: not running ({listen} does not answer)", advice)
    tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
    for port, kind in {PORT: tcp, STORE: tcp, VXLAN: udp, BEATS: udp, WIREGUARD: udp}.items():
        taken = probes.bound_by_others(port, kind)
        name = f"port {port}/{'tcp' if kind == tcp else 'udp'}"
        advice = f"see who has it: ss -lnp 'sport = :{port}'"
        yield judged(not taken, f"{name} is {'taken by another program' if taken else 'free'}", advice)


def network(standing: dict[str, Any] | None) -> Iterator[Finding]:
    """Whether this host's kernel holds what the swarm wants of it, and what had to be repaired for that."""
    if standing is None:
        return
    for what, why in sorted(standing["Failing"].items()):
        advice = "it is tried again every few seconds; journalctl -u afterswarm says since when"
        yield Finding(Mark.FAIL, f"network: {what}: {why}", advice)
    looked, age = bool(standing["Looked"]), standing["Now"] - standing["Looked"]
    if not standing["Failing"]:
        text = (
            f"network: the kernel holds what is wanted, as of {age:.0f} s ago"
            if looked
            else "network: not looked at yet"
        )
        advice = "is a manager reachable? docker info; journalctl -u afterswarm"
        yield judged(looked and age < STALE, text, advice)
    count = sum(standing["Repairs"].values())
    if not count:
        yield Finding(Mark.OK, "network: nothing had to be repaired since the daemon's start")
        return
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(standing["Repairs"].items()))
    ago = f"{standing['Now'] - standing['LastAt']:.0f} s ago"
    advice = "something else on this host changes what is the swarm's: another firewall manager, or a script?"
    yield Finding(
        Mark.NOTE, f"network: repaired since the daemon's start: {kinds}; last {ago}: {standing['Last']}", advice
    )


def _standing(listen: str) -> dict[str, Any] | None:
    """As the daemon says; `None`: it is in no swarm, or from before it could say."""
    try:
        found: dict[str, Any] | None = probes.get(listen, "/afterswarm/standing")
    except OSError:
        return None
    return found


def floats(listen: str) -> Iterator[Finding]:
    """Floating addresses: who has each, and whether this host could."""
    try:
        known = probes.get(listen, "/afterswarm/addresses")
    except OSError:
        return
    for found in known:
        text = f"floating address {found['Address']}: {found['Here']} here"
        text += f", held by {found['Holder']}" if found["Holder"] else ""
        good = found["Here"] in {"held", "ready"}
        yield Finding(Mark.OK if good else Mark.NOTE, text, "" if good else "other hosts may hold it all the same")


def peer(address: str, listen: str) -> Iterator[Finding]:
    """What stands between this host and another one. The ports are those that the running daemon uses, if one does."""
    try:
        known = {p["Address"]: p for p in probes.get(listen, "/afterswarm/peers")}
    except OSError:
        known = {}
    ports = (_standing(listen) or {}).get("Ports", {})
    tunnels = ports.get("tunnels", VXLAN)
    member = known.get(address)
    managers = any(p["Self"] and p["Manager"] for p in known.values()) and bool(member and member["Manager"])
    port = member.get("Port", PORT) if member else PORT
    yield control(address, port, "control", probes.tcp(address, port), expected=member is not None)
    yield control(address, STORE, "etcd, between managers", probes.tcp(address, STORE), expected=managers)
    yield beats(address, member, probes.udp(address, BEATS) if member is None else SILENT)
    gateway = member["Gateway"] if member and not member["Self"] else ""
    probed = probes.tcp(gateway, DNS) if gateway else probes.udp(address, tunnels)
    yield tunnel(address, gateway, probed, port=tunnels, own=bool(member and member["Self"]))
    yield encryption(address, probes.udp(address, WIREGUARD))
    yield clock(address, probes.clock_offset(address, port))


def control(address: str, port: int, what: str, probed: str, *, expected: bool) -> Finding:
    """A TCP port. `expected`: the other host should be listening there by now."""
    name = f"port {port}/tcp ({what}) of {address}"
    if probed == OPEN:
        return Finding(Mark.OK, f"{name}: open")
    if probed == SILENT:
        return Finding(
            Mark.FAIL, f"{name}: no answer", f"open {port}/tcp in the firewalls between the hosts, both ways"
        )
    if expected:
        advice = "its daemon should listen there: systemctl status afterswarm on that host"
        return Finding(Mark.FAIL, f"{name}: nobody listens", advice)
    return Finding(Mark.OK, f"{name}: reachable; nobody listens there yet")


def beats(address: str, member: dict[str, Any] | None, probed: str) -> Finding:
    """By what the daemon hears where the other host is a node, else by asking the port."""
    name = f"port {BEATS}/udp (beats) of {address}"
    advice = f"open {BEATS}/udp in the firewalls between the hosts, both ways"
    if member is None or member["Self"]:
        good = probed == NOBODY or member is not None
        return judged(good, f"{name}: {'reachable' if good else 'no answer'}", advice)
    age = member["HeardSecondsAgo"]
    if age is None:
        return Finding(Mark.FAIL, f"{name}: never heard", advice)
    return judged(age < APART, f"{name}: heard {age:.1f} s ago", advice)


def tunnel(address: str, gateway: str, probed: str, *, own: bool, port: int = VXLAN) -> Finding:
    """Through the tunnel itself (`gateway` is the other host's address in it) where it is a node, else the port."""
    name = f"port {port}/udp (overlay networks) of {address}"
    advice = f"open {port}/udp in the firewalls between the hosts, both ways"
    if gateway:
        through = probed != SILENT
        says = "answers" if through else "does not answer"
        return judged(through, f"{name}: {gateway} {says} through the tunnel", advice)
    if probed == NOBODY or own:
        return Finding(Mark.OK, f"{name}: reachable")
    why = "no answer: an open port and a closed firewall can be told apart only once both hosts are nodes"
    return Finding(Mark.NOTE, f"{name}: {why}", advice)


def encryption(address: str, probed: str) -> Finding:
    """WireGuard answers nobody whom it does not know, so silence says little."""
    name = f"port {WIREGUARD}/udp (encrypted networks) of {address}"
    if probed == NOBODY:
        return Finding(Mark.OK, f"{name}: reachable; nothing is encrypted there now")
    why = "no answer: WireGuard, or a closed firewall"
    return Finding(Mark.NOTE, f"{name}: {why}", f"if networks are encrypted, open {WIREGUARD}/udp between the hosts")


def clock(address: str, offset: float | None) -> Finding:
    """Certificates and deadlines need clocks that agree roughly."""
    if offset is None:
        why = f"clock: {address} does not say what time it has"
        return Finding(Mark.NOTE, why, "its daemon says so once it is in a swarm")
    advice = "let both hosts keep time by NTP: apt-get install systemd-timesyncd (or chrony)"
    return judged(abs(offset) <= APART, f"clock: {address} is {offset:+.2f} s from ours", advice)
