"""Rows ST: stacks by the docker command lines. They are the client's notion; what it asks for must come out right."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from afterswarm.http.message import Request
from afterswarm.http.server import serve_unix
from afterswarm.model.network import Network
from afterswarm.model.service import Service
from afterswarm.model.task import Task

QUICK = "update_config: {monitor: 100ms}"
STACK = f"""
version: "3.9"
services:
  web:
    image: nginx:1
    ports: ["8080:80"]
    networks: [back]
    secrets: [pw]
    configs: [{{source: conf, target: /etc/app.conf}}]
    volumes: ["data:/data"]
    labels: {{mine: "1"}}
    deploy: {{replicas: 2, labels: {{its: "2"}}, {QUICK}}}
  agent:
    image: agent:1
    networks: [back]
    deploy: {{mode: global, {QUICK}}}
networks: {{back: {{attachable: true}}}}
volumes: {{data: {{}}}}
secrets: {{pw: {{file: ./pw}}}}
configs: {{conf: {{file: ./conf}}}}
"""
NAMESPACE = "com.docker.stack.namespace"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("pw", "hush"), ("conf", "a = 1"), ("stack.yml", STACK)):
        (tmp_path / name).write_text(text)
    return tmp_path


def deploy(folder: Path, *flags: str, name: str = "stack.yml") -> tuple[str, ...]:
    return ("stack", "deploy", *flags, "-c", str(folder / name), "clinic")


async def has(cli: Any, flag: str, *command: str) -> bool:
    """Whether this version of the command line knows the flag."""
    return flag in await cli(*command, "--help")


async def knows_jobs(cli: Any) -> bool:
    """Version 20.10 knows jobs as services, and not in stacks."""
    return not (await cli("version", "--format", "{{.Client.Version}}")).startswith("20.")


def by_name(api: Any) -> dict[str, Service]:
    return {s.name: s for s in api.stored(Service) if not s.pending_delete}


@asynccontextmanager
async def recorded(cli: Any, api: Any, folder: Path) -> AsyncIterator[tuple[Any, list[tuple[str, str, Request]]]]:
    """The same command line, and what it asks."""
    asked: list[tuple[str, str, Request]] = []

    async def front(request: Request) -> Any:
        asked.append((request.method, re.sub(r"^/v[0-9.]+", "", request.path), request))
        return await api.app(request)

    async with serve_unix(folder / "recorded.sock", front):
        yield type(cli)(cli._program, folder / "recorded.sock", folder), asked


@pytest.mark.row("ST-01")
async def test_st_01_files(cli: Any, api: Any, folder: Path) -> None:
    (folder / "more.yml").write_text("version: '3.9'\nservices: {web: {deploy: {replicas: 5}}, new: {image: x:1}}")
    await cli("stack", "deploy", "-c", str(folder / "stack.yml"), "-c", str(folder / "more.yml"), "clinic")
    assert set(by_name(api)) == {"clinic_web", "clinic_agent", "clinic_new"}
    assert by_name(api)["clinic_web"].spec.mode.replicated.replicas == 5
    text = "version: '3.9'\nservices: {web: {image: 'nginx:1'}}"
    await cli("stack", "deploy", "-c", "-", "other", stdin=text)
    assert "other_web" in by_name(api)
    assert "no such file" in await cli.fails("stack", "deploy", "-c", str(folder / "nope.yml"), "clinic")


@pytest.mark.row("ST-01")
async def test_st_01_prune(cli: Any, api: Any, folder: Path) -> None:
    await cli(*deploy(folder))
    (folder / "less.yml").write_text("version: '3.9'\nservices: {web: {image: 'nginx:1'}}")
    await cli(*deploy(folder, name="less.yml"))
    assert set(by_name(api)) == {"clinic_web", "clinic_agent"}
    assert "Removing service clinic_agent" in await cli(*deploy(folder, "--prune", name="less.yml"))
    assert set(by_name(api)) == {"clinic_web"}


@pytest.mark.row("ST-01")
async def test_st_01_resolve_image(cli: Any, api: Any, live: Any, folder: Path) -> None:
    def image() -> str:
        return str(by_name(api)["clinic_web"].spec.task_template.container_spec.image)

    await cli(*deploy(folder, "--resolve-image", "never"))
    assert image() == "nginx:1"
    await cli(*deploy(folder, "--resolve-image", "changed"))
    assert image() == "nginx:1"
    await cli(*deploy(folder))
    assert re.fullmatch(r"nginx:1@sha256:[0-9a-f]{64}", image())
    pinned = image()
    await cli(*deploy(folder, "--resolve-image", "changed"))
    assert image() == pinned
    assert "Invalid option" in await cli.fails(*deploy(folder, "--resolve-image", "sometimes"))


@pytest.mark.row("ST-01")
async def test_st_01_registry_auth(cli: Any, api: Any, folder: Path) -> None:
    await cli(*deploy(folder))
    assert all(not s.pull_auth for s in api.stored(Service))
    await cli(*deploy(folder, "--with-registry-auth"))
    assert all(s.pull_auth for s in api.stored(Service))


@pytest.mark.row("ST-01")
async def test_st_01_detached_or_not(cli: Any, api: Any, live: Any, folder: Path, eventually: Any) -> None:
    if not await has(cli, "--detach", "stack", "deploy"):
        pytest.skip("this version of the command line never waits")
    out = await cli(*deploy(folder, "--detach=false"))
    assert "overall progress: 2 out of 2 tasks" in out
    shown = await cli("stack", "services", "--format", "{{.Name}} {{.Replicas}}", "clinic")
    assert set(shown.splitlines()) == {"clinic_web 2/2", "clinic_agent 3/3"}
    (folder / "stack.yml").write_text(STACK.replace("agent:1", "agent:2"))
    assert "progress" not in await cli(*deploy(folder, "-q", "--detach=false"))
    (folder / "stack.yml").write_text(STACK.replace("nginx:1", "broken:1"))
    code, out = await cli.run(*deploy(folder, "--detach=false"))
    assert (code, "update paused due to failure" in out) == (1, True)
    for _ in range(3):
        await cli("stack", "rm", "--detach=false", "clinic")
        await cli(*deploy(folder))
    await cli("stack", "rm", "--detach=false", "clinic")

    async def gone() -> bool:
        return not api.stored(Task)

    await eventually(gone)


@pytest.mark.row("ST-02")
async def test_st_02_the_order_of_calls(cli: Any, api: Any, folder: Path) -> None:
    outside = STACK.replace("networks: {back: {attachable: true}}", "networks: {back: {external: true}}")
    (folder / "outside.yml").write_text(outside)
    code, out = await cli.run(*deploy(folder, name="outside.yml"))
    assert (code, 'network "back" is declared as external, but could not be found' in out) == (1, True)
    await cli("network", "create", "-d", "overlay", "back")
    async with recorded(cli, api, folder) as (recording, asked):
        for verb in ("create", "update"):
            asked.clear()
            await recording(*deploy(folder, name="outside.yml"))
            calls = [(method, path) for method, path, _ in asked if method == "POST" or path == "/networks/back"]
            kinds = [path.split("/")[1] for _, path in calls]
            assert kinds == ["networks", "secrets", "configs", "services", "services"]
            assert {path.split("/")[-1] for method, path in calls if method == "POST"} == {verb}
        versions = [r.arg("version") for method, path, r in asked if method == "POST"]
        assert all(int(v) > 0 for v in versions)


@pytest.mark.row("ST-03")
async def test_st_03_labels(cli: Any, api: Any, folder: Path) -> None:
    await cli(*deploy(folder))
    mine = {NAMESPACE: "clinic"}
    spec = by_name(api)["clinic_web"].spec
    assert spec.labels == mine | {"its": "2", "com.docker.stack.image": "nginx:1"}
    assert spec.task_template.container_spec.labels == mine | {"mine": "1"}
    assert spec.task_template.container_spec.mounts[0].volume_options.labels == mine
    for kind in ("network", "secret", "config"):
        shown = await cli(kind, "ls", "-q", "-f", f"label={NAMESPACE}=clinic")
        assert len(shown.split()) == 1, kind
    assert (await api.ok("GET", "/networks/clinic_back"))["Labels"] == mine


@pytest.mark.row("ST-04")
async def test_st_04_ls_ps_services_rm(cli: Any, api: Any, live: Any, folder: Path, eventually: Any) -> None:
    await cli(*deploy(folder))

    async def up() -> bool:
        shown = await cli("stack", "services", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}", "clinic")
        return set(shown.splitlines()) == {"clinic_web replicated 2/2 nginx:1", "clinic_agent global 3/3 agent:1"}

    await eventually(up)
    assert "*:8080->80/tcp" in await cli("stack", "services", "clinic")
    only = ("stack", "services", "-q", "-f", "name=clinic_web", "clinic")
    assert await cli(*only) == by_name(api)["clinic_web"].id[:12]
    assert "clinic" in await cli("stack", "ls")
    tasks = await cli("stack", "ps", "--format", "{{.Name}}", "-f", "desired-state=running", "clinic")
    assert sorted(n.split(".")[0] for n in tasks.split()) == ["clinic_agent"] * 3 + ["clinic_web"] * 2
    assert "hink" not in await cli("stack", "ps", "--no-trunc", "--no-resolve", "clinic")
    assert "nothing found in stack: nope" in (await cli.fails("stack", "ps", "nope")).lower()
    assert "nothing found in stack: nope" in (await cli("stack", "services", "nope")).lower()
    out = await cli("stack", "rm", "clinic")
    kinds = [line.split()[1] for line in out.splitlines() if line.startswith("Removing")]
    assert kinds == ["service", "service", "secret", "config", "network"]
    assert "clinic" not in await cli("stack", "ls")
    for kind in ("secret", "config", "service"):
        assert await cli(kind, "ls", "-q") == ""
    assert "Nothing found in stack: clinic" in await cli("stack", "rm", "clinic")

    async def gone() -> bool:
        return not api.stored(Service) and not api.stored(Task)

    await eventually(gone)


@pytest.mark.row("ST-04")
async def test_st_04_config(cli: Any, folder: Path) -> None:
    if " config " not in await cli("stack", "--help"):
        pytest.skip("this version of the command line has no `stack config`")
    shown = await cli("stack", "config", "-c", str(folder / "stack.yml"))
    assert "image: nginx:1" in shown
    assert await cli("stack", "config", "--skip-interpolation", "-c", str(folder / "stack.yml"))


@pytest.mark.row("ST-04")
async def test_st_04_removed_and_deployed_at_once(cli: Any, api: Any, live: Any, folder: Path, eventually: Any) -> None:
    """The old tasks take a second to end; the new network wants the very subnet that they are still in."""
    asked = "{ipam: {config: [{subnet: 10.99.0.0/24}]}}"
    (folder / "stack.yml").write_text(STACK.replace("nginx:1", "slow:1").replace("{attachable: true}", asked))

    async def up() -> bool:
        shown = await cli("stack", "services", "--format", "{{.Name}} {{.Replicas}}", "clinic")
        return set(shown.splitlines()) == {"clinic_web 2/2", "clinic_agent 3/3"}

    async def only_the_new() -> bool:
        mine = [n for n in api.stored(Network) if n.name == "clinic_back"]
        return [n.subnet for n in mine] == ["10.99.0.0/24"] and len(api.stored(Service)) == 2

    await cli(*deploy(folder))
    await eventually(up)
    for _ in range(3):
        await cli("stack", "rm", "clinic")
        out = await cli(*deploy(folder))
        assert "Creating network clinic_back" in out
        await eventually(up)
        await eventually(only_the_new)
    for task in api.stored(Task):
        addresses = [a.address for a in task.attachments]
        assert len(addresses) == len(set(addresses))


@pytest.mark.row("ST-05")
async def test_st_05_versions_of_the_schema(cli: Any, api: Any, folder: Path) -> None:
    for version in ("3", "3.0", "3.9", "3.13"):
        text = f"version: '{version}'\nservices: {{web: {{image: 'nginx:1'}}}}"
        code, out = await cli.run("stack", "deploy", "-c", "-", "s", stdin=text)
        assert code == 0 or (version == "3.13" and "unsupported Compose file version: 3.13" in out)
    text = "version: '2'\nservices: {web: {image: 'nginx:1'}}"
    code, out = await cli.run("stack", "deploy", "-c", "-", "s", stdin=text)
    assert (code, "unsupported Compose file version" in out) == (1, True)


@pytest.mark.row("ST-06", "ST-07", "ST-10")
async def test_st_06_what_is_ignored(cli: Any, api: Any, folder: Path) -> None:
    text = """
version: "3.9"
services:
  web:
    image: nginx:1
    container_name: me
    privileged: true
    network_mode: host
    pid: host
    ipc: host
    restart: always
    security_opt: [no-new-privileges]
    devices: ["/dev/null:/dev/null"]
    shm_size: 64M
    links: [db]
    build: .
    expose: ["80"]
    depends_on: [db]
  db: {image: "db:1"}
"""
    out = await cli("stack", "deploy", "-c", "-", "s", stdin=text)
    (ignored,) = [line for line in out.splitlines() if line.startswith("Ignoring unsupported options")]
    named = {"build", "devices", "ipc", "links", "network_mode", "pid", "privileged", "restart", "security_opt"}
    assert named <= set(ignored.partition(": ")[2].split(", "))
    assert "container_name" in out
    assert set(by_name(api)) == {"s_web", "s_db"}


@pytest.mark.row("ST-08", "ST-09")
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("extends", "{service: db}", "extends"),
        ("volume_driver", "x", "volume_driver"),
        ("volumes_from", "[db]", "volumes_from"),
        ("mem_limit", "64M", "mem_limit"),
        ("cpuset", "'0'", "cpuset"),
        ("gpus", "all", "Additional property gpus is not allowed"),
        ("profiles", "[a]", "Additional property profiles is not allowed"),
        ("pull_policy", "always", "Additional property pull_policy is not allowed"),
    ],
)
async def test_st_08_what_is_refused(cli: Any, api: Any, key: str, value: str, words: str) -> None:
    text = f"version: '3.9'\nservices: {{web: {{image: 'nginx:1', {key}: {value}}}}}"
    code, out = await cli.run("stack", "deploy", "-c", "-", "s", stdin=text)
    assert (code, words in out) == (1, True), out
    assert by_name(api) == {}


DEPLOY = """
version: "3.9"
services:
  web:
    image: nginx:1
    deploy:
      endpoint_mode: dnsrr
      labels: {a: b}
      mode: replicated
      replicas: 4
      placement:
        constraints: [node.role == manager]
        preferences: [{spread: node.labels.zone}]
        max_replicas_per_node: 2
      resources:
        limits: {cpus: "0.5", memory: 64M, pids: 100}
        reservations: {cpus: "0.25", memory: 32M}
      restart_policy: {condition: on-failure, delay: 2s, max_attempts: 3, window: 60s}
      update_config:
        {parallelism: 2, delay: 1s, failure_action: continue, monitor: 6s, max_failure_ratio: 0.5, order: start-first}
      rollback_config:
        {parallelism: 0, delay: 2s, failure_action: pause, monitor: 7s, max_failure_ratio: 0.25, order: stop-first}
"""


@pytest.mark.row("ST-11")
async def test_st_11_deploy_keys(cli: Any, api: Any) -> None:
    await cli("stack", "deploy", "-c", "-", "s", stdin=DEPLOY)
    (shown,) = json.loads(await cli("service", "inspect", "s_web"))
    spec, second = shown["Spec"], 1_000_000_000
    template = spec["TaskTemplate"]
    assert spec["Labels"]["a"] == "b"
    assert spec["Mode"] == {"Replicated": {"Replicas": 4}}
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"
    assert template["Placement"]["Constraints"] == ["node.role == manager"]
    assert template["Placement"]["Preferences"] == [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]
    assert template["Placement"]["MaxReplicas"] == 2
    assert template["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 100},
        "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 32 << 20},
    }
    assert template["RestartPolicy"] == {
        "Condition": "on-failure",
        "Delay": 2 * second,
        "MaxAttempts": 3,
        "Window": 60 * second,
    }
    assert spec["UpdateConfig"] == {
        "Parallelism": 2,
        "Delay": second,
        "FailureAction": "continue",
        "Monitor": 6 * second,
        "MaxFailureRatio": 0.5,
        "Order": "start-first",
    }
    assert spec["RollbackConfig"] == {
        "Parallelism": 0,
        "Delay": 2 * second,
        "FailureAction": "pause",
        "Monitor": 7 * second,
        "MaxFailureRatio": 0.25,
        "Order": "stop-first",
    }


@pytest.mark.row("ST-12")
async def test_st_12_modes(cli: Any, api: Any) -> None:
    text = "version: '3.9'\nservices: {web: {image: 'nginx:1', deploy: {mode: %s}}}"
    jobs = ("replicated-job", "global-job") if await knows_jobs(cli) else ()
    for number, mode in enumerate(("replicated", "global", *jobs)):
        more = ", replicas: 3" if mode.startswith("replicated") else ""
        await cli("stack", "deploy", "-c", "-", f"s{number}", stdin=text % (mode + more))
        shown = (await cli("stack", "services", "--format", "{{.Mode}}", f"s{number}")).replace(" ", "-")
        assert shown == mode
    if jobs:
        job = by_name(api)["s2_web"].spec.mode.replicated_job
        assert (job.max_concurrent, job.total_completions) == (3, 3)
    for mode in ("global", *jobs[1:]):
        code, out = await cli.run("stack", "deploy", "-c", "-", "s", stdin=text % f"{mode}, replicas: 2")
        assert (code, "replicas can only be used with replicated" in out) == (1, True)
    code, out = await cli.run("stack", "deploy", "-c", "-", "s", stdin=text % "sometimes")
    assert (code, "sometimes" in out) == (1, True)


@pytest.mark.row("ST-12")
@pytest.mark.row("SC-03", differs="new data is accepted: services that use it are updated, and rolled back with it")
async def test_st_12_jobs_run_and_run_again(cli: Any, api: Any, live: Any, folder: Path, eventually: Any) -> None:
    if not await knows_jobs(cli):
        pytest.skip("this version of the command line knows no jobs in stacks")
    job = "{image: 'exits:0', configs: [conf], deploy: {mode: replicated-job, replicas: 2}}"
    text = f"version: '3.9'\nservices: {{job: {job}}}"
    (folder / "stack.yml").write_text(f"{text}\nconfigs: {{conf: {{file: ./conf}}}}")

    async def done() -> bool:
        shown = await cli("stack", "services", "--format", "{{.Replicas}}", "clinic")
        return shown == "0/2 (2/2 completed)"

    await cli(*deploy(folder))
    await eventually(done)
    (folder / "conf").write_text("a = 2")
    await cli(*deploy(folder))
    assert api.stored(Service)[0].job_status.iteration == 1
    await eventually(done)
