"""python-on-whales, which reads what the command line prints, and checks the shape of every object that it is shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException

CLIENT = "/usr/bin/docker"
STACK = """
version: "3.9"
services:
  web: {image: "nginx:1", networks: [back], secrets: [pw], deploy: {replicas: 2}}
  agent: {image: "agent:1", deploy: {mode: global}}
networks: {back: {}}
secrets: {pw: {file: ./pw}}
"""


@pytest.mark.row("CL-02", client="python-on-whales")
async def test_cl_02_python_on_whales(live: Any, sock: Path, tmp_path: Path) -> None:
    if not Path(CLIENT).exists():
        pytest.skip(f"there is no {CLIENT}")
    (tmp_path / "pw").write_text("hush")
    (tmp_path / "stack.yml").write_text(STACK)
    docker = DockerClient(host=f"unix://{sock}", client_call=[CLIENT])
    for use in (nodes, services, secrets_and_configs):
        await asyncio.to_thread(use, docker, tmp_path)
    await asyncio.to_thread(stacks, docker, tmp_path)


def nodes(docker: DockerClient, _folder: Path) -> None:
    assert sorted(n.description.hostname for n in docker.node.list()) == ["swarm-1", "swarm-2", "swarm-3"]
    third = docker.node.inspect("swarm-3")
    docker.node.update(third, labels_add={"disk": "ssd"}, availability="pause")
    again = docker.node.inspect("swarm-3")
    assert (again.spec.labels, again.spec.availability, again.status.state) == ({"disk": "ssd"}, "pause", "ready")
    docker.node.update(third, rm_labels=["disk"], availability="active")
    docker.node.promote(third)
    assert docker.node.inspect("swarm-3").spec.role == "manager"
    docker.node.demote(third)
    assert docker.swarm.join_token("worker") == "SWMTKN-w"
    docker.swarm.update(task_history_limit=4)
    assert docker.system.info().swarm.local_node_state == "active"


def services(docker: DockerClient, _folder: Path) -> None:
    web = docker.service.create(
        "nginx:1",
        ["nginx", "-g", "daemon off;"],
        detach=True,  # it cannot say how long to watch, and five seconds are the default
        envs={"A": "1"},
        labels={"team": "a"},
        constraints=["node.platform.os==linux"],
    )
    assert web.spec.labels == {"team": "a"}
    assert web.spec.task_template.container_spec.env == ["A=1"]
    assert [s.id for s in docker.service.list()] == [web.id]
    docker.service.scale({web: 3}, detach=True)
    tasks = until(lambda: [t for t in web.ps() if t.status.state == "running"], 3)
    assert sorted(t.slot for t in tasks) == [1, 2, 3]
    assert docker.node.inspect(tasks[0].node_id).status.state == "ready"
    assert tasks[0].status.container_status.container_id
    assert docker.service.logs(web).count("speaks") == 3
    docker.service.update(web, force=True, detach=True)
    assert docker.service.inspect(web.spec.name).spec.mode["Replicated"] == {"Replicas": 3}
    with pytest.raises(DockerException, match="expected one operator"):
        docker.service.create("nginx:1", None, constraints=["nonsense"], detach=True)
    web.remove()
    assert not docker.service.exists(web.id)


def until(look: Callable[[], list[Any]], count: int) -> list[Any]:
    """What `look` sees once there are so many."""
    for _ in range(100):
        if len(found := look()) == count:
            return found
        time.sleep(0.1)
    pytest.fail(f"still {found}")


def secrets_and_configs(docker: DockerClient, folder: Path) -> None:
    secret = docker.secret.create("word", folder / "pw", labels={"a": "b"})
    assert [s.spec.name for s in docker.secret.list()] == ["word"]
    assert (secret.spec.name, secret.spec.labels) == ("word", {"a": "b"})
    secret.remove()
    config = docker.config.create("conf", folder / "pw")
    assert docker.config.inspect("conf").spec.data == "aHVzaA=="
    config.remove()


def stacks(docker: DockerClient, folder: Path) -> None:
    stack = docker.stack.deploy("clinic", [folder / "stack.yml"])
    assert [s.name for s in docker.stack.list()] == ["clinic"]
    assert sorted(s.spec.name for s in stack.services()) == ["clinic_agent", "clinic_web"]
    assert len(until(stack.ps, 5)) == 5
    stack.remove()
    assert docker.stack.list() == []
