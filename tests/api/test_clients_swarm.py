"""The real clients against the real server: both docker command lines and docker-py, with the swarm in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from msgspec.structs import replace

from afterswarm.api.host import LocalInfo
from afterswarm.model.base import Change
from afterswarm.model.node import Node, NodeState
from afterswarm.model.service import Endpoint, PortConfig, Service
from afterswarm.model.task import Report, Task, TaskState

ONE = "one" + "0" * 22


@asynccontextmanager
async def everything_starts(api: Any) -> AsyncIterator[None]:
    """In place of controllers and agents: every slot of a replicated service runs on node one, at once."""

    async def act() -> None:
        async for changes in api.host.cache.changes():
            for change in changes:
                if isinstance(change.new, Service):
                    await start(change.new)

    async def start(service: Service) -> None:
        snap = api.host.cache.snapshot()
        mode = service.spec.mode
        slots = (mode.replicated.replicas or 0) if mode.replicated else 1
        made: list[Change] = []
        for old in snap.tasks_of(service.id):
            if service.pending_delete or old.slot > slots:
                made += [Change(old, None), Change(snap.reports[old.id], None)]
        for slot in range(len(snap.tasks_of(service.id)) + 1, slots + 1):
            key = f"{service.id[:20]}{slot:05}"
            spec = service.spec.task_template
            task = Task(
                id=key,
                service_id=service.id,
                slot=slot,
                node_id=ONE,
                spec=spec,
                spec_version=service.spec_version,
                state=TaskState.ASSIGNED,
            )
            report = Report(id=key, service_id=service.id, node_id=ONE, state=TaskState.RUNNING, message="started")
            made += [Change(None, task), Change(None, report)]
        if service.pending_delete:
            made.append(Change(service, None))
        await api.host.cache.commit(made)

    async with asyncio.TaskGroup() as group:
        acting = group.create_task(act())
        yield
        acting.cancel()


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()[1:]]


async def test_nodes(cli: Any, api: Any) -> None:
    listed = rows(await cli("node", "ls"))
    assert [row[-6:] for row in listed if "*" in row] == [["*", "swarm-1", "Ready", "Active", "Leader", "20.10.24"]]
    assert ["swarm-2", "Ready", "Active", "Reachable", "20.10.24"] in [row[-5:] for row in listed]
    assert ["swarm-3", "Ready", "Active", "20.10.24"] in [row[-4:] for row in listed]
    assert "swarm-1" in await cli("node", "inspect", "--pretty", "self")
    assert await cli("node", "update", "--availability", "drain", "--label-add", "rack=1", "swarm-3") == "swarm-3"
    (shown,) = json.loads(await cli("node", "inspect", "swarm-3"))
    assert (shown["Spec"]["Availability"], shown["Spec"]["Labels"]) == ("drain", {"rack": "1"})
    assert "promoted to a manager" in await cli("node", "promote", "swarm-3")
    assert "manager" in await cli("node", "inspect", "-f", "{{.Spec.Role}}", "swarm-3")
    assert "demoted in the swarm" in await cli("node", "demote", "swarm-3")
    assert "is not down and can't be removed" in await cli.fails("node", "rm", "swarm-3")
    dead = next(n for n in api.stored(Node) if n.id.startswith("three"))
    await api.write(replace(dead, state=NodeState.DOWN))
    assert ["swarm-3", "Down", "Drain", "20.10.24"] in [row[-4:] for row in rows(await cli("node", "ls"))]
    assert await cli("node", "rm", "swarm-3") == "swarm-3"


async def test_tokens_and_settings(cli: Any, api: Any) -> None:
    assert await cli("swarm", "join-token", "-q", "worker") == "SWMTKN-w"
    assert "docker swarm join --token SWMTKN-m 10.77.0.1:2377" in await cli("swarm", "join-token", "manager")
    await cli("swarm", "join-token", "--rotate", "worker")
    assert "SWMTKN-1-" in await cli("swarm", "join-token", "worker")
    await cli("swarm", "update", "--task-history-limit", "3")
    shown = await api.ok("GET", "/swarm")
    assert shown["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 3}
    assert shown["Spec"]["CAConfig"]["NodeCertExpiry"] == 7_776_000_000_000_000
    assert "already part of a swarm" in await cli.fails("swarm", "init")
    assert "no unlock key is set" in await cli.fails("swarm", "unlock-key")
    assert "participating as a manager" in await cli.fails("swarm", "leave")


async def test_init_and_join(cli: Any, api: Any) -> None:
    api.host.become(LocalInfo())
    assert "This node is not a swarm manager" in await cli.fails("node", "ls")
    out = await cli("swarm", "init", "--advertise-addr", "10.77.0.1")
    assert out.startswith(f"Swarm initialized: current node ({ONE}) is now a manager.")
    assert "docker swarm join --token SWMTKN-w 10.77.0.1:2377" in out
    assert api.host.calls[0].advertise_addr == "10.77.0.1"
    api.host.become(LocalInfo())
    out = await cli("swarm", "join", "--token", "SWMTKN-w", "10.77.0.1:2377")
    assert out == "This node joined a swarm as a worker."
    assert api.host.calls[1].remote_addrs == ["10.77.0.1:2377"]


async def test_services(cli: Any, api: Any) -> None:
    key = await cli(
        "service", "create", "-d", "--no-resolve-image", "--name", "web", "--replicas", "2", "-p", "8080:80", "nginx:1"
    )
    assert key.splitlines()[-1] == api.stored(Service)[0].id
    (listed,) = rows(await cli("service", "ls"))
    assert listed[1:5] == ["web", "replicated", "0/2", "nginx:1"]
    pretty = await cli("service", "inspect", "--pretty", "web")
    assert "Replicas:\t2" in pretty
    ports = [PortConfig(target_port=80, published_port=8080)]
    await api.write(replace(api.stored(Service)[0], endpoint=Endpoint(ports=ports)))  # as the allocator would
    assert "PublishedPort = 8080" in await cli("service", "inspect", "--pretty", "web")
    assert rows(await cli("service", "ls"))[0][5] == "*:8080->80/tcp"
    await cli("service", "update", "-d", "--no-resolve-image", "--env-add", "A=1", "--limit-memory", "64M", "web")
    await cli("service", "update", "-d", "--no-resolve-image", "--force", "web")
    template = api.stored(Service)[0].spec.task_template
    assert template.container_spec.env == ["A=1"]
    assert (template.resources.limits.memory_bytes, template.force_update) == (64 << 20, 1)
    await cli("service", "rollback", "-d", "web")
    assert api.stored(Service)[0].spec.task_template.force_update == 0
    assert "already exists" in await cli.fails(
        "service", "create", "-d", "--no-resolve-image", "--name", "web", "nginx:1"
    )
    assert await cli("service", "rm", "web") == "web"
    assert rows(await cli("service", "ls")) == []
    assert "web" in (await cli.fails("service", "rm", "web")).lower()


async def test_the_progress_bar_converges(cli: Any, api: Any) -> None:
    async with everything_starts(api):
        quick = ("--update-monitor", "200ms", "--no-resolve-image")
        out = await cli("service", "create", *quick, "--name", "web", "--replicas", "2", "nginx:1")
        assert "overall progress: 2 out of 2 tasks" in out
        assert "onverged" in out
        out = await cli("service", "scale", "web=3")
        assert "overall progress: 3 out of 3 tasks" in out
        assert [row[3] for row in rows(await cli("service", "ls"))] == ["3/3"]
        shown = rows(await cli("service", "ps", "web"))
        assert sorted(row[1] for row in shown) == ["web.1", "web.2", "web.3"]
        assert {tuple(row[3:6]) for row in shown} == {("swarm-1", "Running", "Running")}
        assert len(rows(await cli("node", "ps", "self"))) == 3


STACK = """
version: "3.9"
services:
  web:
    image: nginx:1
    ports: ["8080:80"]
    networks: [back]
    secrets: [pw]
    configs: [{source: conf, target: /etc/app.conf}]
    deploy: {replicas: 2, placement: {constraints: [node.role == manager]}, update_config: {order: start-first}}
  agent:
    image: agent:1
    deploy: {mode: global}
networks: {back: {driver_opts: {com.docker.network.driver.mtu: "1400"}, attachable: true}}
secrets: {pw: {file: ./pw}}
configs: {conf: {file: ./conf}}
"""


async def test_a_stack(cli: Any, api: Any, tmp_path: Path) -> None:
    for name, text in (("pw", "hush"), ("conf", "a = 1"), ("stack.yml", STACK)):
        (tmp_path / name).write_text(text)
    file = str(tmp_path / "stack.yml")
    async with everything_starts(api):
        deploy = ("stack", "deploy", "--resolve-image", "never", "-c", file, "clinic")
        out = await cli(*deploy)
        assert "Creating network clinic_back" in out
        assert "Creating service clinic_web" in out
        before = {s.name: s.spec_version for s in api.stored(Service)}
        assert "Updating service clinic_web" in await cli(*deploy)
        assert {s.name: s.spec_version for s in api.stored(Service)} == before  # nothing of it changed
        assert [row[:2] for row in rows(await cli("stack", "ls"))] == [["clinic", "2"]]
        listed = {row[1]: row[2:4] for row in rows(await cli("stack", "services", "clinic"))}
        assert listed == {"clinic_web": ["replicated", "2/2"], "clinic_agent": ["global", "1/1"]}
        assert len(rows(await cli("stack", "ps", "clinic"))) == 3
        web = next(s for s in api.stored(Service) if s.name == "clinic_web").spec.task_template
        assert web.container_spec.secrets[0].secret_name == "clinic_pw"
        assert web.container_spec.configs[0].file.name == "/etc/app.conf"
        assert web.networks[0].target == (await api.ok("GET", "/networks/clinic_back"))["Id"]
        assert "is in use by the following service: clinic_web" in await cli.fails("secret", "rm", "clinic_pw")
        (tmp_path / "pw").write_text("new")
        assert "Updating service clinic_web" in await cli(*deploy)
        after = {s.name: s.spec_version for s in api.stored(Service)}
        assert after["clinic_web"] > before.pop("clinic_web")
        assert before.items() <= after.items()  # only those that use it
        await cli("stack", "rm", "clinic")
        assert rows(await cli("stack", "ls")) == []
        assert await api.ok("GET", "/secrets") == []


async def test_secrets_and_configs(cli: Any) -> None:
    key = await cli("secret", "create", "-l", "tier=db", "pw", "-", stdin="hush")
    assert [row[:2] for row in rows(await cli("secret", "ls"))] == [[key, "pw"]]
    (shown,) = json.loads(await cli("secret", "inspect", "pw"))
    assert shown["Spec"] == {"Name": "pw", "Labels": {"tier": "db"}}
    assert "secret pw already exists" in await cli.fails("secret", "create", "pw", "/etc/hostname")
    assert rows(await cli("secret", "ls", "-f", "label=tier=web")) == []
    await cli("config", "create", "conf", "-", stdin="a = 1")
    assert "a = 1" in await cli("config", "inspect", "--pretty", "conf")
    assert await cli("secret", "rm", "pw") == "pw"
    assert await cli("config", "rm", "conf") == "conf"
    assert "pw" in await cli.fails("secret", "rm", "pw")
    assert "invalid" in await cli.fails("secret", "create", "-", "/etc/hostname")


async def test_networks(cli: Any) -> None:
    key = await cli("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.9.0.0/24", "back")
    listed = [row[1:] for row in rows(await cli("network", "ls"))]
    assert listed == [["back", "overlay", "swarm"], ["bridge", "bridge", "local"], ["ingress", "overlay", "swarm"]]
    (shown,) = json.loads(await cli("network", "inspect", "-v", "back"))
    assert (shown["Id"], shown["Attachable"]) == (key, True)
    assert "already exists" in await cli.fails("network", "create", "-d", "overlay", "back")
    assert "Pool overlaps" in await cli.fails("network", "create", "-d", "overlay", "--subnet", "10.9.0.0/16", "more")
    await cli("service", "create", "-d", "--no-resolve-image", "--name", "web", "--network", "back", "nginx:1")
    assert f"network {key} is in use by service" in await cli.fails("network", "rm", "back")
    await cli("service", "rm", "web")
    assert await cli("network", "rm", "back") == "back"
    assert [row[1] for row in rows(await cli("network", "ls", "-f", "driver=overlay"))] == ["bridge", "ingress"]


@pytest.mark.row("CL-01", client="docker-py")
async def test_cl_01_docker_py(sock: Path, api: Any) -> None:
    def use() -> None:
        client = docker.DockerClient(base_url=f"unix://{sock}", version="1.41")
        try:
            spoken(client)
        finally:
            client.close()

    async with everything_starts(api):
        await asyncio.to_thread(use)


def spoken(client: Any) -> None:
    assert client.swarm.attrs["JoinTokens"]["Worker"] == "SWMTKN-w"
    assert [n.attrs["Description"]["Hostname"] for n in client.nodes.list(filters={"role": "manager"})] == [
        "swarm-1",
        "swarm-2",
    ]
    third = client.nodes.list(filters={"name": "swarm-3"})[0]
    third.update({"Availability": "drain", "Role": "worker", "Labels": {"a": "b"}})
    third.reload()
    assert third.attrs["Spec"]["Labels"] == {"a": "b"}
    secret = client.secrets.create(name="pw", data=b"hush", labels=None)
    assert client.secrets.get(secret.id).name == "pw"
    config = client.configs.create(name="conf", data=b"a = 1")
    network = client.networks.create("back", driver="overlay", attachable=True)
    kinds = docker.types
    service = client.services.create(
        "nginx:1",
        name="web",
        networks=[network.id],
        mode=kinds.ServiceMode("replicated", replicas=2),
        endpoint_spec=kinds.EndpointSpec(mode="vip", ports={8080: 80}),
        secrets=[kinds.SecretReference(secret.id, "pw")],
        configs=[kinds.ConfigReference(config.id, "conf", "/etc/app.conf")],
        resources=kinds.Resources(mem_limit=64 << 20),
        restart_policy=kinds.RestartPolicy(condition="any"),
        update_config=kinds.UpdateConfig(parallelism=1, order="start-first"),
        healthcheck=kinds.Healthcheck(test=["CMD", "true"], interval=1_000_000_000),
        env=["A=1"],
    )
    assert [s.name for s in client.services.list(filters={"name": "web"})] == ["web"]
    assert len(service.tasks(filters={"desired-state": "running"})) == 2
    assert service.scale(3)
    service.reload()
    assert service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"] == 3
    service.update(labels={"x": "y"}, fetch_current_spec=True)
    with pytest.raises(docker.errors.APIError, match="in use by the following service: web"):
        secret.remove()
    with pytest.raises(docker.errors.NotFound):
        client.services.get("nope")
    service.remove()
    secret.remove()
    config.remove()
    network.remove()
