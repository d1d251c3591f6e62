"""Rows ST, SC and UP on real engines: stacks that come and go, files that change in place, a port that one can have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import BUSYBOX, CLIENTS, Host, until

LOOP = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
STACK = f"""
version: "3.9"
services:
  web:
    image: {BUSYBOX}
    command: ["sh", "-c", "{LOOP}"]
    secrets: [word]
    configs: [{{source: motd, target: /etc/motd}}]
    networks: [front]
    ports: ["8077:80"]
    deploy:
      replicas: 4
      labels: {{afterswarm.drain: "0"}}
      update_config: {{monitor: 500ms, parallelism: 2}}
      rollback_config: {{monitor: 500ms, parallelism: 0}}
  agent:
    image: {BUSYBOX}
    command: ["sh", "-c", "{LOOP}"]
    networks: [front]
    deploy: {{mode: global, labels: {{afterswarm.drain: "0"}}, update_config: {{monitor: 500ms}}}}
networks: {{front: {{ipam: {{config: [{{subnet: 10.99.7.0/28}}]}}}}}}
secrets: {{word: {{file: ./word}}}}
configs: {{motd: {{file: ./motd}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("word", "sesame\n"), ("motd", "welcome\n"), ("stack.yml", STACK)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture(autouse=True)
def cleared(swarm: list[Host]) -> Iterator[None]:
    yield
    swarm[0].docker("stack", "rm", "st")
    until("nothing of it is left", lambda: not any(left(host) for host in swarm), within=30)


def left(host: Host) -> list[str]:
    """Containers and networks of the stack on this host's engine."""
    containers = host.docker("ps", "-aq", "--filter", "name=st_", engine=True).split()
    return containers + host.docker("network", "ls", "-q", "--filter", "name=st_", engine=True).split()


def complete(host: Host) -> bool:
    return host.replicas("st_web") == "4/4" and host.replicas("st_agent") == "3/3"


def read(swarm: list[Host]) -> set[tuple[str, ...]]:
    """What the containers of `web` see in their two files."""
    return {
        tuple(host.docker("exec", c, "cat", "/run/secrets/word", "/etc/motd", engine=True).splitlines())
        for host in swarm
        for c in host.docker("ps", "-q", "--filter", "name=st_web.", engine=True).split()
    }


@pytest.mark.row("ST-04", "ST-02")
def test_st_04_removed_and_deployed_at_once_ten_times(swarm: list[Host], folder: Path) -> None:
    """With a published port and a small subnet of its own, which the tasks before still have."""
    deploy = ("stack", "deploy", "-c", str(folder / "stack.yml"), "st")
    swarm[0].docker(*deploy)
    until("it runs", lambda: complete(swarm[0]))
    before: set[str] = set()
    for turn in range(10):
        host = swarm[turn % 3].with_client(list(CLIENTS)[turn % 2])
        ids = set(host.docker("stack", "ps", "-q", "--no-trunc", "st").split())
        assert not ids & before
        before = ids
        host.docker("stack", "rm", "st")
        said = host.docker(*deploy)
        assert all(f"Creating {kind}" in said for kind in ("network", "secret", "config", "service"))
        until(f"it runs again, time {turn + 1}", lambda: complete(swarm[0]), within=30)
    assert read(swarm) == {("sesame", "welcome")}
    errors = swarm[0].docker("stack", "ps", "--no-trunc", "--format", "{{.Error}}", "-f", "desired-state=running", "st")
    assert not errors.replace("\n", "")
    for host in swarm:
        assert len(host.docker("network", "ls", "-q", "--filter", "name=st_front", engine=True).split()) == 1


@pytest.mark.row("UP-08")
@pytest.mark.row("SC-03", differs="new data is accepted: services that use it are updated, and rolled back with it")
@pytest.mark.parametrize("client", CLIENTS)
def test_sc_03_files_change_in_place(swarm: list[Host], folder: Path, client: str) -> None:
    first = swarm[0].with_client(client)
    deploy = ("stack", "deploy", "-c", str(folder / "stack.yml"), "st")
    first.docker(*deploy)
    until("it runs", lambda: complete(first))
    agents = set(first.running("st_agent"))
    (folder / "word").write_text("open\n")
    (folder / "motd").write_text("come in\n")
    first.docker(*deploy)
    until("all see the new files", lambda: read(swarm) == {("open", "come in")} and complete(first), within=30)
    assert set(first.running("st_agent")) == agents
    swarm[1].docker("service", "rollback", "-d", "st_web")
    until("all see the old files", lambda: read(swarm) == {("sesame", "welcome")} and complete(first), within=30)


@pytest.mark.row("UP-03")
def test_up_03_start_first_with_a_port_of_the_host(swarm: list[Host]) -> None:
    port = ("-p", "mode=host,published=8078,target=80", "--update-order", "start-first", "--update-monitor", "500ms")
    flags = ("--name", "st_host", "--mode", "global", "--label", "com.docker.stack.namespace=st", *port)
    swarm[0].docker("service", "create", "-d", *flags, BUSYBOX, "sh", "-c", LOOP)
    until("it runs", lambda: swarm[0].replicas("st_host") == "3/3")
    swarm[0].docker("service", "update", "--env-add", "A=1", "st_host", timeout=60)
    assert swarm[0].docker("service", "inspect", "-f", "{{.UpdateStatus.State}}", "st_host") == "completed"
    assert swarm[0].replicas("st_host") == "3/3"
