"""What a lab could leave on the machine, to be compared before and after."""

from __future__ import annotations

import subprocess
from pathlib import Path

from afterswarm.lab.hosts import ROOT


def said(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def machine() -> dict[str, list[str]]:
    """Everything by kind, sorted."""
    cgroups = Path("/sys/fs/cgroup")
    return {
        "processes": sorted(filter(None, map(of_a_lab, Path("/proc").glob("[0-9]*")))),
        "links": sorted(line.split()[0].partition("@")[0] for line in said("ip", "-br", "link")),
        "namespaces": sorted(said("ip", "netns", "list")),
        "mounts": sorted(line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "tables": sorted(said("nft", "list", "tables")),
        "control groups": sorted(str(p) for p in cgroups.glob("**/afterswarm-lab")),
        "forwarding": [Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()],
        "files": sorted(p.name for p in ROOT.glob("*") if p.name not in KEPT),
    }


KEPT = {"registry", "registry.yml", "registry.log", "lock"}  # images, which make the next lab quick


def of_a_lab(process: Path) -> str:
    """What it runs, if it is a lab's: in one of its namespaces, or its registry."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        namespace = (process / "ns/pid").readlink()
        status = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    mine = Path("/proc/self/ns/pid").readlink()
    if status == "Z" or not words[0]:
        return ""
    if namespace != mine or b"docker-registry" in words[0] or any(w.startswith(b"afterswarm.lab") for w in words):
        return b" ".join(words[:4]).decode(errors="replace").strip()
    return ""
