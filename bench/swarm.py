"""`make bench`: ours and Docker Swarm on the same engines, in one run. `make bench BENCH=--quick` is one round.

Leaves build/bench/swarm.json and build/bench/swarm.png. What the figures mean: docs/performance.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import footprint
import measure
import picture
from dockerapi import DOCKER, docker, get
from peers import NotWithin, Ours, Peer, Swarm

from afterswarm import __version__
from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import REGISTRY, LabHost
from afterswarm.lab.lab import Lab

BUILD = Path(__file__).parent.parent / "build" / "bench"
IMAGE = f"{REGISTRY}/bench:1"
CALM = 1.0  # load average below which nothing else runs that matters
SETTLE = 5.0  # seconds from the last deploy to looking at memory and idling
PARTS = ("deploy", "scale", "idle", "cut", "worker", "floor")
BEGUN = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGUN:6.1f}s {text}", flush=True)


class Bench:
    """The lab, and what was measured on it: side -> measure -> one value a round."""

    def __init__(self, lab: Lab, parts: set[str], idle_seconds: float) -> None:
        self.lab, self.parts, self.idle_seconds = lab, parts, idle_seconds
        self.seen: dict[str, dict[str, list[Any]]] = {}
        self.failures: list[str] = []

    @property
    def hosts(self) -> list[LabHost]:
        return self.lab.read().hosts

    def put(self, side: str, what: str, work: Callable[[], Any]) -> Any:
        value = work()
        self.seen.setdefault(side, {}).setdefault(what, []).append(value)
        shown = f"{value:.2f} s" if isinstance(value, float) else json.dumps(value)
        say(f"  {what}: {shown}")
        return value

    def boot(self) -> None:
        """All hosts anew, so that nobody's memory is the one before's."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda h: self.lab.kill(h.name), self.hosts))
            list(pool.map(lambda h: self.lab.start(h.name), self.hosts))

    def round(self, peer: Peer, *, idle: bool) -> None:
        """Three managers: all that is measured in seconds."""
        name = peer.name
        say(f"{name}, three managers")
        self.boot()
        self.put(name, "dockerd_fresh", lambda: self.memory("dockerd"))
        try:
            self.put(name, "form", lambda: peer.form(3))
            self.put(name, "deploy", lambda: measure.deploy(peer, IMAGE))
            if idle:
                self.rest(peer, "managers")
            if "scale" in self.parts:
                self.scale(peer)
            if "cut" in self.parts:
                leader = peer.leader()
                for what, took in measure.power_cut(peer, leader).items():
                    self.put(name, f"cut_{what}", lambda took=took: took)
                self.put(name, "cut_back", lambda: measure.back(peer, leader, 3))
            self.put(name, "remove", lambda: measure.remove(peer))
        except (NotWithin, OSError) as failed:
            self.failures.append(f"{name}: {failed}")
            say(f"  FAILED: {failed}")
        peer.leave()

    def scale(self, peer: Peer) -> None:
        before = [footprint.of(h) for h in self.hosts]
        self.put(peer.name, "scale_up", lambda: measure.scale(peer, measure.MANY))
        self.put(peer.name, "scale_up_cpu", lambda: self.spent(before))
        self.put(peer.name, "scale_down", lambda: measure.scale(peer, 1))

    def worker(self, peer: Peer) -> None:
        """One manager and two workers: for what a worker needs."""
        say(f"{peer.name}, one manager and two workers")
        self.boot()
        try:
            peer.form(1)
            measure.deploy(peer, IMAGE)
            self.rest(peer, "workers")
            measure.remove(peer)
        except (NotWithin, OSError) as failed:
            self.failures.append(f"{peer.name}, workers: {failed}")
            say(f"  FAILED: {failed}")
        peer.leave()

    def rest(self, peer: Peer, who: str) -> None:
        """Memory and processor time when nothing happens; one list entry per host."""
        time.sleep(SETTLE)
        self.put(peer.name, f"{who}_memory", self.memory)
        say(f"  idle for {self.idle_seconds:.0f} s …")
        self.put(peer.name, f"{who}_idle", lambda: footprint.idle(self.hosts, self.idle_seconds))

    def memory(self, only: str = "") -> list[dict[str, list[float]]]:
        """Per host: kind of process -> [RSS, PSS] in MiB."""
        return [
            {k: [round(u.rss, 1), round(u.pss, 1)] for k, u in footprint.of(h).items() if not only or k == only}
            for h in self.hosts
        ]

    def spent(self, before: list[dict[str, footprint.Use]]) -> dict[str, float]:
        """Processor seconds since, all hosts together."""
        total: dict[str, float] = {}
        for was, host in zip(before, self.hosts, strict=True):
            for kind, use in footprint.of(host).items():
                total[kind] = round(total.get(kind, 0.0) + use.cpu - was.get(kind, footprint.Use()).cpu, 2)
        return total

    def floor(self) -> None:
        """What creating and starting containers costs without any orchestrator."""
        say("the engines alone")
        self.put("engines", "floor_10", lambda: measure.floor(self.hosts, IMAGE, 10))
        self.put("engines", "floor_29", lambda: measure.floor(self.hosts, IMAGE, measure.MANY - 1))


def push_image(hosts: list[LabHost]) -> None:
    """An image of one static busybox, on every host."""
    pack = io.BytesIO()
    with tarfile.open(fileobj=pack, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        link = tarfile.TarInfo("bin/sleep")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    first = hosts[0].engine_socket
    argv = [DOCKER, "-H", f"unix://{first}", "import", "--change", 'CMD ["sleep", "1000000"]', "-", IMAGE]
    subprocess.run(argv, input=pack.getvalue(), check=True, capture_output=True)
    docker(first, "push", IMAGE)
    for host in hosts:
        docker(host.engine_socket, "pull", IMAGE)


def versions(hosts: list[LabHost]) -> dict[str, Any]:
    server = get(hosts[0].engine_socket, "/version")
    etcd = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.split()
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "afterswarm": f"{__version__} ({commit.stdout.strip()})",
        "engine": server["Version"],
        "client": docker(hosts[0].engine_socket, "version", "--format", "{{.Client.Version}}"),
        "etcd": etcd[2],
        "kernel": os.uname().release,
        "ipvs": Path("/proc/net/ip_vs").exists(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory["MemTotal"].split()[0]) / 1024**2, 1),
    }


def calm() -> float:
    """Wait up to a minute for others on this machine to finish; returns the load that is left."""
    ends = time.monotonic() + 60
    while (load := os.getloadavg()[0]) >= CALM and time.monotonic() < ends:
        say(f"waiting for a calm machine: load {load:.2f}")
        time.sleep(4)
    return load


def main() -> int:
    """Run it all; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--quick", action="store_true", help="one round, ten seconds of idling")
    options.add_argument("--only", choices=("ours", "swarm"), help="one side")
    options.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    options.add_argument("--busy", action="store_true", help="do not wait for a calm machine")
    args = options.parse_args()
    rounds = 1 if args.quick else args.rounds
    load = os.getloadavg()[0] if args.busy else calm()
    lab = Lab(out=say)
    if lab.read().hosts:
        print("a lab is up already; `afterswarm lab down` removes it", file=sys.stderr)
        return 1
    bench = Bench(lab, set(args.parts.split(",")), 10.0 if args.quick else 30.0)
    peers = [p(lab) for p in {"ours": (Ours,), "swarm": (Swarm,), None: (Swarm, Ours)}[args.only]]
    on: dict[str, Any] = {}
    try:
        hosts = lab.up(3)
        push_image(hosts)
        on = versions(hosts)
        say(f"on {json.dumps(on)}, load {load:.2f}")
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            if "floor" in bench.parts:
                bench.floor()
            for peer in peers:
                bench.round(peer, idle="idle" in bench.parts and number == 1)
        if "worker" in bench.parts:
            for peer in peers:
                bench.worker(peer)
    except (LabError, NotWithin, OSError) as trouble:
        bench.failures.append(str(trouble))
        say(f"FAILED: {trouble}")
    finally:
        lab.down()
    if not on:
        return 1
    report(on, load, rounds, bench)
    return 1 if bench.failures else 0


def report(on: dict[str, Any], load: float, rounds: int, bench: Bench) -> None:
    """Write it all down, and say it."""
    found: dict[str, Any] = {"on": on, "load": load, "rounds": rounds, "failures": bench.failures, "seen": bench.seen}
    found["medians"] = {side: picture.medians(kept) for side, kept in bench.seen.items()}
    found["footprints"] = picture.footprints(bench.seen)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "swarm.json").write_text(json.dumps(found, indent=1) + "\n")
    (BUILD / "swarm.md").write_text(picture.table(found))
    print("\n" + picture.table(found), flush=True)
    say(f"figures: {BUILD / 'swarm.json'}")
    say(f"picture: {picture.draw(BUILD / 'swarm.png', found)}")
    for failure in bench.failures:
        say(f"FAILED: {failure}")


if __name__ == "__main__":
    sys.exit(main())
