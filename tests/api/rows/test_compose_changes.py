"""`afterswarm stack deploy` again and again: what changes, restarts, goes; and what is left when it is stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from afterswarm.stack.reader import Unreadable, compose

try:
    compose()
except Unreadable as why:
    pytest.skip(str(why), allow_module_level=True)

PROGRAM = Path(sys.executable).parent / "afterswarm"
HEALTHY = {
    "image": "healthy:0.1",
    "healthcheck": {"test": ["CMD", "true"]},
    "deploy": {"update_config": {"monitor": "200ms"}},
}


@pytest.fixture
def deploy(program: Any) -> Any:
    """`await deploy(services, *options, **rest of the file)`: what it says. The file comes by standard input."""
    ours = program(PROGRAM)

    async def run(services: dict[str, Any], *options: str, code: int = 0, **more: Any) -> str:
        text = json.dumps({"services": services, **more})
        words = ("stack", "deploy", "-c", "-", "--resolve-image", "never", *options, "shop")
        got, out = await ours.run(*words, stdin=text)
        assert got == code, out
        return str(out)

    return run


async def tasks(api: Any) -> dict[str, str]:
    """Of each service, the id of its running task."""
    names = {s["ID"]: s["Spec"]["Name"] for s in await api.ok("GET", "/services")}
    found = await api.ok("GET", '/tasks?filters={"desired-state":["running"]}')
    return {names[t["ServiceID"]]: t["ID"] for t in found}


async def test_a_dry_run_changes_nothing(deploy: Any, live: Any, api: Any) -> None:
    out = await deploy({"web": HEALTHY}, "--dry-run", configs={"c": {"content": "x"}})
    assert out.splitlines() == [
        "+ network shop_default",
        "+ service shop_web",
        "2 to create, 0 to change, 0 to remove, 0 the same; nothing was done",
    ]
    assert await api.ok("GET", "/services") == []


async def test_compose_lets_through_what_cannot_be_had(deploy: Any, live: Any) -> None:
    out = await deploy({"web": {**HEALTHY, "tmpfs": ["/x:size=10%"]}}, code=1)
    assert "error: this cannot be made into a stack: ValueError" in out
    assert "Traceback" not in out


async def test_what_depends_on_it_restarts_with_it(deploy: Any, live: Any, api: Any) -> None:
    web = {**HEALTHY, "depends_on": {"db": {"condition": "service_healthy", "restart": True}}}
    await deploy({"web": web, "db": HEALTHY, "other": HEALTHY})
    before = await tasks(api)
    out = await deploy({"web": web, "db": {**HEALTHY, "environment": {"A": "1"}}, "other": HEALTHY})
    after = await tasks(api)
    assert {name for name in before if before[name] != after[name]} == {"shop_db", "shop_web"}
    assert "restarts with shop_db" in out


async def test_a_secret_that_changes_brings_new_tasks(deploy: Any, live: Any, api: Any) -> None:
    services = {"web": {**HEALTHY, "secrets": ["key"], "configs": ["page"]}, "other": HEALTHY}
    configs = {"page": {"content": "hello"}}
    first = await deploy(services, secrets={"key": {"file": __file__}}, configs=configs)
    assert "+ secret shop_key" in first
    before = await tasks(api)
    again = await deploy(services, secrets={"key": {"file": __file__}}, configs=configs)
    assert await tasks(api) == before, again
    assert "secret" not in again
    out = await deploy(services, secrets={"key": {"file": str(PROGRAM)}}, configs=configs)
    after = await tasks(api)
    assert {name for name in before if before[name] != after[name]} == {"shop_web"}
    assert "~ service shop_web\n    its secrets or configs have other data" in out
    out = await deploy(services, secrets={"key": {"file": str(PROGRAM)}}, configs={"page": {"content": "bye"}})
    assert "~ config shop_page" in out
    assert (await tasks(api))["shop_web"] != after["shop_web"]


async def test_what_the_file_does_not_have_any_more(deploy: Any, live: Any, api: Any) -> None:
    await deploy({"web": {**HEALTHY, "configs": ["page"]}, "old": HEALTHY}, configs={"page": {"content": "x"}})
    out = await deploy({"web": HEALTHY})
    assert "! service shop_old" in out
    assert len(await tasks(api)) == 2
    out = await deploy({"web": HEALTHY}, "--prune")
    assert "- service shop_old" in out
    assert [s["Spec"]["Name"] for s in await api.ok("GET", "/services")] == ["shop_web"]
    assert await api.ok("GET", "/configs") == []


async def test_a_refused_file_changes_nothing(deploy: Any, live: Any, api: Any) -> None:
    services = {"web": {**HEALTHY, "volumes_from": ["db"], "pre_stop": [{"command": "x"}]}, "db": HEALTHY}
    out = await deploy(services, code=1)
    assert out.count("error: service web: ") == 2
    assert "nothing was deployed" in out
    assert await api.ok("GET", "/services") == []
    await deploy(services, "--ignore-unsupported")
    assert len(await tasks(api)) == 2
    assert "services.web.port" in await deploy({"web": {"image": "x", "port": 1}}, code=1)
    assert "does not allow privileged" in await deploy({"web": {**HEALTHY, "privileged": True}}, code=1)


async def test_an_update_that_fails_says_why(deploy: Any, live: Any) -> None:
    await deploy({"web": HEALTHY})
    config = {"failure_action": "rollback", "monitor": "2s"}
    rolls_back = {"update_config": config, "rollback_config": {"monitor": "200ms"}}
    out = await deploy({"web": {"image": "exits:4", "deploy": rolls_back}}, code=1)
    assert "error: shop_web: rollback completed: task: non-zero exit (4)" in out


async def test_ctrl_c_leaves_things_as_they_are(live: Any, api: Any, sock: Path, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(json.dumps({"services": {"web": {"image": "healthy:900", "healthcheck": {"test": ["CMD", "x"]}}}}))
    process = await asyncio.create_subprocess_exec(
        "env", "--default-signal=INT",  # who runs the tests in the background may have had it ignored
        str(PROGRAM), "stack", "deploy", "-c", str(file), "--resolve-image", "never", "shop",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "DOCKER_HOST": f"unix://{sock}"},
    )  # fmt: skip
    assert process.stdout
    async for line in process.stdout:
        if b"0/1 running" in line:
            break
    process.send_signal(signal.SIGINT)
    said = (await process.stdout.read()).decode()
    assert await process.wait() == 130
    assert "the swarm goes on: docker stack ps shop" in said
    assert "Traceback" not in said
    assert len(await api.ok("GET", "/services")) == 1
