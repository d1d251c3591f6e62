"""What the demo leaves behind: a table, report.json and timeline.png."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dockerapi import Replicas
from steady import Sample

ROWS = {
    "deploy_seconds": "stack deploy to all replicas running",
    "down_seconds": "power cut to the host shown Down",
    "recovered_seconds": "power cut to all replicas running elsewhere",
    "returned_seconds": "power on to the host shown Ready",
    "requests": "requests of the steady client",
    "failed": "of them without a good answer",
    "longest_outage_seconds": "longest time between two good answers",
}


def table(report: dict[str, Any]) -> str:
    """The figures, one line each."""
    lines = [f"  {text:<46} {report[key]:>9}" for key, text in ROWS.items()]
    return "\n".join(["", f"  host cut: {report['killed_host']} (the leader)", *lines, ""])


def write(folder: Path, report: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def draw(folder: Path, seen: list[Replicas], samples: list[Sample], cut: float, back: float) -> Path:
    """Replicas of each service and the latency of each request over time, the power cut marked."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, only needed at the end

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(11, 7), height_ratios=[3, 2])
    names = [n for n, wanted in (seen[-1].wanted.items() if seen else ()) if wanted]
    for row, name in enumerate(names):
        xs = [r.at - cut for r in seen]
        wanted = max(r.wanted.get(name, 0) for r in seen) or 1
        ys = [row + 0.8 * r.running.get(name, 0) / wanted for r in seen]
        top.fill_between(xs, row, ys, step="post", alpha=0.8)
    top.set_yticks([row + 0.4 for row in range(len(names))], [n.partition("_")[2] or n for n in names])
    top.set_ylabel("share of replicas running")
    good = [s for s in samples if s.ok]
    bad = [s for s in samples if not s.ok]
    bottom.scatter([s.at - cut for s in good], [s.took * 1000 for s in good], s=3, label="answered")
    bottom.scatter(
        [s.at - cut for s in bad], [s.took * 1000 for s in bad], s=14, marker="x", color="red", label="failed"
    )
    bottom.set_yscale("log")
    bottom.set_ylabel("request, ms")
    bottom.set_xlabel("seconds since the power cut")
    bottom.legend(loc="upper right")
    for axes in (top, bottom):
        axes.axvline(0, color="black", linestyle="--")
        axes.axvline(back - cut, color="grey", linestyle=":")
    top.set_title("Power cut of the leader (dashed); it is switched on again (dotted)")
    figure.tight_layout()
    path = folder / "timeline.png"
    figure.savefig(path, dpi=110)
    return path
