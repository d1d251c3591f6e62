"""One host of the lab: its names, addresses and places. Nothing here touches the machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

PREFIX = "10.77.0"
PREFIX6 = "fd77:5377::"  # hosts are dialled there too; what they say to each other goes over IPv4
BRIDGE = "asw-lab"
GATEWAY = f"{PREFIX}.254"
GATEWAY6 = f"{PREFIX6}254"
REGISTRY = f"{GATEWAY}:5000"
MOST = 9
ROOT = Path("/var/lib/afterswarm-lab")


class LabHost(msgspec.Struct, frozen=True, kw_only=True):
    """Host number `index` (1, 2, …). `state` is up, off (power cut) or cut (partitioned)."""

    index: int
    root: str
    state: str = "off"
    pid: int = 0  # first process of the host, as seen from outside; 0 when off

    @property
    def name(self) -> str:
        return f"swarm-{self.index}"

    @property
    def address(self) -> str:
        return f"{PREFIX}.{self.index}"

    @property
    def address6(self) -> str:
        return f"{PREFIX6}{self.index}"

    @property
    def netns(self) -> str:
        return f"asw-{self.name}"

    @property
    def link(self) -> str:
        """The bridge's end of the host's cable."""
        return f"asw-v{self.index}"

    @property
    def dir(self) -> Path:
        return Path(self.root) / self.name

    @property
    def disk(self) -> Path:
        """What survives a power cut."""
        return self.dir / "disk"

    @property
    def run(self) -> Path:
        """The host's /run: emptied at every boot."""
        return self.dir / "run"

    @property
    def socket(self) -> str:
        return str(self.run / "afterswarm" / "docker.sock")

    @property
    def engine_socket(self) -> str:
        return str(self.run / "docker.sock")

    @property
    def cgroup(self) -> str:
        return f"/afterswarm-lab/{self.name}"

    def shown(self) -> dict[str, str | int]:
        """What `lab status --json` says of the host."""
        return {
            "name": self.name,
            "address": self.address,
            "socket": self.socket,
            "engine_socket": self.engine_socket,
            "state": self.state,
            "pid": self.pid,
        }


class LabState(msgspec.Struct, frozen=True, kw_only=True):
    """What the lab remembers between two commands (`lab.json` in its directory)."""

    hosts: list[LabHost] = []
    registry_pid: int = 0
    forwarded: bool = True  # ip_forward was on before us, and stays so
    named: bool = True  # the place of named network namespaces was there before us, and stays
