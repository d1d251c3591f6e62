"""Planned work under load: not one request is lost while tasks, hosts and daemons come and go."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import BUSYBOX, Host, until

LOAD = Path(__file__).parents[2] / "bench" / "load"
RATE = int(os.environ.get("AFTERSWARM_LOAD_RATE", "300"))  # requests a second
MOST = 180.0  # seconds that the client goes on if nobody stops it
PORT = 8080
REPLICAS = 6
INTERPRETER = sorted({"/usr", "/lib", "/lib64", sys.base_prefix, str(LOAD)})


@pytest.fixture(scope="module")
def web(swarm: list[Host]) -> Iterator[list[Host]]:
    first = swarm[0]
    mounts = [
        f"--mount=type=bind,source={place},target={place},readonly" for place in INTERPRETER if Path(place).exists()
    ]
    first.docker(
        "service", "create", "-d", "--name", "web", "--replicas", str(REPLICAS), "--publish", f"{PORT}:80", *mounts,
        "--update-order", "start-first", "--update-parallelism", "2", "--update-monitor", "1s",
        # ready is what answers: without a check, a task counts as soon as its process is there
        "--health-cmd", "test -f /tmp/up", "--health-interval", "1s", "--health-retries", "5",
        BUSYBOX, os.path.realpath(sys.executable), str(LOAD / "server.py"),
    )  # fmt: skip
    settled(swarm)
    yield swarm
    first.docker("service", "rm", "web")


def settled(hosts: list[Host], replicas: int = REPLICAS) -> None:
    until(f"{replicas} run", lambda: len(hosts[0].running("web")) == replicas)


@contextlib.contextmanager
def load(hosts: list[Host]) -> Iterator[dict[str, Any]]:
    """Requests through every host, until the block ends; then what became of them."""
    said: dict[str, Any] = {}
    argv = [sys.executable, str(LOAD / "client.py"), str(PORT), str(RATE), str(MOST), *(h.address for h in hosts)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        try:
            yield said
        finally:
            client.send_signal(signal.SIGTERM)
            assert client.stdout
            said.update(json.loads(client.stdout.read() or "{}"))
    print(said)


def lossless(said: dict[str, Any]) -> None:
    assert said["requests"] > 500, "a load that is none proves nothing"
    assert said["failed"] == 0, said


def test_a_rolling_update(web: list[Host]) -> None:
    first = web[0]
    with load(web) as said:
        first.docker("service", "update", "-d", "--env-add", "VERSION=2", "web")
        until("the update is over", lambda: state(first) == "completed")
        settled(web)
        first.docker("service", "update", "-d", "--update-order", "stop-first", "--env-add", "VERSION=3", "web")
        until("the update is over", lambda: state(first) == "completed")
        settled(web)
    lossless(said)


def state(host: Host) -> str:
    return host.docker("service", "inspect", "--format", "{{.UpdateStatus.State}}", "web")


def test_scaling_down_and_up(web: list[Host]) -> None:
    with load(web) as said:
        for replicas in (2, REPLICAS):
            web[0].docker("service", "scale", "-d", f"web={replicas}")
            settled(web, replicas)
    lossless(said)


def test_draining_a_host_and_taking_it_back(web: list[Host]) -> None:
    first, drained = web[0], web[2]
    with load(web) as said:
        first.docker("node", "update", "--availability", "drain", drained.name)
        until("it is empty", lambda: drained.name not in Counter(node for _, node in first.running("web")))
        settled(web)
        first.docker("node", "update", "--availability", "active", drained.name)
    lossless(said)


def test_every_daemon_restarts_in_turn(web: list[Host]) -> None:
    with load(web) as said:
        for host in web:
            before = daemon(host)
            host.run("kill", "-KILL", str(before))
            until("another one", lambda: daemon(host) not in (0, before))  # noqa: B023
            until("it answers", lambda: set(host.nodes().values()) == {"Ready"})  # noqa: B023
    lossless(said)


def test_the_leader_changes(web: list[Host]) -> None:
    leads = until("there is a leader", lambda: leader(web[0]))
    host = next(h for h in web if h.name == leads)
    with load(web) as said:
        host.run("kill", "-STOP", str(daemon(host)))
        try:
            others = next(h for h in web if h.name != leads)
            until("another one leads", lambda: leader(others) not in ("", leads))
        finally:
            host.run("kill", "-CONT", str(daemon(host)))
        until("all are well", lambda: set(host.nodes().values()) == {"Ready"})
    lossless(said)


def leader(host: Host) -> str:
    rows = host.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
    return next((row.split()[0] for row in rows if row.endswith(" Leader")), "")


def daemon(host: Host) -> int:
    """The pid of the host's daemon, in its own namespace; 0 while there is none."""
    for row in host.run("ps", "-eo", "pid=,args=").splitlines():
        pid, _, command = row.strip().partition(" ")
        if re.match(r"\S*python\S* -m afterswarm\.cli\.main daemon", command):
            return int(pid)
    return 0


def test_a_power_cut(web: list[Host]) -> None:
    """Through the hosts that are left, every request that is begun after the cut is answered.

    What the dead host was just answering is lost, with everything else that it knew.
    """
    leads = until("there is a leader", lambda: leader(web[0]))
    victim = next(h for h in web if h.name != leads)
    others = [h for h in web if h is not victim]
    with load(others) as said:
        time.sleep(1)
        victim.lab.kill(victim.name)
        cut = time.time()  # the link is down; until then its kernel could still refuse
        until("its tasks run elsewhere", lambda: victim.name not in {node for _, node in others[0].running("web")})
        settled(others)
        time.sleep(1)
    victim.lab.start(victim.name)
    until("it is back", lambda: set(others[0].nodes().values()) == {"Ready"})
    affected = [when - cut for when in said["delayed_at"] if when > cut]
    print(f"{len(affected)} delayed, the last one begun {max(affected, default=0):.2f} s after the cut")
    assert said["requests"] > 500
    assert [when - cut for when in said["failed_at"] if when > cut] == [], said
