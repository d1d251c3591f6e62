"""How long a floating address is away: after a power cut of the host that has it, and when that host is cut off.

    python bench/floating.py [--rounds 10] [--how power partition] [--json build/bench/floating.json]

Brings up a lab of its own (three managers). A client outside dials a closed port of the address every 10 ms: that the
host refuses is an answer. Seconds are from the cut to the first answer of another host. When a host is cut off,
besides: how long before the other one took the address it had let go, by the daemons' logs, on one machine's clock.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from failover import Swarm, get, until

from afterswarm.lab.hosts import LabHost
from afterswarm.lab.lab import Lab

ADDRESS = "10.77.0.100"
PORT = 9
EVERY = 0.01
WITHIN = 0.05  # seconds that one try may take
MOVED = re.compile(r"^(\S+ \S+) WARNING .*floating address \S+: (held by this host now|not here any more)")


def answers() -> bool:
    """Whether some host answers for the address at this moment."""
    with socket.socket() as out:
        out.settimeout(WITHIN)
        try:
            out.connect((ADDRESS, PORT))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


def holder(lab: Lab) -> LabHost:
    found: list[LabHost] = []

    def one() -> bool:
        hosts = [h for h in lab.read().hosts if h.state == "up"]
        found[:] = [h for h in hosts if any(a["Here"] == "held" for a in get(h, "/afterswarm/addresses"))]
        return len(found) == 1 and answers()

    until("one host has the address", one)
    return found[0]


def away(since: float) -> float:
    """Seconds from `since` until it has answered ten times in a row: an answer under way at the cut is none."""
    row, first = 0, 0.0
    while time.monotonic() - since < 30:
        begun = time.monotonic()
        good = answers() and begun > since + 0.02
        row, first = (row + 1, first or begun) if good else (0, 0.0)
        if row == 10:
            return first - since
        time.sleep(max(0.0, begun + EVERY - time.monotonic()))
    raise SystemExit("nobody answers any more")


def moments(host: LabHost, what: str, after: datetime) -> list[datetime]:
    text = (Path(host.disk) / "log" / "afterswarm.log").read_text()
    rows = (MOVED.match(line) for line in text.splitlines())
    found = [
        datetime.strptime(row[1], "%Y-%m-%d %H:%M:%S,%f")  # noqa: DTZ007
        for row in rows
        if row and row[2] == what
    ]
    return [moment for moment in found if moment > after]


def round_of(swarm: Swarm, how: str) -> dict[str, Any]:
    lab = swarm.lab
    victim = holder(lab)
    leader = swarm_leader(lab)
    time.sleep(2.0)
    wall, cut = datetime.now(), time.monotonic()  # noqa: DTZ005 - as the logs have it
    (lab.kill if how == "power" else lab.cut)(victim.name)
    cut = time.monotonic() if how == "power" else cut  # killing takes a moment, and only its end is the cut
    row: dict[str, Any] = {"how": how, "leader": victim.name == leader, "away": round(away(cut), 3)}
    if how == "partition":
        after = holder(lab)
        [let_go, *_] = moments(victim, "not here any more", wall)
        [took, *_] = moments(after, "held by this host now", wall)
        row["between"] = round((took - let_go).total_seconds(), 3)
        lab.heal(victim.name)
    else:
        lab.start(victim.name)
    until("all ready", lambda: all(n["Status"]["State"] == "ready" for n in get(holder(lab), "/nodes")))
    return row


def swarm_leader(lab: Lab) -> str:
    found: list[str] = []

    def one() -> bool:
        nodes = get(next(h for h in lab.read().hosts if h.state == "up"), "/nodes")
        found[:] = [n["Description"]["Hostname"] for n in nodes if (n.get("ManagerStatus") or {}).get("Leader")]
        reachable = [(n.get("ManagerStatus") or {}).get("Reachability") == "reachable" for n in nodes]
        return bool(found) and all(reachable)

    until("a leader, and all managers reachable", one)
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="how long a floating address is away")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--how", nargs="+", choices=("power", "partition"), default=["power", "partition"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lab = Lab()
    rows = []
    try:
        lab.up(3)
        swarm = Swarm(lab, lab.read().hosts)
        first = swarm.hosts[0]
        argv = [
            sys.executable,
            "-m",
            "afterswarm.cli.main",
            "address",
            "--listen",
            first.socket,
            "add",
            f"{ADDRESS}/24",
        ]
        subprocess.run(argv, check=True)
        for how in args.how:
            for _ in range(args.rounds):
                rows.append(round_of(swarm, how))
                print(rows[-1], flush=True)
    finally:
        lab.down()
    for how in args.how:
        seconds = [row["away"] for row in rows if row["how"] == how]
        print(f"{how}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, {len(seconds)} cuts")
        between = [row["between"] for row in rows if "between" in row and row["how"] == how]
        if between:
            print(f"  let go {min(between):.2f} to {max(between):.2f} s before another host took it")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
