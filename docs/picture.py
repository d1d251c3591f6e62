"""Draws docs/picture.png, the picture of the README: `python docs/picture.py` (needs matplotlib)."""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

HERE = Path(__file__).parent
INK, FAINT, PAPER = "#1e293b", "#94a3b8", "#ffffff"
RED, GREEN = "#dc2626", "#15803d"
DAEMON, ETCD, ENGINE = "#0f766e", "#7c3aed", "#2563eb"
SERVICES = {"web": "#ea580c", "api": "#0284c7", "db": "#475569"}
RAILS = (
    ("overlay networks: services find each other by name", ENGINE),
    ("etcd: what you asked for, agreed by a majority of managers", ETCD),
    ("beats, ten a second: who is alive", DAEMON),
)
WIDTH, TOP, BOTTOM = 42.0, 66.0, 26.0
DEAD = "swarm-2"
COLUMNS = {"swarm-1": 3.0, "swarm-2": 54.0, "swarm-3": 105.0}


def box(  # noqa: PLR0917 - a rectangle has four numbers
    axes: Axes, x: float, y: float, w: float, h: float, edge: str, fill: str, *, width: float = 1.4, line: str = "-"
) -> None:
    """A rectangle with round corners."""
    shape = "round,pad=0,rounding_size=1.3"
    axes.add_patch(
        FancyBboxPatch((x, y), w, h, boxstyle=shape, ec=edge, fc=fill, lw=width, ls=line, zorder=3, mutation_aspect=1)
    )


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, *, bend: float = 0.0,
    width: float = 2.2, line: str = "-",
) -> None:  # fmt: skip
    """From here to there. `bend` is matplotlib's `rad`."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>,head_length=7,head_width=4", connectionstyle=f"arc3,rad={bend}",
            color=colour, lw=width, ls=line, zorder=6, shrinkA=0, shrinkB=2,
        )
    )  # fmt: skip


def word(  # noqa: PLR0917 - where, what, how
    axes: Axes, x: float, y: float, text: str, colour: str = INK, size: float = 12, **more: object
) -> None:
    options: dict[str, object] = {"ha": "center", "va": "center", "zorder": 7}
    axes.text(x, y, text, color=colour, fontsize=size, **{**options, **more})


def chip(axes: Axes, x: float, y: float, name: str, *, dead: bool = False, rebuilt: bool = False) -> None:
    """One task's container."""
    colour = SERVICES[name.partition(".")[0]]
    if dead:
        box(axes, x, y, 17, 6.4, FAINT, "#f8fafc", line=(0, (3, 2)), width=1.2)
        word(axes, x + 8.5, y + 3.2, name, FAINT, 12.5)
        return
    box(axes, x, y, 17, 6.4, GREEN if rebuilt else colour, colour, width=4.2 if rebuilt else 1)
    word(axes, x + 8.5, y + 3.2, name, PAPER, 12.5, weight="bold")


def host(axes: Axes, name: str, tasks: list[str], rebuilt: str = "", *, dead: bool = False) -> None:
    x = COLUMNS[name]
    edge = FAINT if dead else INK
    box(
        axes,
        x,
        BOTTOM,
        WIDTH,
        TOP - BOTTOM,
        edge,
        "#f1f5f9" if dead else "#f8fafc",
        width=2,
        line="--" if dead else "-",
    )
    word(axes, x + 2.5, TOP - 3.6, name, edge, 15, ha="left", weight="bold")
    if not dead:
        word(axes, x + WIDTH - 2.5, TOP - 3.6, "port 80", SERVICES["web"], 12, ha="right", weight="bold")
    for left, wide, text, colour in ((2, 25.5, "afterswarm daemon", DAEMON), (29.5, 10.5, "etcd", ETCD)):
        box(axes, x + left, TOP - 14.5, wide, 7, FAINT if dead else colour, PAPER, width=1.8)
        word(axes, x + left + wide / 2, TOP - 11, text, FAINT if dead else colour, 12.5, weight="bold")
    box(axes, x + 2, BOTTOM + 2, WIDTH - 4, 21, FAINT if dead else ENGINE, PAPER, width=1.8)
    word(axes, x + 4, BOTTOM + 20.2, "Docker Engine", FAINT if dead else ENGINE, 12, ha="left", weight="bold")
    for n, task in enumerate([*tasks, *([rebuilt] if rebuilt else [])]):
        chip(axes, x + 3.2 + 18.6 * (n % 2), BOTTOM + 10.8 - 7.8 * (n // 2), task, dead=dead, rebuilt=task == rebuilt)


def rails(axes: Axes) -> None:
    """What connects the hosts, and does without the dead one."""
    for n, (text, colour) in enumerate(RAILS):
        y = 17.6 - 5.6 * n
        axes.plot([3, 147], [y, y], color=colour, lw=2.6, zorder=1, solid_capstyle="round")
        for name, x in COLUMNS.items():
            at = x + 6 + 3.2 * n
            if name == DEAD:
                axes.plot([at, at], [BOTTOM - 3.4, BOTTOM], color=FAINT, lw=1.8, ls=":", zorder=1)
                axes.plot([at], [BOTTOM - 3.8], "x", ms=6, mew=2, color=RED, zorder=5)
            else:
                axes.plot([at, at], [y, BOTTOM], color=colour, lw=1.8, zorder=1)
                axes.plot([at], [y], "o", ms=7, color=colour, zorder=5)
        word(axes, 75, y, text, colour, 12, bbox={"fc": PAPER, "ec": "none", "pad": 3})


def strike(axes: Axes) -> None:
    """The host whose power was cut, and what becomes of its tasks."""
    x = COLUMNS[DEAD]
    for slope in ((x + 1, x + WIDTH - 1), (x + WIDTH - 1, x + 1)):
        axes.plot(slope, [BOTTOM + 1, TOP - 1], color=RED, lw=5, alpha=0.4, zorder=4, solid_capstyle="round")
    box(axes, 65.5, TOP - 2.6, 19, 5.2, RED, RED)
    word(axes, 75, TOP - 0.1, "power cut", PAPER, 13, weight="bold")
    arrow(axes, (57.2, BOTTOM + 14), (23.4, BOTTOM + 6.2), GREEN, bend=-0.12, width=2.8)
    arrow(axes, (92.8, BOTTOM + 14), (108, BOTTOM + 6.2), GREEN, bend=0.12, width=2.8)
    word(
        axes,
        75,
        BOTTOM + 6,
        "its tasks are rebuilt elsewhere",
        GREEN,
        12,
        weight="bold",
        bbox={"fc": PAPER, "ec": "none", "pad": 2},
    )


def people(axes: Axes) -> None:
    """Who asks: you with your docker command line, and everybody else."""
    orange = SERVICES["web"]
    box(axes, 3, 79, 42, 9.5, INK, INK)
    word(
        axes,
        5.6,
        83.8,
        "$ docker stack deploy\n    -c compose.yaml shop",
        "#f8fafc",
        12.5,
        ha="left",
        family="monospace",
    )
    arrow(axes, (22, 79), (22, TOP - 7.3), DAEMON)
    box(axes, 64, 79, 22, 9.5, INK, PAPER, width=2)
    word(axes, 75, 83.8, "a client", INK, 14, weight="bold")
    arrow(axes, (64, 82), (39, TOP - 1.6), orange, bend=0.12)
    arrow(axes, (86, 82), (137, TOP - 1.6), orange, bend=-0.18, line=(0, (4, 2.4)), width=1.8)
    word(axes, 128, 84, "any host will do", orange, 13, style="italic")
    # the request's second half: over the dead host to a replica that lives
    points = [(45, 62.4), (52, 76), (62, 72.6), (84, 72.6), (108, 72.6), (97, 45), (108.2, 40)]
    over = Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * 6])
    head = "-|>,head_length=7,head_width=4"
    axes.add_patch(FancyArrowPatch(path=over, arrowstyle=head, color=orange, lw=2.2, fill=False, zorder=6))
    word(axes, 75, 74.6, "to a replica that is healthy", orange, 13, style="italic")


def draw() -> None:
    figure = plt.figure(figsize=(15, 9), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 150), ylim=(2, 92))
    axes.axis("off")
    rails(axes)
    host(axes, "swarm-1", ["web.1", "db.1"], "api.1")
    host(axes, DEAD, ["api.1", "web.2"], dead=True)
    host(axes, "swarm-3", ["web.3", "api.2"], "web.2")
    strike(axes)
    people(axes)
    figure.savefig(HERE / "picture.png", facecolor=PAPER, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw()
