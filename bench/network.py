"""What a request costs on its way: through our mesh, past it, and through what Docker has instead; all in one run.

    python bench/network.py [--rounds 15] [--seconds 0.4] [--json build/bench/network.json] [--picture docs/network.svg]

Needs root; makes hosts and containers of network namespaces (no engine), with the rules that the daemon would write
(`network_paths.py`). Every round measures every path once, so that what else the machine does falls on all alike;
ratios are taken within a round, and the median round counts. Then the cost of changes (`network_changes.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import network_changes
from network_paths import NAMES, Stage
from network_picture import draw

SLICES = 8  # of a round: in each, every path has a connection
QUESTIONS = 250  # on one connection
WARM = 20
KEYS = ("median_ms", "p99_ms", "planner_ms", "kernel_ms", "kernel_best_ms")


def ranked(sample: list[int], share: float) -> float:
    """In microseconds."""
    return sorted(sample)[min(int(len(sample) * share), len(sample) - 1)] / 1000


def round_of(stage: Stage, seconds: float, number: int) -> dict[str, dict[str, float]]:
    """Path -> what was measured; another one goes first each time."""
    names = list(stage.paths)
    turn = number % len(names)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    order = names[turn:] + names[:turn]
    samples: dict[str, list[int]] = {name: [] for name in names}
    for name in order * SLICES:
        client, address, port = stage.paths[name]
        samples[name] += client.ask("latency", address, port, WARM + QUESTIONS)[WARM:]
    for name, sample in samples.items():
        found[name] |= {"p50_us": ranked(sample, 0.5), "p99_us": ranked(sample, 0.99)}
    for name in order:
        client, address, port = stage.paths[name]
        found[name]["connections_per_second"] = client.ask("connect", address, port, seconds)
    for name in order:
        client, address, port = stage.paths[name]
        found[name]["gbit_per_second"] = client.ask("bulk", address, port, seconds) * 8 / 1e9
    return found


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians of the rounds; `…_ratio` to the direct path, and of the local one to an engine's DNAT, round by round."""
    found: dict[str, dict[str, float]] = {}
    for name in rounds[0]:
        mine = {key: round(statistics.median(r[name][key] for r in rounds), 2) for key in rounds[0][name]}
        mine["p50_to_direct"] = _ratio(rounds, name, "direct", "p50_us")
        mine["p50_to_dnat"] = _ratio(rounds, name, "dnat", "p50_us")
        mine["connections_to_dnat"] = _ratio(rounds, name, "dnat", "connections_per_second")
        found[name] = mine
    return found


def _ratio(rounds: list[dict[str, dict[str, float]]], name: str, other: str, key: str) -> float:
    return round(statistics.median(r[name][key] / r[other][key] for r in rounds), 3)


def table(found: dict[str, Any]) -> str:
    """Markdown, as it stands in docs/performance.md."""
    lines = [
        "| path | p50 µs | p99 µs | p50 to direct | to DNAT | new connections a second | Gbit/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, text in NAMES.items():
        if name in found["absent"]:
            lines.append(f"| {text} | {found['absent'][name]} | | | | | |")
        elif mine := found["paths"].get(name):
            numbers = (mine[key] for key in ("p50_us", "p99_us", "p50_to_direct", "p50_to_dnat"))
            shown = " | ".join(f"{number:.2f}" for number in numbers)
            lines.append(f"| {text} | {shown} | {mine['connections_per_second']:.0f} | {mine['gbit_per_second']:.1f} |")
    lines += ["", "| change of the rules, ms | median | p99 | of it, the planner | the kernel | at best |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for text, took in found["changes"].items():
        shown = " | ".join(f"{took[key]:.2f}" for key in KEYS)
        lines.append(f"| {text} | {shown} |")
    return "\n".join(lines) + "\n"


async def measured(rounds: int, seconds: float) -> dict[str, Any]:
    stage = Stage(os.cpu_count() or 1)
    try:
        await stage.up()
        seen = []
        for number in range(rounds):
            seen.append(round_of(stage, seconds, number))
            print(f"round {number + 1} of {rounds}", flush=True)
    finally:
        stage.close()
    return {"paths": summary(seen), "absent": stage.absent, "rounds": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description="what a request costs on its way")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measure that is not counted in questions")
    parser.add_argument("--changes", type=int, default=30, help="rounds of changes of the rules")
    parser.add_argument("--json", type=Path, default=Path("build/bench/network.json"))
    parser.add_argument("--picture", type=Path, default=Path("build/bench/network.svg"))
    args = parser.parse_args()
    if os.geteuid():
        raise SystemExit("it makes network namespaces: run it as root")
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()}
    found = {"machine": machine, **asyncio.run(measured(args.rounds, args.seconds))}
    found["changes"] = network_changes.measured(args.changes) if args.changes else {}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n")
    draw(args.picture, found)
    print(table(found), args.json, args.picture, sep="\n")


if __name__ == "__main__":
    main()
