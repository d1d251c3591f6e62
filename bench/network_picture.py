"""The picture of `network.py`: bars of a request, of new connections, and of throughput, path by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BLUE, GREY = "#1f6fb2", "#9a9a9a"
SHORT = {
    "direct": "direct",
    "dnat": "direct DNAT",
    "local": "our mesh, local",
    "remote": "our mesh, remote",
    "masquerade": "remote, masqueraded",
    "vip": "our virtual address",
    "proxy": "docker-proxy",
    "ipvs": "IPVS",
}


def draw(path: Path, found: dict[str, Any]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, only needed at the end

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "afterswarm"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = [name for name in SHORT if name in found["paths"]]
    at = list(range(len(names)))[::-1]
    colours = [GREY if name in ("direct", "dnat", "proxy", "ipvs") else BLUE for name in names]
    figure, panes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    titles = {
        "p50_us": "a request there and back, µs,\nmedian",
        "connections_per_second": "new connections a second,\none after another",
        "gbit_per_second": "throughput of one connection,\nGbit/s",
    }
    for pane, (key, title) in zip(panes, titles.items(), strict=True):
        values = [found["paths"][name][key] for name in names]
        pane.barh(at, values, color=colours, height=0.66)
        for y, value in zip(at, values, strict=True):
            pane.text(max(values) * 0.01, y, f"{value:,.4g}", va="center", fontsize=8, color="white")
        pane.set_title(title, fontsize=9)
        pane.spines[["top", "right"]].set_visible(False)
    panes[0].set_yticks(at, [SHORT[name] for name in names], fontsize=9)
    on = found["machine"]
    linux = ".".join(on["kernel"].split(".")[:2])
    figure.suptitle(
        f"One machine, {on['cores']} cores, Linux {linux}; the same client and server on every path",
        fontsize=10,
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
