"""The figures of a run as a table for people and as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

OURS, THEIRS = "Afterswarm", "Docker Swarm"
SECONDS = {
    "form": "three managers form a swarm",
    "deploy": "stack deploy, 7 services, 10 replicas, to all running",
    "scale_up": "one service 1 → 30, to all running",
    "scale_down": "one service 30 → 1, to all others ended",
    "remove": "stack rm, to all containers gone",
    "cut_answered": "power cut of the leader, to `node ls` answered by another manager",
    "cut_written": "… to a write taken",
    "cut_down": "… to the host shown Down",
    "cut_replaced": "… to its replicas running elsewhere",
    "cut_back": "power on, to a reachable manager again",
}
FLOORS = {"floor_10": "deploy", "floor_29": "scale_up"}
DRAWN = {
    "deploy": "stack deploy\n10 replicas",
    "scale_up": "scale\n1 → 30",
    "scale_down": "scale\n30 → 1",
    "cut_written": "power cut:\nAPI writes",
    "cut_down": "power cut:\nshown Down",
    "cut_replaced": "power cut:\nreplaced",
}
BLUE, GREY = "#2a6fb0", "#a0a4aa"


def medians(seen: dict[str, list[Any]]) -> dict[str, float]:
    """Of what was measured in seconds."""
    return {what: round(median(values), 2) for what, values in seen.items() if isinstance(values[0], float)}


class Footprint:
    """What one side's own processes need on a host of one role; medians over such hosts. MiB, per cent of a core.

    Swarm has no process of its own: its part is how much bigger and busier dockerd is than the same dockerd with the
    same containers under ours. (Of dockerd RSS is taken like of everything, so that what both share is in both.)
    """

    def __init__(self, seen: dict[str, dict[str, list[Any]]], side: str, role: str) -> None:
        self._seen, self._which = seen, slice(1, 3) if role == "workers" else slice(0, 3)
        self._role = role
        self.rss = self._medians(side, "memory", 0)
        self.pss = self._medians(side, "memory", 1)
        self.idle = self._medians(side, "idle")

    def _medians(self, side: str, what: str, item: int | None = None) -> dict[str, float]:
        kept: dict[str, list[float]] = {}
        for hosts in self._seen.get(side, {}).get(f"{self._role}_{what}", []):
            for host in hosts[self._which]:
                for kind, value in host.items():
                    kept.setdefault(kind, []).append(value if item is None else value[item])
        return {kind: median(values) for kind, values in kept.items()}


def footprints(seen: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Role -> part -> its RSS, PSS and idle share."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for role in ("managers", "workers"):
        ours, theirs = Footprint(seen, OURS, role), Footprint(seen, THEIRS, role)
        rows = {
            "daemon": "Afterswarm's daemon",
            "beats": "its sender of beats",
            "names": "its resolver",
            "etcd": "its etcd",
        }
        parts = {text: _row(ours, kind) for kind, text in rows.items() if kind in ours.rss}
        if "dockerd" in theirs.rss:
            parts["dockerd in swarm mode"] = _row(theirs, "dockerd")
        if "dockerd" in ours.rss:
            parts["dockerd beside Afterswarm"] = _row(ours, "dockerd")
        if {"dockerd in swarm mode", "dockerd beside Afterswarm"} <= parts.keys():
            a, b = parts["dockerd in swarm mode"], parts["dockerd beside Afterswarm"]
            parts["so Swarm's part of it"] = {k: round(a[k] - b[k], 2) for k in a}
        found[role] = parts
    return found


def _row(of: Footprint, kind: str) -> dict[str, float]:
    return {
        "rss": round(of.rss.get(kind, 0.0), 1),
        "pss": round(of.pss.get(kind, 0.0), 1),
        "idle": round(of.idle.get(kind, 0.0), 2),
    }


def table(found: dict[str, Any]) -> str:
    """Markdown, as it stands in docs/performance.md."""
    seen = found["seen"]
    ours, theirs, alone = (medians(seen.get(side, {})) for side in (OURS, THEIRS, "engines"))
    lines = ["| median, seconds | Afterswarm | Docker Swarm | ratio | engines alone |", "|---|---:|---:|---:|---:|"]
    floors = {measure: alone.get(floor) for floor, measure in FLOORS.items()}
    for key, text in SECONDS.items():
        a, b = ours.get(key), theirs.get(key)
        if a is not None or b is not None:
            ratio = f"{a / b:.2f}" if a and b else ""
            lines.append(f"| {text} | {_shown(a)} | {_shown(b)} | {ratio} | {_shown(floors.get(key))} |")
    for role, parts in footprints(seen).items():
        if parts:
            lines += ["", f"| {role} | RSS MiB | PSS MiB | idle, % of a core |", "|---|---:|---:|---:|"]
            lines += [f"| {part} | {v['rss']:.1f} | {v['pss']:.1f} | {v['idle']:.2f} |" for part, v in parts.items()]
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else ""


def draw(path: Path, found: dict[str, Any]) -> Path:
    """Bars, ours beside Swarm's: seconds (each round a dot), memory, idling."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, only needed at the end

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    seen = found["seen"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.8), width_ratios=[6, 3, 3])
    _seconds(left, seen)
    parts = footprints(seen)
    kinds = ("Afterswarm's daemon", "its sender of beats", "its resolver", "its etcd")
    for axes, key, title in (
        (middle, "rss", "memory (RSS), MiB"),
        (right, "idle", "processor when idle, % of a core"),
    ):
        for at, role in enumerate(("managers", "workers")):
            bottom = 0.0
            for part, colour in zip(kinds, (BLUE, "#7fb2dd", "#c9dff0"), strict=True):
                value = parts[role].get(part, {}).get(key, 0.0)
                label = part if not at else None
                axes.bar(at - 0.2, value, 0.36, bottom=bottom, color=colour, label=label)
                bottom += value
            axes.text(at - 0.2, bottom, f"{bottom:.3g}", ha="center", va="bottom", fontsize=8)
            value = parts[role].get("so Swarm's part of it", {}).get(key, 0.0)
            label = "Swarm: growth of dockerd" if not at else None
            axes.bar(at + 0.2, value, 0.36, color=GREY, label=label)
            axes.text(at + 0.2, max(value, 0), f"{value:.3g}", ha="center", va="bottom", fontsize=8)
        axes.set_xticks([0, 1], ["a manager", "a worker"])
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    middle.legend(fontsize=7, frameon=False)
    on = found["on"]
    figure.suptitle(
        f"Afterswarm and Docker Swarm {on['engine']} on the same three engines of one machine, {on['cores']} cores,"
        f" medians of {found['rounds']}; shorter is better",
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _seconds(axes: Any, seen: dict[str, dict[str, list[Any]]]) -> None:
    for side, shift, colour in ((OURS, -0.2, BLUE), (THEIRS, 0.2, GREY)):
        kept = seen.get(side, {})
        shown = medians(kept)
        ys = [shown.get(key, 0.0) for key in DRAWN]
        axes.bar([x + shift for x in range(len(DRAWN))], ys, 0.36, color=colour, label=side)
        for x, key in enumerate(DRAWN):
            rounds: Iterable[float] = kept.get(key, [])
            axes.scatter([x + shift for _ in rounds], list(rounds), s=8, color="black", zorder=3)
            axes.text(x + shift, max([*rounds, 0.02]) * 1.08, _shown(shown.get(key)), ha="center", fontsize=8)
    alone = medians(seen.get("engines", {}))
    for floor, key in FLOORS.items():
        if floor in alone:
            x = list(DRAWN).index(key)
            label = "the engines alone" if floor == "floor_10" else None
            axes.hlines(alone[floor], x - 0.42, x + 0.42, color="#c0392b", linestyle="--", linewidth=1.2, label=label)
    axes.set_yscale("log")
    axes.set_ylim(0.02, 120)
    axes.set_xticks(range(len(DRAWN)), list(DRAWN.values()), fontsize=8)
    axes.set_title("seconds (logarithmic)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
