"""Jobs, limits and generic resources on real hosts: what containers and engines show, by the docker command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import BUSYBOX, CLIENTS, Host, until

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
QUICK = ("--restart-delay", "200ms")
GPUS = {"node-generic-resources": ["NVIDIA-GPU=UUID1", "NVIDIA-GPU=UUID2"], "labels": ["disk=nvme"]}


@pytest.fixture
def first(swarm: list[Host]) -> Iterator[Host]:
    """A manager of a swarm without services."""
    yield swarm[0]
    if services := swarm[0].docker("service", "ls", "-q").split():
        swarm[0].docker("service", "rm", *services)


@pytest.fixture(scope="module", autouse=True)
def gpus(hosts: list[Host]) -> Iterator[None]:
    """The third host's engine is told of its GPUs below, and afterwards has none."""
    yield
    Path(hosts[2].place.disk, "docker", "daemon.json").write_text("{}\n")


def create(host: Host, name: str, *flags: str, command: tuple[str, ...] = FOREVER) -> str:
    return host.docker("service", "create", "--no-resolve-image", "--name", name, *QUICK, *flags, BUSYBOX, *command)


def states(host: Host, name: str) -> Counter[str]:
    shown = host.docker("service", "ps", "--format", "{{.CurrentState}}", name)
    return Counter(line.split()[0] for line in shown.splitlines())


def places(host: Host, name: str) -> list[str]:
    """`swarm-1 Running` of each task."""
    shown = host.docker("service", "ps", "--format", "{{.Node}} {{.CurrentState}}", name)
    return [" ".join(line.split()[:2]) for line in shown.splitlines()]


def errors(host: Host, name: str) -> list[str]:
    shown = host.docker("service", "ps", "--no-trunc", "--format", "{{.Error}}", name)
    return [line.strip('"') for line in shown.splitlines() if line]


@pytest.mark.row("MO-03", "MO-04", "MO-05", "MO-06")
@pytest.mark.parametrize("client", CLIENTS)
def test_mo_03_jobs_run_to_their_end(swarm: list[Host], first: Host, client: str) -> None:
    host = first.with_client(client)
    say = ("sh", "-c", "echo slot {{.Task.Slot}}; sleep 0.3")
    out = create(host, "sums", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2", command=say)
    assert "job complete" in out
    assert host.replicas("sums") == "0/2 (5/5 completed)"
    assert states(host, "sums") == {"Complete": 5}
    out = create(host, "sweep", "--mode", "global-job", command=("hostname",))
    assert "job complete" in out
    assert host.replicas("sweep") == "0/0 (3/3 completed)"
    assert "job complete" in host.docker("service", "update", "--force", "sums")
    assert host.replicas("sums") == "0/2 (5/5 completed)"
    assert len(host.docker("service", "logs", "sums").splitlines()) == 10
    names = [c for h in swarm for c in h.docker("ps", "-a", "--format", "{{.Names}}", engine=True).split()]
    assert {n.split(".")[1] for n in names if n.startswith("sums.")} >= {"1", "2", "3", "4"}
    assert {s.split(".")[1] for s in names if s.startswith("sweep.")} == set(host.docker("node", "ls", "-q").split())


@pytest.mark.row("RS-01")
def test_rs_01_limits_bind(first: Host) -> None:
    forks = "exec 2>&1; for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"
    spins = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null; true"
    job = ("-d", "--mode", "replicated-job", "--restart-condition", "none")
    create(first, "forks", *job, "--limit-pids", "4", command=("sh", "-c", forks))
    create(first, "eats", *job, "--limit-memory", "8M", command=("tail", "/dev/zero"))
    create(first, "spins", *job, "--limit-cpu", "0.5", command=("sh", "-c", spins))
    until("it has had too much", lambda: any("non-zero exit (137)" in e for e in errors(first, "eats")))
    until("it could not fork", lambda: "fork" in first.docker("service", "logs", "forks"))
    until("it said its share", lambda: "50000" in first.docker("service", "logs", "spins"))


@pytest.mark.row("PL-12", "ND-13", "SV-30")
def test_pl_12_gpus_of_a_real_engine(swarm: list[Host], first: Host) -> None:
    third = swarm[2]
    Path(third.place.disk, "docker", "daemon.json").write_text(json.dumps(GPUS))
    third.run("sh", "-c", "kill $(cat /run/docker.pid)")  # as `systemctl restart docker`
    flags = ("-d", "--replicas", "3", "--generic-resource", "NVIDIA-GPU=1")
    create(first, "train", *flags, command=("sleep", "1000"))
    create(first, "fast", "-d", "--constraint", "engine.labels.disk==nvme")
    words = "no suitable node (insufficient resources on 3 nodes)"
    assert until("all wait", lambda: Counter(errors(first, "train"))[words] == 3)
    until("two have one", lambda: len(first.running("train")) == 2, within=60)
    assert {node for _, node in first.running("train")} == {"swarm-3"}
    assert errors(first, "train") == [words]
    until("its label is known", lambda: [node for _, node in first.running("fast")] == ["swarm-3"])
    made = third.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=train").split()
    seen = [line for c in made for line in third.docker("exec", c, "env").splitlines()]
    given = sorted(line for line in seen if line.startswith("DOCKER_RESOURCE"))
    assert given == [f"DOCKER_RESOURCE_NVIDIA-GPU=UUID{n}" for n in (1, 2)]
    shown = first.json("node", "inspect", "swarm-3")[0]["Description"]
    assert len(shown["Resources"]["GenericResources"]) == 2
    assert shown["Engine"]["Labels"] == {"disk": "nvme"}


@pytest.mark.row("MO-03")
def test_mo_03_a_power_cut_has_unfinished_tasks_run_elsewhere(swarm: list[Host], first: Host) -> None:
    victim = swarm[2]
    create(first, "short", "-d", "--mode", "replicated-job", "--replicas", "3", command=("true",))
    create(first, "long", "-d", "--mode", "replicated-job", "--replicas", "3", command=("sleep", "8"))
    until("each host has one", lambda: sorted(places(first, "long")) == [f"{h.name} Running" for h in swarm])
    until("that is done", lambda: first.replicas("short") == "0/3 (3/3 completed)")
    first.lab.kill(victim.name)
    until("it is done elsewhere", lambda: first.replicas("long") == "0/3 (3/3 completed)", within=40)
    elsewhere = [place for place in places(first, "long") if not place.startswith(victim.name)]
    assert [place.split()[1] for place in elsewhere] == ["Complete"] * 3
    assert sum(states(first, "short").values()) == 3
    first.lab.start(victim.name)
    until("it is back", lambda: first.nodes()[victim.name] == "Ready")
    assert first.replicas("long") == "0/3 (3/3 completed)"
