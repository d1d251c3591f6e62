"""How long a power cut lasts: from the cut to "Down", and to all tasks running elsewhere.

    python bench/failover.py [--rounds 5] [--kinds worker manager leader] [--json build/bench/failover.json]

Brings up a lab of its own (three managers, one worker), and for each round: a fresh service spread over all hosts,
images present; the power of one host is cut; a surviving manager is asked every 50 ms. Prints a table of the seconds
and their median, and how they fall into the steps of a recovery, as the surviving managers' logs tell them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import dockerapi

from afterswarm.adapters.etcd.server import CLIENT_PORT
from afterswarm.lab.hosts import REGISTRY, LabHost
from afterswarm.lab.lab import Lab

IMAGE = f"{REGISTRY}/bench:1"
KINDS = ("worker", "manager", "leader")
PATIENCE = 60.0  # seconds for anything
LOOK = 0.05
RESTS = 3.0  # seconds of quiet before each cut
STEPS = {  # what a manager's or a host's log says of each step of a recovery
    "silent": re.compile(r"silence: {victim} is silent"),
    "took the lead": re.compile(r"this manager leads"),
    "verdict": re.compile(r"node \w+ is down"),
    "replaced": re.compile(r"enforce: "),
    "placed": re.compile(r"schedule: "),
}


def get(host: LabHost, target: str) -> Any:
    """The JSON that a host's daemon answers. Raises `OSError` when it does not."""
    return dockerapi.get(host.socket, target, 2.0)


def docker(host: LabHost, *argv: str, engine: bool = False, stdin: bytes | None = None) -> str:
    path = host.engine_socket if engine else host.socket
    try:
        return dockerapi.docker(path, *argv, timeout=PATIENCE, stdin=stdin)
    except OSError as refused:
        raise SystemExit(f"on {host.name}: {refused}") from refused


def until(what: str, good: Callable[[], object], *, since: float | None = None) -> float:
    """Seconds since `since` (or now) when `good` came true; what cannot be asked is not yet good."""
    begun = time.monotonic() if since is None else since
    while time.monotonic() - begun < PATIENCE:
        try:
            if good():
                return time.monotonic() - begun
        except OSError:
            pass
        time.sleep(LOOK)
    raise SystemExit(f"{what}: not within {PATIENCE:.0f} s")


class Swarm:
    """The lab's hosts as one swarm: three managers and a worker."""

    def __init__(self, lab: Lab, hosts: list[LabHost]) -> None:
        self.lab, self.hosts = lab, hosts
        first = hosts[0]
        docker(first, "swarm", "init", "--advertise-addr", first.address)
        for host in hosts[1:]:
            role = "manager" if host.index <= 3 else "worker"
            token = docker(first, "swarm", "join-token", "-q", role)
            docker(host, "swarm", "join", "--token", token, f"{first.address}:2377")
        self.whole()
        self.service = 0

    def whole(self) -> None:
        """Wait until every node is ready and every manager reachable."""

        def good() -> bool:
            nodes = get(self.hosts[0], "/nodes")
            ready = [n["Status"]["State"] == "ready" for n in nodes]
            reachable = [n["ManagerStatus"]["Reachability"] == "reachable" for n in nodes if n.get("ManagerStatus")]
            return all(ready) and len(ready) == len(self.hosts) and reachable == [True] * 3

        until("all nodes ready", good)

    def leader(self) -> str:
        nodes = get(self.hosts[0], "/nodes")
        return str(next(n["Description"]["Hostname"] for n in nodes if (n.get("ManagerStatus") or {}).get("Leader")))

    def victim(self, kind: str, round_: int) -> LabHost:
        leader = self.leader()
        if kind == "leader":
            return next(h for h in self.hosts if h.name == leader)
        if kind == "worker":
            return self.hosts[3]
        followers = [h for h in self.hosts[:3] if h.name != leader]
        return followers[round_ % len(followers)]

    def spread(self, replicas: int) -> str:
        """A fresh service over all hosts, in a network and with a published port."""
        self.service += 1
        name = f"bench-{self.service}"
        argv = ["service", "create", "--quiet", "--name", name, "--replicas", str(replicas), "--network", "bench"]
        docker(self.hosts[0], *argv, "--publish", "8080:80", "--stop-grace-period", "1s", IMAGE)
        return name

    def round(self, kind: str, round_: int, replicas: int) -> dict[str, Any]:
        name = self.spread(replicas)
        victim = self.victim(kind, round_)
        etcd_leader = leads_store(victim) if kind != "worker" else False
        witness = next(h for h in self.hosts[:3] if h.index != victim.index)
        [service_id] = [s["ID"] for s in get(witness, "/services") if s["Spec"]["Name"] == name]
        node_id = next(n["ID"] for n in get(witness, "/nodes") if n["Description"]["Hostname"] == victim.name)

        def elsewhere() -> bool:
            tasks = [t for t in get(witness, "/tasks") if t["ServiceID"] == service_id]
            running = [t for t in tasks if t["Status"]["State"] == t["DesiredState"] == "running"]
            return len(running) == replicas and all(t["NodeID"] != node_id for t in running)

        def down() -> bool:
            return any(n["ID"] == node_id and n["Status"]["State"] == "down" for n in get(witness, "/nodes"))

        time.sleep(RESTS)
        cut_at = time.time()
        begun = time.monotonic()
        self.lab.kill(victim.name)
        found: dict[str, Any] = {"kind": kind, "victim": victim.name, "led_store": etcd_leader}
        found["down"] = round(until("the node is down", down, since=begun), 2)
        found["recovered"] = round(until("its tasks run elsewhere", elsewhere, since=begun), 2)
        found["steps"] = self.steps(victim, cut_at)
        self.hosts = [self.lab.start(h.name) if h.index == victim.index else h for h in self.hosts]
        found["returned"] = round(until("the node is ready", lambda: not down()), 2)
        self.whole()
        docker(self.hosts[0], "service", "rm", name)
        until("the service is gone", lambda: all(t["ServiceID"] != service_id for t in get(self.hosts[0], "/tasks")))
        return found

    def steps(self, victim: LabHost, cut_at: float) -> dict[str, float]:
        """When each step was first taken by any survivor, in seconds since the cut."""
        found: dict[str, float] = {}
        for host in self.hosts:
            if host.index == victim.index:
                continue
            for line in (Path(host.disk) / "log" / "afterswarm.log").read_text(errors="replace").splitlines()[-200:]:
                stamp, _, text = line.partition(" INFO ")
                try:
                    at = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() - cut_at
                except ValueError:
                    continue
                for step, pattern in STEPS.items():
                    if at >= 0 and re.search(pattern.pattern.replace("{victim}", victim.name), text):
                        found[step] = round(min(at, found.get(step, at)), 2)
        return dict(sorted(found.items(), key=lambda item: item[1]))


ASK_STORE = """
import json, ssl, urllib.request
i = "/var/lib/afterswarm/identity/"
c = ssl.create_default_context(cafile=i + "ca.pem"); c.load_cert_chain(i + "cert.pem", i + "key.pem")
r = urllib.request.Request("https://127.0.0.1:%d/v3/maintenance/status", b"{}", {"Content-Type": "application/json"})
s = json.load(urllib.request.urlopen(r, context=c, timeout=5))
print(s["leader"] == s["header"]["member_id"])
"""


def leads_store(host: LabHost) -> bool:
    """Whether this host's member of the store leads it: losing it costs an election besides."""
    from afterswarm.lab.power import inside  # noqa: PLC0415

    argv = inside(host, [sys.executable, "-c", ASK_STORE % CLIENT_PORT])
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == "True"


def push_image(host: LabHost, hosts: list[LabHost]) -> None:
    """A small image that sleeps until it is told to end, on every host."""
    import io  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    busybox = shutil.which("busybox")
    if not busybox:
        raise SystemExit("busybox is missing: apt-get install --no-install-recommends busybox-static")
    pack = io.BytesIO()
    with tarfile.open(fileobj=pack, mode="w") as tar:
        tar.add(os.path.realpath(busybox), "bin/busybox")
        shell = tarfile.TarInfo("bin/sh")
        shell.type, shell.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(shell)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    change = 'CMD ["/bin/busybox", "sh", "-c", "trap exit TERM; while :; do /bin/busybox sleep 1; done"]'
    docker(host, "import", "--change", change, "-", IMAGE, engine=True, stdin=pack.getvalue())
    docker(host, "push", IMAGE, engine=True)
    for other in hosts:
        docker(other, "pull", "-q", IMAGE, engine=True)


def shown(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians by kind, printed as a table."""
    summary: dict[str, Any] = {}
    print(f"\n{'power cut of':<14}{'down (s)':>10}{'elsewhere (s)':>15}   all rounds, seconds to elsewhere")
    for kind in KINDS:
        mine = [r for r in rounds if r["kind"] == kind]
        if mine:
            summary[kind] = {
                "rounds": len(mine),
                **{f: round(statistics.median(r[f] for r in mine), 2) for f in ("down", "recovered", "returned")},
            }
            each = ", ".join(f"{r['recovered']:.2f}" for r in mine)
            print(f"{kind:<14}{summary[kind]['down']:>10.2f}{summary[kind]['recovered']:>15.2f}   {each}")
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds from a power cut to tasks running elsewhere")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("build/bench/failover.json"))
    args = parser.parse_args()
    lab = Lab()
    if lab.read().hosts:
        raise SystemExit("a lab is up already; `afterswarm lab down` removes it")
    rounds: list[dict[str, Any]] = []
    try:
        hosts = lab.up(4)
        push_image(hosts[0], hosts)
        swarm = Swarm(lab, hosts)
        docker(hosts[0], "network", "create", "--driver", "overlay", "bench")
        for round_ in range(args.rounds):
            for kind in args.kinds:
                rounds.append(swarm.round(kind, round_, args.replicas))
                print(json.dumps(rounds[-1]), flush=True)
    finally:
        lab.down()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}
    args.json.write_text(json.dumps({"machine": machine, "median": shown(rounds), "rounds": rounds}, indent=2) + "\n")
    print(f"\n{args.json}")


if __name__ == "__main__":
    main()
