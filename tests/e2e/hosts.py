"""The lab as tests use it: hosts by name, the docker command line on each, waits that say what they waited for."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from afterswarm.lab.hosts import REGISTRY, LabHost
from afterswarm.lab.lab import Lab
from afterswarm.lab.power import answers

T = TypeVar("T")
CLIENTS = {"20.10": "/usr/bin/docker", "28": "/usr/local/bin/docker"}
BUSYBOX = f"{REGISTRY}/busybox:1"


class DockerFailed(AssertionError):
    """The command line said no; `words` is what it said, `code` its exit code."""

    def __init__(self, argv: tuple[str, ...], words: str, code: int) -> None:
        super().__init__(f"docker {' '.join(argv)}: {words}")
        self.words, self.code = words, code


class Host:
    """One host of the lab."""

    def __init__(self, lab: Lab, name: str, client: str = CLIENTS["20.10"]) -> None:
        self.lab, self.name, self.client = lab, name, client

    @property
    def place(self) -> LabHost:
        return self.lab.host(self.lab.read(), self.name)

    @property
    def address(self) -> str:
        return self.place.address

    def docker(self, *argv: str, engine: bool = False, timeout: float = 120) -> str:
        """Run the docker command line against our socket (or the engine's own)."""
        place = self.place
        socket = place.engine_socket if engine else place.socket
        done = subprocess.run(
            [self.client, "-H", f"unix://{socket}", *argv], capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise DockerFailed(argv, (done.stderr + done.stdout).strip(), done.returncode)
        return done.stdout.strip()

    def fails(self, *argv: str) -> str:
        """The words with which the command is refused, with exit code 1 as Docker's."""
        try:
            out = self.docker(*argv)
        except DockerFailed as failed:
            if failed.code != 1:
                raise
            return failed.words
        raise AssertionError(f"docker {' '.join(argv)} should have failed, and said: {out}")

    def with_client(self, version: str) -> Host:
        """The same host, by way of another docker command line."""
        if not Path(CLIENTS[version]).exists():
            pytest.skip(f"no docker command line {version} at {CLIENTS[version]}")
        return Host(self.lab, self.name, CLIENTS[version])

    def json(self, *argv: str) -> Any:
        """Output of an `inspect`."""
        return json.loads(self.docker(*argv))

    def run(self, *argv: str, timeout: float = 60) -> str:
        """Run a program on the host."""
        from afterswarm.lab.power import inside  # noqa: PLC0415

        done = subprocess.run(
            inside(self.place, list(argv)), capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{self.name}$ {' '.join(argv)}: {done.stderr or done.stdout}"
        return done.stdout.strip()

    def nodes(self) -> dict[str, str]:
        """Host name -> status, of every node that the host knows."""
        rows = self.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}").splitlines()
        return dict(row.split(" ", 1) for row in rows)

    def replicas(self, service: str) -> str:
        rows = self.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}").splitlines()
        return dict(row.split(" ", 1) for row in rows).get(service, "")

    def running(self, service: str) -> list[tuple[str, str]]:
        """(task name, node) of the service's running tasks."""
        rows = self.docker(
            "service", "ps", service, "--no-trunc", "--filter", "desired-state=running",
            "--format", "{{.Name}} {{.Node}} {{.CurrentState}}",
        ).splitlines()  # fmt: skip
        return [(name, node) for name, node, state, *_ in (r.split(" ") for r in rows) if state == "Running"]


def until(what: str, good: Callable[[], T], within: float = 60.0, every: float = 0.2) -> T:
    """Call `good` until what it returns is true; what it raises counts as not yet."""
    ends = time.monotonic() + within
    last: object = None
    while time.monotonic() < ends:
        try:
            last = good()
        except (AssertionError, OSError, subprocess.TimeoutExpired) as e:
            last = e
        else:
            if last:
                return last
        time.sleep(every)
    raise AssertionError(f"{what}: not within {within:.0f} s; last seen: {last!r}")


def daemon_pid(host: Host) -> int:
    """Inside the host."""
    found = host.run("sh", "-c", "grep -lz '^afterswarm.cli.main$' /proc/[0-9]*/cmdline; true").split()
    return int(found[0].split("/")[2]) if found else 0


def restart_daemon(host: Host, number: signal.Signals = signal.SIGKILL) -> None:
    """The host's first process starts it again after a second, as the systemd unit would."""
    pid = daemon_pid(host)
    host.run("kill", f"-{number.value}", str(pid))
    until("the daemon is another", lambda: daemon_pid(host) not in (0, pid))
    until("it answers", lambda: answers(host.place.socket))


def logs(lab: Lab) -> str:
    """The end of every daemon's log, for a failure's report."""
    parts = []
    for host in lab.read().hosts:
        log = Path(host.disk) / "log" / "afterswarm.log"
        if log.exists():
            parts.append(f"--- {host.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
    return "\n".join(parts)
