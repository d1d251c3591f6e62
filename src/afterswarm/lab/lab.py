"""The lab as a whole: up, down, and what it remembers in between."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

import msgspec
from msgspec.structs import replace

from afterswarm.lab import cable, power, registry
from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import BRIDGE, MOST, ROOT, LabHost, LabState

PROGRAMS = {
    "ip": "iproute2", "bridge": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux",
    "dockerd": "docker.io", "etcd": "etcd-server", "docker-registry": "docker-registry", "conntrack": "conntrack",
    "iptables": "iptables", "hostname": "hostname",
}  # fmt: skip
BOOT_WITHIN = 60.0  # seconds


def check(out: Callable[[str], None]) -> None:
    """Refuse clearly where the machine lacks something."""
    need_root()
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if missing:
        raise LabError(f"programs are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    for module in ("br_netfilter", "vxlan", "overlay", "nf_conntrack"):
        subprocess.run(["modprobe", "-q", module], check=False) if shutil.which("modprobe") else None
    for kind, *options in (("bridge",), ("veth",), ("vxlan", "id", "1", "dstport", "4789")):
        argv = ["unshare", "--net", "ip", "link", "add", "asw-probe", "type", kind, *options]
        probe = subprocess.run(argv, capture_output=True, text=True, check=False)
        if probe.returncode:
            raise LabError(f"this kernel has no {kind} devices ({probe.stderr.strip()}); the lab cannot run here")
    if not Path("/proc/sys/net/bridge").exists():
        out("note: no br_netfilter in this kernel; traffic between containers of one host is not filtered")


def need_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces, bridges and mounts: run it as root (sudo afterswarm lab …)")


class Lab:
    """A lab in `root`. Each method prints what it does through `out`; `LabError` says what to do next."""

    def __init__(self, root: Path = ROOT, out: Callable[[str], None] = print) -> None:
        self.root, self.out = root, out

    def read(self) -> LabState:
        """The lab's hosts as they are now: one whose first process is gone is off, whatever was written."""
        try:
            state = msgspec.json.decode((self.root / "lab.json").read_bytes(), type=LabState)
        except FileNotFoundError:
            return LabState()
        hosts = [h if not h.pid or power.is_alive(h) else replace(h, state="off", pid=0) for h in state.hosts]
        return replace(state, hosts=hosts)

    def write(self, state: LabState) -> None:
        partial = self.root / "lab.json.new"
        partial.write_bytes(msgspec.json.encode(state))
        partial.replace(self.root / "lab.json")

    @contextmanager
    def locked(self) -> Iterator[LabState]:
        """Two commands at once wait for each other."""
        need_root()
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            flock(lock, LOCK_EX)
            yield self.read()

    def host(self, state: LabState, name: str) -> LabHost:
        for host in state.hosts:
            if host.name == name:
                return host
        known = ", ".join(h.name for h in state.hosts) or "none; `afterswarm lab up` makes them"
        raise LabError(f"no host {name!r} in the lab (hosts: {known})")

    def put(self, host: LabHost) -> None:
        state = self.read()
        self.write(replace(state, hosts=[host if h.index == host.index else h for h in state.hosts]))

    def up(self, count: int = 3, *, wait: bool = True) -> list[LabHost]:
        """Make and boot `count` hosts and the registry. Hosts that are up already stay as they are."""
        if not 1 <= count <= MOST:
            raise LabError(f"--hosts takes 1 to {MOST}")
        check(self.out)
        with self.locked() as state:
            laid = Path(f"/sys/class/net/{BRIDGE}").exists()
            forwarded = state.forwarded if laid else cable.lay_bridge()
            named = state.named if laid else cable.has_named_namespaces()
            known = {h.index: h for h in state.hosts}
            hosts = [known.get(i) or LabHost(index=i, root=str(self.root)) for i in range(1, max(count, *known, 1) + 1)]
            begun = LabState(hosts=hosts, registry_pid=state.registry_pid, forwarded=forwarded, named=named)
            self.write(begun)
            pid = state.registry_pid
            if not registry.is_running(pid):
                pid = registry.start(self.root)
                self.out("registry  at 10.77.0.254:5000")
            booted = []
            for host in hosts:
                booted.append(host if host.state != "off" else power.boot(host))
                self.write(replace(begun, hosts=[*booted, *hosts[len(booted) :]], registry_pid=pid))
        if wait:
            with ThreadPoolExecutor() as pool:
                for host in pool.map(self.ready, booted):
                    self.out(f"{host.name}   at {host.address}, socket {host.socket}")
        return booted

    @staticmethod
    def ready(host: LabHost) -> LabHost:
        power.wait_ready(host, BOOT_WITHIN)
        return host

    def start(self, name: str, *, wait: bool = True) -> LabHost:
        """Boot a host again with the same disk."""
        with self.locked() as state:
            host = self.host(state, name)
            if host.state == "off":
                host = power.boot(host)
                self.put(host)
        if wait:
            power.wait_ready(host, BOOT_WITHIN)
        return host

    def kill(self, name: str) -> LabHost:
        with self.locked() as state:
            host = power.kill(self.host(state, name))
            self.put(host)
            return host

    def cut(self, name: str) -> LabHost:
        with self.locked() as state:
            host = self.host(state, name)
            if host.state == "off":
                raise LabError(f"{name} is off; there is nothing to cut")
            cable.cut(host)
            self.put(host := replace(host, state="cut"))
            return host

    def heal(self, name: str) -> LabHost:
        with self.locked() as state:
            host = self.host(state, name)
            if host.state == "cut":
                cable.heal(host)
                self.put(host := replace(host, state="up"))
            return host

    def down(self) -> None:
        """Leave nothing behind but the registry's images (`root`/registry), which make the next lab quick."""
        with self.locked() as state:
            with ThreadPoolExecutor() as pool:
                list(pool.map(power.kill, state.hosts))
            registry.stop(state.registry_pid)
            for host in state.hosts:
                power.sweep_cgroups(host)
                cable.unplug(host)
                shutil.rmtree(host.dir, ignore_errors=True)
            if state.hosts:
                cable.remove_bridge(forwarded=state.forwarded)
                if not state.named:
                    cable.forget_named_namespaces()
            (self.root / "lab.json").unlink(missing_ok=True)
