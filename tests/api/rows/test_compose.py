"""`afterswarm stack deploy` against a swarm that is alive: what docker drops, and how the two get on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from afterswarm.stack.reader import Unreadable, compose

try:
    compose()
except Unreadable as why:
    pytest.skip(str(why), allow_module_level=True)

ROLL = {"monitor": "200ms", "order": "start-first"}


@pytest.fixture
def ours(program: Any) -> Any:
    """The command line `afterswarm`, used as a docker command line is."""
    return program(Path(sys.executable).parent / "afterswarm")


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a compose file (JSON is YAML) of these services, and says where it is."""

    def write(services: dict[str, Any], **more: Any) -> str:
        path = tmp_path / "compose.yaml"
        path.write_text(json.dumps({"services": services, **more}))
        return str(path)

    return write


async def deployed(ours: Any, path: str, *options: str) -> str:
    return str(await ours("stack", "deploy", "-c", path, "--resolve-image", "never", *options, "shop"))


@pytest.mark.row("ST-06", "ST-09", "ST-10", client="afterswarm stack")
async def test_st_10_services_start_in_order(ours: Any, live: Any, api: Any, file: Any) -> None:
    services = {
        "web": {
            "image": "nginx:1",
            "depends_on": {
                "db": {"condition": "service_healthy"},
                "migrate": {"condition": "service_completed_successfully"},
            },
        },
        "db": {"image": "healthy:0.7", "healthcheck": {"test": ["CMD", "true"]}},
        "migrate": {"image": "exits:0", "depends_on": ["db"]},
    }
    out = await deployed(ours, file(services))
    assert "shop_web: 0/1 running (waiting for db to be healthy)" in out
    assert "ok     shop_web: 1/1 running" in out
    shown = {s["ID"]: s["Spec"]["Name"] for s in await api.ok("GET", "/services")}
    came = {shown[t["ServiceID"]]: t["Status"] for t in await api.ok("GET", "/tasks")}
    assert {name: status["State"] for name, status in came.items()} == {
        "shop_db": "running",
        "shop_migrate": "complete",
        "shop_web": "running",
    }
    assert came["shop_web"]["Timestamp"] > came["shop_db"]["Timestamp"]
    assert came["shop_web"]["Timestamp"] > came["shop_migrate"]["Timestamp"]


@pytest.mark.row("ST-10", client="afterswarm stack")
async def test_st_10_the_reason_is_in_service_ps(cli: Any, ours: Any, live: Any, file: Any, eventually: Any) -> None:
    services = {
        "web": {"image": "nginx:1", "depends_on": {"db": {"condition": "service_healthy"}}},
        "db": {"image": "unhealthy:900", "healthcheck": {"test": ["CMD", "true"]}},
    }
    await deployed(ours, file(services), "--detach")

    async def said() -> bool:
        shown = await cli("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "shop_web")
        return shown.startswith("Pending") and "waiting for db to be healthy" in shown

    await eventually(said)


@pytest.mark.row("ST-10", client="afterswarm stack")
async def test_st_10_a_cycle_is_refused(cli: Any, live: Any) -> None:
    await cli("service", "create", "-d", "--name", "a", "--label", "afterswarm.depends-on=b", "nginx:1")
    said = await cli.fails("service", "create", "-d", "--name", "b", "--label", "afterswarm.depends-on=a", "nginx:1")
    assert "b -> a -> b wait for each other" in said


@pytest.mark.row("ST-01", client="afterswarm stack")
async def test_st_01_a_failure_has_a_reason_and_an_exit_code(ours: Any, live: Any, file: Any) -> None:
    services = {
        "migrate": {"image": "exits:3", "restart": "no"},
        "web": {"image": "nginx:1", "depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
        "fine": {"image": "healthy:0.1", "healthcheck": {"test": ["CMD", "true"]}},
    }
    out = await ours.fails("stack", "deploy", "-c", file(services), "--resolve-image", "never", "shop")
    assert "error: shop_migrate: 0/1 running (task: non-zero exit (3))" in out
    assert "error: shop_web: 0/1 running (waiting for migrate to complete: it failed (task: non-zero exit (3)))" in out
    assert "error: shop_fine" not in out


async def test_a_deployment_that_takes_too_long_fails(ours: Any, live: Any, file: Any) -> None:
    services = {"web": {"image": "nginx:1", "deploy": {"placement": {"constraints": ["node.labels.x==y"]}}}}
    out = await ours.fails(
        "stack", "deploy", "-c", file(services), "--resolve-image", "never", "--timeout", "1", "shop"
    )
    assert "error: shop_web: 0/1 running (no suitable node (scheduling constraints not satisfied on 3 nodes))" in out
    assert "not there after 1 s" in out


@pytest.mark.row("ST-03", "ST-04")
async def test_st_03_docker_knows_what_we_deployed(cli: Any, ours: Any, live: Any, file: Any) -> None:
    """And deploys it again without touching a task; the other way round as well."""
    services = {
        "web": {
            "image": "healthy:0.1",
            "command": ["serve", "$$HOME"],
            "environment": {"A": "1", "B": ""},
            "ports": ["8080:80"],
            "configs": [{"source": "page", "target": "/page", "mode": 0o400}],
            "secrets": ["key"],
            "volumes": ["data:/data", "/tmp:/host:ro", {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 4096}}],
            "networks": {"front": {"aliases": ["www"]}, "default": None},
            "healthcheck": {"test": "true", "interval": "1s", "start_period": "2s"},
            "ulimits": {"nofile": 100, "nproc": {"soft": 1, "hard": 2}},
            "cap_add": ["net_admin"],
            "cap_drop": ["ALL"],
            "dns": ["1.1.1.1"],
            "extra_hosts": ["h:10.0.0.9"],
            "sysctls": {"net.core.somaxconn": "10"},
            "labels": {"a": "b"},
            "stop_grace_period": "3s",
            "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
            "deploy": {
                "replicas": 2,
                "labels": {"c": "d"},
                "update_config": ROLL,
                "resources": {"limits": {"cpus": "0.5", "memory": "64M"}, "reservations": {"cpus": "0.1"}},
                "restart_policy": {"condition": "any", "delay": "100ms", "window": "5s"},
                "placement": {"constraints": ["node.platform.os==linux"], "preferences": [{"spread": "node.labels.r"}]},
            },
        },
        "plain": {"image": "nginx:1", "deploy": {"mode": "global", "endpoint_mode": "dnsrr"}},
    }
    more = {
        "version": "3.8",
        "networks": {"front": {"attachable": True}},
        "volumes": {"data": {"labels": {"v": "1"}}},
        "configs": {"page": {"file": __file__}},
        "secrets": {"key": {"file": __file__, "labels": {"s": "1"}}},
    }
    path = file(services, **more)
    await deployed(ours, path)
    assert (await cli("stack", "ls")).splitlines()[1].split()[:2] == ["shop", "2"]
    assert len((await cli("stack", "services", "-q", "shop")).splitlines()) == 2
    tasks = await cli("stack", "ps", "-q", "shop")
    assert len(tasks.splitlines()) == 5
    await cli("stack", "deploy", "-c", path, "--resolve-image", "never", "shop")
    assert await cli("stack", "ps", "-q", "shop") == tasks
    assert "service" not in await unlike(ours, path)
    await deployed(ours, path)
    assert await cli("stack", "ps", "-q", "shop") == tasks
    await cli("stack", "rm", "shop")
    await cli("stack", "deploy", "-c", path, "--resolve-image", "never", "shop")
    assert "service" not in await unlike(ours, path)


async def unlike(ours: Any, path: str) -> str:
    """What a dry run shows besides what is the same."""
    out = await deployed(ours, path, "--dry-run")
    return "\n".join(line for line in out.splitlines()[:-1] if not line.startswith("="))
