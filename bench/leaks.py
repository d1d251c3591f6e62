"""What a stack leaves behind that is deployed and removed again and again, on real hosts with real engines.

    python bench/leaks.py [--rounds 100] [--stacks 1] [--replicas 2] [--seconds 3600] [--json build/bench/leaks.json]

Brings up a lab of its own of three managers. Each round is `docker stack deploy` of two services (of so many tasks, and
of one), a network, a published port and a port of the dynamic range, until all of it runs and answers; then
`docker stack rm`, until the engines have nothing of it. What every host holds is listed after the first round and after
the last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dockerapi
import footprint
from failover import IMAGE, PATIENCE, Swarm, docker, get, push_image, until

from afterswarm.adapters.programs import run
from afterswarm.lab.hosts import LabHost
from afterswarm.lab.lab import Lab
from afterswarm.lab.power import inside

PORT = 8080
SERVE = ["/bin/busybox", "sh", "-c", "trap exit TERM; /bin/busybox httpd -p 80; while :; do /bin/busybox sleep 1; done"]
AGAIN: list[str] = []  # what had to be said a second time, and why


def stack(number: int, replicas: int) -> dict[str, Any]:
    port = PORT + number
    web = {"ports": [f"{port}:80"], "deploy": {"replicas": replicas}}
    db = {"ports": ["80"]}  # one of the dynamic range
    common = {"image": IMAGE, "command": SERVE, "networks": ["back"], "stop_grace_period": "1s"}
    return {"version": "3.8", "networks": {"back": {}}, "services": {"web": common | web, "db": common | db}}


def said(swarm: Swarm, *argv: str) -> None:
    """Again where the command line failed, as people do: the swarm was between two leaders, say."""

    def done() -> bool:
        try:
            dockerapi.docker(swarm.hosts[0].socket, *argv, timeout=PATIENCE)
        except OSError as error:
            AGAIN.append(f"{' '.join(argv)}: {error}")
            print(AGAIN[-1], flush=True)
            return False
        return True

    until(" ".join(argv), done)


def deploy(swarm: Swarm, files: list[Path], tasks: int) -> None:
    """All of them at the same time, of so many tasks each."""
    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(lambda file: said(swarm, "stack", "deploy", "-c", str(file), file.stem), files))

    def runs() -> bool:
        there = get(swarm.hosts[0], "/tasks")
        running = [t["Status"]["State"] for t in there if t["DesiredState"] == "running"]
        return running == ["running"] * tasks * len(files)

    until("all of it runs", runs)


def remove(swarm: Swarm, files: list[Path]) -> None:
    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(lambda file: said(swarm, "stack", "rm", file.stem), files))

    def gone() -> bool:
        there = [*get(swarm.hosts[0], "/tasks"), *get(swarm.hosts[0], "/services")]
        engines = [engine(host) for host in swarm.hosts]
        return not there and all(not e["containers"] and not _ours(e["networks"]) for e in engines)

    until("nothing of it is there", gone)


def _ours(networks: list[str]) -> list[str]:
    return [name for name in networks if name.endswith("_back")]


def engine(host: LabHost) -> dict[str, list[str]]:
    """What the engine itself has."""
    containers = docker(host, "ps", "-aq", engine=True).split()
    networks = docker(host, "network", "ls", "--format", "{{.Name}}", engine=True).split()
    return {"containers": containers, "networks": sorted(networks)}


def held(host: LabHost) -> dict[str, Any]:
    """All that a host holds, as numbers where names change."""

    def lines(*argv: str) -> list[str]:
        return run(*inside(host, list(argv))).splitlines()

    links = [link["ifname"] for link in json.loads(run(*inside(host, ["ip", "-j", "link", "show"]))) if link]
    files, memory = opened(host), footprint.of(host)
    return {
        **engine(host),
        "devices": len(links),
        "ours": sorted(name for name in links if name.startswith(("asw", "asx"))),
        "forwarding": len([x for x in lines("bridge", "fdb") if " dst " in x]),
        "routing rules": len(lines("ip", "rule")),
        "routes": len(lines("ip", "-4", "route", "show", "table", "all")),
        "nft rules": len(lines("nft", "list", "table", "inet", "afterswarm")),
        "iptables rules": len(lines("iptables", "-S")),
        "flows": len([x for x in lines("conntrack", "-L") if "dport=8080" in x and "ESTABLISHED" in x]),
        "open files of the daemon": files,
        "daemon MiB": round(memory["daemon"].rss, 1),
    }


def opened(host: LabHost) -> int:
    namespace = os.readlink(f"/proc/{host.pid}/ns/pid")  # noqa: PTH115
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                mine = os.readlink(folder / "ns/pid") == namespace  # noqa: PTH115
                if mine and footprint.kind((folder / "cmdline").read_text().split("\0")) == "daemon":
                    return len(list((folder / "fd").iterdir()))
            except OSError:
                continue
    return 0


def stored(host: LabHost) -> dict[str, int]:
    """What the swarm has of each, as its API shows it."""
    networks = [n for n in get(host, "/networks") if n["Scope"] == "swarm"]
    return {"networks": len(networks)} | {kind: len(get(host, f"/{kind}")) for kind in ("services", "tasks", "configs")}


def answers(host: LabHost) -> bool:
    with socket.create_connection((host.address, PORT), 5):
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description="what stacks leave behind")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--stacks", type=int, default=1, help="at the same time, each round")
    parser.add_argument("--replicas", type=int, default=2, help="of one of the two services")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin no round after so many")
    parser.add_argument("--json", type=Path, default=Path("build/bench/leaks.json"))
    args = parser.parse_args()
    lab = Lab()
    if lab.read().hosts:
        raise SystemExit("a lab is up already; `afterswarm lab down` removes it")
    began, rounds = time.monotonic(), 0
    args.json.parent.mkdir(parents=True, exist_ok=True)
    files = [args.json.with_name(f"leak{number}.json") for number in range(args.stacks)]
    for number, file in enumerate(files):
        file.write_text(json.dumps(stack(number, args.replicas)))
    try:
        hosts = lab.up(3)
        push_image(hosts[0], hosts)
        swarm = Swarm(lab, hosts)
        found: list[list[dict[str, Any]]] = []
        memory: list[list[float]] = []
        while rounds < args.rounds and (rounds < 2 or time.monotonic() - began < args.seconds):
            deploy(swarm, files, args.replicas + 1)
            if rounds % 10 == 0:
                print(f"{rounds} rounds, {time.monotonic() - began:.0f} s", flush=True)
                until("every host answers", lambda: all(answers(host) for host in hosts))
            remove(swarm, files)
            rounds += 1
            memory.append([round(footprint.of(host)["daemon"].rss, 1) for host in hosts])
            if rounds == 1:
                time.sleep(5)
                found.append([held(host) for host in hosts])
        time.sleep(5)
        found.append([held(host) for host in hosts])
        left = stored(hosts[0])
    finally:
        lab.down()
    first, last = found
    for host, before, after in zip(hosts, first, last, strict=True):
        changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
        print(f"{host.name}: {changed or 'nothing changed'}")
    print(f"{rounds} rounds of {args.stacks} in {time.monotonic() - began:.0f} s; the swarm has {left}")
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}
    result = {
        "machine": machine,
        "rounds": rounds,
        "stacks": args.stacks,
        "replicas": args.replicas,
        "said_again": AGAIN,
        "first": first,
        "last": last,
        "stored": left,
        "daemon MiB": memory,
    }
    args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
