"""What the API of services promises, as both command lines and docker-py find it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from msgspec.structs import replace

from afterswarm.api.host import LocalInfo
from afterswarm.model.node import Node
from afterswarm.model.secret import Config, ConfigSpec, Secret, SecretSpec
from afterswarm.model.service import ContainerSpec, ReplicatedService, Service, ServiceMode, ServiceSpec, TaskSpec
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.ports import Unavailable

CREATE = ("service", "create", "-d", "--no-resolve-image", "--name")
QUICK = ("--update-monitor", "600ms", "--rollback-monitor", "600ms", "--restart-delay", "100ms")
STALE = "rpc error: code = Unknown desc = update out of sequence"


async def names(cli: Any, *filters: str) -> list[str]:
    argv = [word for text in filters for word in ("-f", text)]
    return sorted((await cli("service", "ls", "--format", "{{.Name}}", *argv)).split())


async def in_thread(sock: Path, use: Callable[[Any], None]) -> None:
    """Use docker-py, which blocks."""

    def work() -> None:
        client = docker.DockerClient(base_url=f"unix://{sock}", version="1.41")
        try:
            use(client)
        finally:
            client.close()

    await asyncio.to_thread(work)


def spec(name: str = "web", **more: Any) -> dict[str, Any]:
    return {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1"}}, **more}


@pytest.mark.row("SA-01")
async def test_sa_01_create(cli: Any, api: Any) -> None:
    key = await cli(*CREATE, "web", "nginx:1")
    assert (len(key), key.isalnum()) == (25, True)
    taken = "rpc error: code = AlreadyExists desc = name conflicts with an existing object"
    assert taken in await cli.fails(*CREATE, "web", "nginx:2")
    status, answer = await api("POST", "/services/create", spec("other"))
    assert (status, set(answer)) == (201, {"ID", "Warnings"})
    assert (await api("POST", "/services/create", spec("other")))[0] == 409
    unnamed = await cli("service", "create", "-d", "--no-resolve-image", "nginx:1")
    assert "_" in await cli("service", "inspect", "-f", "{{.Spec.Name}}", unnamed), "a name is made up"


@pytest.mark.row("SA-02")
async def test_sa_02_two_who_update_at_once(cli: Any, api: Any) -> None:
    await cli(*CREATE, "web", "nginx:1")
    seen = await api.ok("GET", "/services/web")
    version = seen["Version"]["Index"]
    await cli("service", "update", "-d", "--label-add", "a=b", "web")
    assert (await api.ok("GET", "/services/web"))["Version"]["Index"] > version, "every write moves it"
    for target in ("/services/web", "/nodes/swarm-3", "/swarm"):
        body = seen["Spec"] if "services" in target else {"Role": "worker", "Availability": "active", "Name": "default"}
        assert await api.fails("POST", f"{target}/update?version=1", body) == (500, STALE)
    for text, why in (("", "invalid syntax"), ("x", "invalid syntax"), ("-1", "invalid syntax")):
        status, words = await api.fails("POST", f"/services/web/update?version={text}", seen["Spec"])
        assert (status, why in words) == (400, True)


@pytest.mark.row("SA-02", client="docker-py")
async def test_sa_02_with_docker_py(sock: Path) -> None:
    def use(client: Any) -> None:
        made = client.api.create_service(docker.types.TaskTemplate(docker.types.ContainerSpec("nginx:1")), name="web")
        seen = client.api.inspect_service(made["ID"])
        template = seen["Spec"]["TaskTemplate"]
        client.api.update_service(made["ID"], seen["Version"]["Index"], template, name="web", labels={"a": "b"})
        with pytest.raises(docker.errors.APIError, match="update out of sequence") as stale:
            client.api.update_service(made["ID"], seen["Version"]["Index"], template, name="web")
        assert stale.value.status_code == 500

    await in_thread(sock, use)


@pytest.mark.row("SA-03", "SV-01")
async def test_sa_03_neither_mode_nor_name_change(api: Any) -> None:
    await api.ok("POST", "/services/create", spec(Mode={"Replicated": {"Replicas": 2}}))
    version = (await api.ok("GET", "/services/web"))["Version"]["Index"]
    for mode in ({"Global": {}}, {"ReplicatedJob": {}}, {"GlobalJob": {}}):
        assert await api.fails("POST", f"/services/web/update?version={version}", spec(Mode=mode)) == (
            501,
            "rpc error: code = Unimplemented desc = service mode change is not allowed",
        )
    assert await api.fails("POST", f"/services/web/update?version={version}", spec("shop")) == (
        501,
        "rpc error: code = Unimplemented desc = renaming services is not supported",
    )
    assert (await api.ok("GET", "/services/web"))["Spec"]["Mode"] == {"Replicated": {"Replicas": 2}}


@pytest.mark.row("SA-04")
async def test_sa_04_list(cli: Any, api: Any, live: Any) -> None:
    await cli("service", "create", *QUICK, "--name", "web", "--replicas", "2", "-l", "tier=front", "-l", "x", "nginx:1")
    await cli("service", "create", *QUICK, "--name", "web-agent", "--mode", "global", "-l", "tier=back", "nginx:1")
    await cli(*CREATE, "batch", "--mode", "replicated-job", "exits:0")
    await cli(*CREATE, "sweep", "--mode", "global-job", "exits:0")
    key = await cli("service", "inspect", "-f", "{{.ID}}", "web")
    for filters, found in (
        ((), ["batch", "sweep", "web", "web-agent"]),
        (("name=web",), ["web", "web-agent"]),
        (("name=web-", "name=bat"), ["batch", "web-agent"]),
        (("name=eb",), []),
        ((f"id={key[:9]}",), ["web"]),
        (("label=tier",), ["web", "web-agent"]),
        (("label=tier=front",), ["web"]),
        (("label=tier", "label=x"), ["web"]),
        (("mode=replicated",), ["web"]),
        (("mode=global", "mode=global-job"), ["sweep", "web-agent"]),
        (("mode=nonsense",), []),
        (("runtime=container", "name=batch"), ["batch"]),
        (("runtime=plugin",), []),
    ):
        assert await names(cli, *filters) == found, filters
    assert "nvalid filter 'colour'" in await cli.fails("service", "ls", "-f", "colour=red")
    assert (await api.fails("GET", '/services?filters={"colour":["red"]}')) == (400, "invalid filter 'colour'")
    assert (await api.fails("GET", "/services?filters=nonsense"))[0] == 400
    listed = {s["Spec"]["Name"]: s for s in await api.ok("GET", "/v1.41/services?status=true")}
    assert listed["web"]["ServiceStatus"] == {"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}
    assert listed["web-agent"]["ServiceStatus"] == {"RunningTasks": 3, "DesiredTasks": 3, "CompletedTasks": 0}
    assert "ServiceStatus" not in (await api.ok("GET", "/v1.41/services"))[0]
    shown = await cli("service", "ls", "-f", "name=web", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}")
    assert sorted(shown.splitlines()) == ["web replicated 2/2 nginx:1", "web-agent global 3/3 nginx:1"]
    assert (await cli("service", "ls", "-q", "-f", "name=web", "-f", "mode=replicated")) == key[:12]


@pytest.mark.row("SA-05")
async def test_sa_05_inspect(cli: Any, api: Any, live: Any) -> None:
    await cli("service", "create", *QUICK, "--name", "web", "-p", "8080:80", "nginx:1")
    await cli("service", "update", "--image", "nginx:2", "web")
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    assert shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith("nginx:2")
    assert shown["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith("nginx:1")
    assert shown["Endpoint"]["Spec"] == {"Mode": "vip", "Ports": shown["Spec"]["EndpointSpec"]["Ports"]}
    assert shown["Endpoint"]["Ports"][0]["PublishedPort"] == 8080
    assert shown["Endpoint"]["VirtualIPs"][0]["Addr"].endswith("/24")
    assert shown["UpdateStatus"]["State"] == "completed"
    assert set(shown["UpdateStatus"]) == {"State", "StartedAt", "CompletedAt", "Message"}
    pretty = await cli("service", "inspect", "--pretty", "web")
    for words in (
        "Name:\t\tweb",
        "Service Mode:\tReplicated",
        "Replicas:\t1",
        "State:\t\tcompleted",
        "nginx:2",
        "PublishedPort = 8080",
        "On failure:\tpause",
        "Max failure ratio: 0",
        "Endpoint Mode:\tvip",
    ):
        assert words in pretty, words
    await api.ok("POST", "/services/create", spec("bare"))
    bare = (await api.ok("GET", "/services/bare"))["Spec"]
    assert set(bare) == {"Name", "Labels", "TaskTemplate", "Mode"}
    full = (await api.ok("GET", "/services/bare?insertDefaults=true"))["Spec"]
    rollout = {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5 * 10**9,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    }
    assert (full["UpdateConfig"], full["RollbackConfig"]) == (rollout, rollout)
    assert full["EndpointSpec"] == {"Mode": "vip"}
    assert full["Mode"] == {"Replicated": {"Replicas": 1}}
    template = full["TaskTemplate"]
    assert template["RestartPolicy"] == {"Condition": "any", "Delay": 5 * 10**9, "MaxAttempts": 0}
    assert template["ContainerSpec"]["StopGracePeriod"] == 10 * 10**9
    assert template["Resources"] == {"Limits": {}, "Reservations": {}}


@pytest.mark.row("SA-06")
async def test_sa_06_remove(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    await cli("service", "create", *QUICK, "--name", "web", "--replicas", "3", "slow:0.5")
    assert sum(len(a.engine.running()) for a in live.agents.values()) == 3
    assert await cli("service", "rm", "web") == "web"
    assert "no such service: web" in await cli.fails("service", "inspect", "web")
    assert {t["DesiredState"] for t in await api.ok("GET", "/tasks")} <= {"remove"}

    async def nothing_left() -> bool:
        made = [c for a in live.agents.values() for c in a.engine.made]
        return not made and await api.ok("GET", "/tasks") == []

    await eventually(nothing_left)
    await cli(*CREATE, "web", "nginx:1")
    assert await names(cli) == ["web"], "the name is free again"
    assert "nope" in await cli.fails("service", "rm", "nope")
    assert await api.fails("DELETE", "/services/nope") == (404, "service nope not found")


@pytest.mark.row("SA-07")
async def test_sa_07_scale(cli: Any, live: Any) -> None:
    for name in ("a", "b"):
        await cli("service", "create", *QUICK, "-d", "--name", name, "nginx:1")
    out = await cli("service", "scale", "a=3", "b=2")
    assert ("a scaled to 3" in out, "b scaled to 2" in out) == (True, True)
    assert "onverged" in out
    listed = await cli("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
    assert sorted(listed.splitlines()) == ["a 3/3", "b 2/2"]
    await cli(*CREATE, "all", "--mode", "global", "nginx:1")
    assert "scale can only be used with replicated" in await cli.fails("service", "scale", "all=2")
    assert "nope" in await cli.fails("service", "scale", "nope=1")
    await cli("service", "scale", "-d", "a=0")
    shown = await cli("service", "inspect", "-f", "{{json .Spec.Mode}}", "a")
    assert json.loads(shown) == {"Replicated": {"Replicas": 0}}


@pytest.mark.row("SA-08")
async def test_sa_08_progress(cli: Any, live: Any) -> None:
    out = await cli("service", "create", *QUICK, "--name", "web", "--replicas", "2", "healthy:0.3")
    assert "overall progress: 2 out of 2 tasks" in out
    assert "verify: " in out
    assert "onverged" in out
    out = await cli("service", "create", *QUICK, "--name", "all", "--mode", "global", "nginx:1")
    assert "overall progress: 3 out of 3 tasks" in out
    out = await cli("service", "update", "--force", "web")
    assert "onverged" in out
    code, out = await cli.run("service", "update", "--image", "broken:1", "web")
    assert code == 1
    assert "service update paused: update paused due to failure or early termination of task" in out
    assert "onverged" in await cli("service", "update", "--image", "nginx:1", "web")
    out = await cli("service", "update", "--update-failure-action", "rollback", "--image", "broken:2", "web")
    assert "verify: " in out
    assert "rollback: update rolled back due to failure or early termination of task" in out


@pytest.mark.row("SA-09")
async def test_sa_09_nonsense_is_refused_by_command_lines(cli: Any, api: Any) -> None:
    await cli(*CREATE, "first", "-p", "80:80", "nginx:1")
    for flags, words in (
        (("--limit-cpu", "0.0001"), "invalid cpu value 0.0001: Must be at least 0.001"),
        (("--reserve-memory", "1m"), "invalid memory value 1048576: Must be at least 4MiB"),
        (("--restart-delay", "-1s"), "negative"),
        (("--update-delay", "-1s"), "negative"),
        (("--update-max-failure-ratio", "1.5"), "update-maxfailureratio cannot be less than 0 or bigger than 1"),
        (("--mount", "type=tmpfs,dst=/x", "--mount", "type=tmpfs,dst=/x"), "duplicate mount point: /x"),
        (("-p", "80:8080"), "port '80' is already in use by service 'first'"),
        (("-p", "81:1", "-p", "81:2"), "duplicate published ports provided"),
        (("--endpoint-mode", "dnsrr", "-p", "82:1"), "dnsrr"),
        (("--constraint", "node.role"), "constraint expected one operator from ==, !="),
        (("--mode", "replicated-job", "--update-parallelism", "2"), "job"),
        (("--health-cmd", "x", "--health-interval", "1us"), "1ms"),
    ):
        said = await cli.fails("service", "create", "-d", "--no-resolve-image", "--name", "bad", *flags, "nginx:1")
        assert words in said, (flags, said)
    assert "secret not found: nope" in await cli.fails(*CREATE, "bad", "--secret", "nope", "nginx:1")
    assert "nope" in await cli.fails(*CREATE, "bad", "--network", "nope", "nginx:1")
    assert [s.name for s in api.stored(Service)] == ["first"]


@pytest.mark.row("SA-09")
async def test_sa_09_nonsense_that_command_lines_would_not_send(api: Any) -> None:
    def template(**container: Any) -> dict[str, Any]:
        return {"ContainerSpec": {"Image": "nginx:1", **container}}

    for body, status, words in (
        (spec(TaskTemplate={}), 400, ""),
        (spec(TaskTemplate=template(Image="")), 400, "image"),
        (spec(TaskTemplate=template(Image="UPPER:not")), 400, "UPPER:not"),
        (spec("no spaces please"), 400, "name must be valid as a DNS name component"),
        (spec("x" * 64), 400, "63"),
        (spec(Mode={"Replicated": {}, "Global": {}}), 400, ""),
        (
            spec(UpdateConfig={"MaxFailureRatio": 2}),
            400,
            "update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (spec(UpdateConfig={"FailureAction": "explode"}), 400, "unrecognized update failure action explode"),
        (spec(TaskTemplate={**template(), "RestartPolicy": {"Condition": "never"}}), 400, "never"),
        (spec(TaskTemplate=template(Secrets=[{"SecretID": "x", "SecretName": "y", "File": {"Name": "z"}}])), 400, "y"),
        (spec(Mode="replicated"), 400, ""),
        ("[]", 400, ""),
    ):
        got = await api.fails("POST", "/services/create", body.encode() if isinstance(body, str) else body)
        assert (got[0], words in got[1]) == (status, True), (body, got)
    assert api.stored(Service) == []


@pytest.mark.row("SA-10")
async def test_sa_10_statuses(api: Any, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.ok("POST", "/services/create", spec())
    version = (await api.ok("GET", "/services/web"))["Version"]["Index"]
    for method, target, body, status in (
        ("GET", "/services/nope", None, 404),
        ("GET", "/tasks/nope", None, 404),
        ("GET", "/nodes/nope", None, 404),
        ("GET", "/secrets/nope", None, 404),
        ("GET", "/configs/nope", None, 404),
        ("GET", "/services/web/nonsense", None, 404),
        ("POST", "/services/create", spec(), 409),
        ("POST", f"/services/web/update?version={version}", spec("other"), 501),
        ("POST", f"/services/web/update?version={version}&rollback=previous", {}, 400),
        ("POST", "/services/web/update?version=1", spec(), 500),
        ("POST", "/services/create", {}, 400),
        ("DELETE", "/nodes/swarm-3", None, 400),
        ("POST", "/swarm/init", {}, 503),
        ("POST", "/swarm/join", {"RemoteAddrs": ["x"]}, 503),
    ):
        got, answer = await api(method, target, body)
        assert (got, set(answer)) == (status, {"message"}), (method, target, answer)

    async def lost(*_: Any, **__: Any) -> int:
        raise Unavailable

    monkeypatch.setattr(host.cache, "commit", lost)
    status, words = await api.fails("DELETE", "/services/web")
    assert (status, "The swarm does not have a leader" in words) == (503, True)
    for state, words in (
        (LocalInfo(), 'Use "docker swarm init" or "docker swarm join"'),
        (LocalInfo(state="pending"), "Manager is being prepared or has trouble connecting to the cluster."),
        (LocalInfo(state="locked"), "Swarm is encrypted and needs to be unlocked before it can be used."),
        (LocalInfo(state="active"), "Worker nodes can't be used to view or modify cluster state."),
    ):
        host.become(state, "" if state.state == "inactive" else "three")
        for target in (
            "/services",
            "/nodes",
            "/tasks",
            "/secrets",
            "/configs",
            "/swarm",
            "/services/web/logs?stdout=1",
        ):
            status, said = await api.fails("GET", target)
            assert (status, words in said) == (503, True), (target, said)


@pytest.mark.row("SA-12")
async def test_sa_12_id_then_name_then_beginning(cli: Any, api: Any) -> None:
    template = TaskSpec(container_spec=ContainerSpec(image="nginx:1"))
    for key, name in (("abc1", "web"), ("abc2", "abc1x"), ("abd3", "abc"), ("web9", "other")):
        mode = ServiceMode(replicated=ReplicatedService(replicas=1))
        await api.write(Service(id=key, spec=ServiceSpec(name=name, task_template=template, mode=mode)))
        await api.write(Secret(id=key, spec=SecretSpec(name=name)), Config(id=key, spec=ConfigSpec(name=name)))
        await api.write(
            Task(id=key, service_id="abc1", slot=1, node_id="one" + "0" * 22, spec=template, state=TaskState.ASSIGNED),
            Report(id=key, service_id="abc1", node_id="one" + "0" * 22, state=TaskState.RUNNING),
        )
    for kind, path in (("service", "services"), ("secret", "secrets"), ("config", "configs")):
        for term, found in (("abc1", "abc1"), ("abc", "abd3"), ("web", "abc1"), ("abd", "abd3"), ("abc1x", "abc2")):
            assert await cli(kind, "inspect", "-f", "{{.ID}}", term) == found, (kind, term)
        assert await api.fails("GET", f"/{path}/ab") == (400, f"{kind} ab is ambiguous (3 matches found)")
        assert await api.fails("GET", f"/{path}/eb") == (404, f"{kind} eb not found")
        assert "ambiguous (3 matches found)" in await cli.fails(kind, "inspect", "ab")
        said = await cli.fails(kind, "inspect", "nope")
        assert f"{kind} nope not found" in said or f"no such {kind}: nope" in said.lower(), said
    assert (await api.ok("GET", "/tasks/abd"))["ID"] == "abd3"
    assert (await api.ok("GET", "/tasks/web.1.abc2"))["ID"] == "abc2"
    assert await api.fails("GET", "/tasks/ab") == (400, "task ab is ambiguous (3 matches found)")
    assert await api.fails("GET", "/tasks/x") == (404, "task x not found")
    assert await cli("node", "inspect", "-f", "{{.ID}}", "swarm-2") == "two" + "0" * 22
    assert await cli("node", "inspect", "-f", "{{.ID}}", "tw") == "two" + "0" * 22
    assert await cli("node", "inspect", "-f", "{{.ID}}", "self") == "one" + "0" * 22
    assert await api.fails("GET", "/nodes/t") == (400, "node t is ambiguous (2 matches found)")
    twin = replace(next(n for n in api.stored(Node) if n.id.startswith("two")), id="second", rev=0)
    report = replace(api.host.cache.snapshot().node_reports["two" + "0" * 22], id="second", rev=0)
    await api.write(twin, report)
    assert await api.fails("GET", "/nodes/swarm-2") == (400, "node swarm-2 is ambiguous (2 matches found)")
