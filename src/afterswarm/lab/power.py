"""Power of a lab host: boot it, cut it, run something in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from afterswarm.lab import cable, processes
from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import REGISTRY, LabHost

CGROUPS = Path("/sys/fs/cgroup")
FIRST = "afterswarm.lab.init"
FIRST_WITHIN = 20.0  # seconds for a host's first process; milliseconds, unless the machine is very busy


def boot(host: LabHost, daemon_arguments: tuple[str, ...] = ()) -> LabHost:
    """Start the host's first process; engine and daemon come up behind it (see `wait_ready`)."""
    shutil.rmtree(host.run, ignore_errors=True)
    host.run.mkdir(parents=True)
    host.disk.mkdir(parents=True, exist_ok=True)
    sweep_cgroups(host)
    cable.plug(host)
    console = host.dir / "console.log"
    outer = processes.start(
        [
            "nsenter", f"--net={cable.NAMED / host.netns}",
            "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
            sys.executable, "-m", FIRST,
            host.name, str(host.dir), host.cgroup, REGISTRY, *daemon_arguments,
        ],
        console,
    )  # fmt: skip
    children = Path(f"/proc/{outer}/task/{outer}/children")
    ends = time.monotonic() + FIRST_WITHIN
    while processes.is_running(outer, host.name):
        with contextlib.suppress(OSError):
            if inner := children.read_text().split():
                return replace(host, state="up", pid=int(inner[0]))
        if time.monotonic() > ends:
            os.kill(outer, signal.SIGKILL)  # and with it whatever it may still start
            raise LabError(f"{host.name} did not boot within {FIRST_WITHIN:.0f} s: see {console}")
        time.sleep(0.01)
    raise LabError(f"{host.name} did not boot: see {console}")


def is_alive(host: LabHost) -> bool:
    """Whether `pid` is still that host's first process (and not another's that took the number)."""
    return processes.is_running(host.pid, FIRST)


def kill(host: LabHost) -> LabHost:
    """Power cut: every process of the host gets SIGKILL at once, and its link goes down."""
    if host.pid and is_alive(host):
        os.kill(host.pid, signal.SIGKILL)
    cable.power_off(host)
    for _ in range(500):
        if not is_alive(host):
            break
        time.sleep(0.01)
    return replace(host, state="off", pid=0)


def sweep_cgroups(host: LabHost) -> None:
    """Remove the empty control groups that a power cut leaves."""
    tops = [CGROUPS, *(d for d in CGROUPS.iterdir() if d.is_dir())] if CGROUPS.is_dir() else []
    for top in tops:
        here = top / host.cgroup.strip("/")
        if not here.is_dir():
            continue
        for folder, _, _ in os.walk(here, topdown=False):
            for _ in range(100):
                try:
                    Path(folder).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)  # the kernel is still taking the processes out of it
                else:
                    break
        with contextlib.suppress(OSError):  # other hosts' groups may be in it
            here.parent.rmdir()


def inside(host: LabHost, argv: list[str]) -> list[str]:
    """The command line that runs `argv` in the host's namespaces, with our socket as the docker host."""
    if not host.pid or not is_alive(host):
        raise LabError(f"{host.name} is off; `afterswarm lab start {host.name}` boots it")
    enter = ["nsenter", f"--target={host.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
    return [*enter, "env", "DOCKER_HOST=unix:///run/afterswarm/docker.sock", *argv]


def wait_ready(host: LabHost, within: float) -> None:
    """Until both sockets of the host answer; `LabError` naming the one that does not, and its log."""
    ends = time.monotonic() + within
    logs = {host.engine_socket: "dockerd.log", host.socket: "afterswarm.log"}
    for socket, log in logs.items():
        while not answers(socket):
            if not is_alive(host):
                raise LabError(f"{host.name} went off while booting: see {host.dir / 'console.log'}")
            if time.monotonic() > ends:
                raise LabError(f"{socket} does not answer: see {host.disk / 'log' / log}")
            time.sleep(0.05)


def answers(socket_path: str) -> bool:
    import socket  # noqa: PLC0415 - one use

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        try:
            s.connect(socket_path)
            s.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in s.recv(64)
        except OSError:
            return False
