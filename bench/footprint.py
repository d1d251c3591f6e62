"""Memory and processor time of what runs on a lab host, from /proc: ours, etcd, and the engine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from afterswarm.lab.hosts import LabHost

TICK = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


class Use(msgspec.Struct):
    """Of one kind of process on one host. MiB and seconds."""

    rss: float = 0.0
    pss: float = 0.0
    cpu: float = 0.0


def kind(arguments: list[str]) -> str:
    """What a process is to us; "" for what does not count (containers, their shims, the host's first process)."""
    line = " ".join(arguments)
    if "agent/beats/sender.py" in line:
        return "beats"
    if "agent.names.server" in line:
        return "names"
    if "afterswarm.cli.main daemon" in line:
        return "daemon"
    program = os.path.basename(arguments[0]) if arguments else ""  # noqa: PTH119
    return program if program in {"etcd", "dockerd", "containerd"} else ""


def of(host: LabHost) -> dict[str, Use]:
    """Kind -> what its processes on this host use, and have used since they started."""
    namespace = os.readlink(f"/proc/{host.pid}/ns/pid")  # noqa: PTH115
    found: dict[str, Use] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.readlink(folder / "ns/pid") != namespace:  # noqa: PTH115
                continue
            arguments = (folder / "cmdline").read_text().split("\0")
            name = kind(arguments)
            if not name:
                continue
            memory = dict(
                line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines() if ":" in line
            )
            times = (folder / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ProcessLookupError):
            continue  # it has ended
        use = found.setdefault(name, Use())
        use.rss += int(memory["Rss"].split()[0]) / 1024
        use.pss += int(memory["Pss"].split()[0]) / 1024
        use.cpu += (int(times[11]) + int(times[12])) / TICK
    return found


def idle(hosts: list[LabHost], seconds: float) -> list[dict[str, float]]:
    """Per host: kind -> share of one core in per cent over the next `seconds`."""
    before, begun = [of(h) for h in hosts], time.monotonic()
    time.sleep(seconds)
    after, took = [of(h) for h in hosts], time.monotonic() - begun
    return [
        {name: round(100 * (use.cpu - b.get(name, Use()).cpu) / took, 2) for name, use in a.items()}
        for b, a in zip(before, after, strict=True)
    ]
