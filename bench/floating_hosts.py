"""How long a floating address is away on whole hosts: after power cuts of the host that has it, and of the leader.

    python bench/floating_hosts.py [--rounds 10] [--json build/bench/floating_hosts.json]

Brings up a lab of its own: three managers, each with its engine and its member of the store. A client on their wire
dials a closed port of the address every 10 ms: that a host refuses is an answer. `away` is the longest time without
one, in seconds. For a cut of the leader, the address is led to it first by draining the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from failover import Swarm, docker, until
from floating import Client

from afterswarm.adapters.programs import run
from afterswarm.lab.hosts import LabHost
from afterswarm.lab.lab import Lab
from afterswarm.lab.power import inside

ADDRESS = "10.77.0.100"
REST = 8.0  # seconds of quiet before each cut: a manager that was away votes after 5
WATCHED = 4.0  # seconds after a cut


def holder(hosts: list[LabHost]) -> LabHost | None:
    """Who alone has it on an interface."""
    show = ["ip", "-4", "-o", "address", "show"]
    has = [h for h in hosts if f" {ADDRESS}/" in run(*inside(h, show))]
    return has[0] if len(has) == 1 else None


def lead_to_leader(swarm: Swarm) -> None:
    """Drain the others until the leader has the address."""
    leader = swarm.leader()
    others = [h.name for h in swarm.hosts if h.name != leader]
    for name in others:
        docker(swarm.hosts[0], "node", "update", "--availability", "drain", name)
    until("the leader has it", lambda: (held := holder(swarm.hosts)) is not None and held.name == leader)
    for name in others:
        docker(swarm.hosts[0], "node", "update", "--availability", "active", name)


def round_of(swarm: Swarm, kind: str) -> dict[str, Any]:
    if kind == "leader":
        lead_to_leader(swarm)
    until("one host has it", lambda: holder(swarm.hosts))
    time.sleep(REST)
    victim = holder(swarm.hosts)
    assert victim
    led = swarm.leader() == victim.name
    client = Client(address=ADDRESS)
    time.sleep(0.5)
    cut = time.monotonic()
    swarm.lab.kill(victim.name)
    time.sleep(WATCHED)
    moments = [moment for moment in client.end() if moment > cut - 0.3]
    away, after = max((b - a, b) for a, b in pairwise([*moments, cut + WATCHED]))
    swarm.hosts = [swarm.lab.start(h.name) if h.index == victim.index else h for h in swarm.hosts]
    swarm.whole()
    return {"kind": kind, "victim": victim.name, "led": led, "away": round(away, 3), "back": round(after - cut, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description="how long a floating address is away on whole hosts")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, default=Path("build/bench/floating_hosts.json"))
    args = parser.parse_args()
    lab = Lab()
    if lab.read().hosts:
        raise SystemExit("a lab is up already; `afterswarm lab down` removes it")
    rows: list[dict[str, Any]] = []
    try:
        swarm = Swarm(lab, lab.up(3))
        ours = ["-m", "afterswarm.cli.main", "address", "--listen", swarm.hosts[0].socket, "add", f"{ADDRESS}/24"]
        run(*inside(swarm.hosts[0], [sys.executable, *ours]))
        for kind in ("holder", "leader"):
            for _ in range(args.rounds):
                rows.append(round_of(swarm, kind))
                print(json.dumps(rows[-1]), flush=True)
    finally:
        lab.down()
    for kind in ("holder", "leader"):
        seconds = [row["away"] for row in rows if row["kind"] == kind]
        print(f"{kind}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, {len(seconds)} cuts")
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"machine": machine, "cuts": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
