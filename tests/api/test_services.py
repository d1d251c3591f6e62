"""`/services`: what goes in comes out in Docker's shape, and two clients never overwrite each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.model.node import Node, NodeState
from afterswarm.model.secret import Secret, SecretSpec
from afterswarm.model.service import (
    Endpoint,
    PortConfig,
    Service,
    UpdateState,
    UpdateStatus,
    VirtualIP,
)
from afterswarm.model.task import Report, Task, TaskState

OUT_OF_SEQUENCE = (500, "rpc error: code = Unknown desc = update out of sequence")
ONE, THREE = "one" + "0" * 22, "three" + "0" * 20


def spec(name: str = "web", **more: Any) -> dict[str, Any]:
    template = {"ContainerSpec": {"Image": "nginx:1", "Labels": None}, "Placement": None}
    return {"Name": name, "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": 2}}, **more}


async def create(api: Any, name: str = "web", **more: Any) -> str:
    answer = await api.ok("POST", "/v1.41/services/create", spec(name, **more))
    return str(answer["ID"])


def stored(api: Any) -> Service:
    found: Service = api.stored(Service)[0]
    return found


def task(n: int, state: TaskState, *, node: str = ONE, service: str, desired: TaskState = TaskState.RUNNING) -> Any:
    assigned = Task(id=f"t{n}", service_id=service, slot=n, node_id=node, state=TaskState.ASSIGNED, desired=desired)
    return assigned, Report(id=f"t{n}", service_id=service, node_id=node, state=state)


async def test_created_and_shown(api: Any) -> None:
    ports = [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]
    key = await create(api, EndpointSpec={"Ports": ports}, UpdateConfig={"Parallelism": 2}, Labels={"a": "b"})
    shown = await api.ok("GET", "/v1.41/services/web")
    assert (shown["ID"], shown["Version"]) == (key, {"Index": stored(api).rev})
    assert shown["Spec"]["Labels"] == {"a": "b"}
    assert shown["Spec"]["Mode"] == {"Replicated": {"Replicas": 2}}
    assert shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "nginx:1"
    assert shown["Spec"]["TaskTemplate"]["ForceUpdate"] == 0
    assert shown["Spec"]["TaskTemplate"]["Runtime"] == "container"
    assert shown["Spec"]["EndpointSpec"] == {"Mode": "vip", "Ports": ports}
    assert (shown["Spec"]["UpdateConfig"]["Order"], shown["Spec"]["UpdateConfig"]["Parallelism"]) == ("stop-first", 2)
    assert shown["Endpoint"] == {"Spec": {}}  # the allocator has not seen it
    assert "PreviousSpec" not in shown
    assert "UpdateStatus" not in shown


async def test_what_the_swarm_did_with_it(api: Any) -> None:
    key = await create(api, EndpointSpec={"Ports": [{"TargetPort": 80}]})
    given = Endpoint(
        ports=[PortConfig(target_port=80, published_port=30001)],
        virtual_ips=[VirtualIP(network_id="n", addr="10.0.0.5/24")],
    )
    status = UpdateStatus(state=UpdateState.COMPLETED, started_at=1.5, completed_at=2.25, message="update completed")
    await api.write(replace(stored(api), endpoint=given, update_status=status))
    shown = await api.ok("GET", f"/services/{key}")
    assert shown["Endpoint"] == {
        "Spec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]},
        "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30001, "PublishMode": "ingress"}],
        "VirtualIPs": [{"NetworkID": "n", "Addr": "10.0.0.5/24"}],
    }
    assert shown["UpdateStatus"] == {
        "State": "completed",
        "StartedAt": "1970-01-01T00:00:01.5Z",
        "CompletedAt": "1970-01-01T00:00:02.25Z",
        "Message": "update completed",
    }


async def test_defaults_on_request(api: Any) -> None:
    await create(api, UpdateConfig={"Parallelism": 3, "Order": "start-first"})
    shown = (await api.ok("GET", "/services/web?insertDefaults=true"))["Spec"]
    template = shown["TaskTemplate"]
    assert template["ContainerSpec"]["StopGracePeriod"] == 10_000_000_000
    assert template["RestartPolicy"] == {"Condition": "any", "Delay": 5_000_000_000, "MaxAttempts": 0}
    assert template["Resources"] == {"Limits": {}, "Reservations": {}}
    assert shown["EndpointSpec"] == {"Mode": "vip"}
    assert (shown["UpdateConfig"]["Parallelism"], shown["UpdateConfig"]["Order"]) == (3, "start-first")
    assert shown["RollbackConfig"]["FailureAction"] == "pause"


async def test_names_are_taken_once(api: Any) -> None:
    await create(api)
    status, message = await api.fails("POST", "/services/create", spec())
    assert status == 409
    assert "AlreadyExists" in message


async def test_two_at_once_and_one_of_them_wins(api: Any) -> None:
    answers = await asyncio.gather(*(api("POST", "/services/create", spec()) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [201, 409, 409, 409]
    assert len(api.stored(Service)) == 1


async def test_updated(api: Any) -> None:
    key = await create(api)
    rev = stored(api).rev
    answer = await api.ok(
        "POST", f"/v1.41/services/{key}/update?version={rev}", spec(Mode={"Replicated": {"Replicas": 5}})
    )
    assert answer == {"Warnings": []}
    shown = await api.ok("GET", f"/services/{key}")
    assert shown["Spec"]["Mode"]["Replicated"]["Replicas"] == 5
    assert shown["PreviousSpec"]["Mode"]["Replicated"]["Replicas"] == 2
    assert await api.fails("POST", f"/services/{key}/update?version={rev}", spec()) == OUT_OF_SEQUENCE


async def test_of_two_updates_of_one_version_one_is_done(api: Any) -> None:
    key = await create(api)
    target = f"/services/{key}/update?version={stored(api).rev}"
    answers = await asyncio.gather(*(api("POST", target, spec(Labels={"n": str(n)})) for n in range(3)))
    assert sorted(status for status, _ in answers) == [200, 500, 500]
    winner = [status for status, _ in answers].index(200)
    assert stored(api).spec.labels == {"n": str(winner)}


async def test_an_update_survives_that_tasks_move_meanwhile(api: Any) -> None:
    """Tasks of the service move its guard, but not what the client saw: no reason to send it away."""
    key = await create(api)
    target = f"/services/{key}/update?version={stored(api).rev}"
    created, report = task(1, TaskState.RUNNING, service=key)
    answers = await asyncio.gather(api.write(created), api("POST", target, spec(Labels={"n": "1"})), api.write(report))
    assert answers[1][0] == 200
    assert stored(api).spec.labels == {"n": "1"}


async def test_sending_back_what_was_shown_restarts_nothing(api: Any) -> None:
    """So do `service scale` and `service update --label-add`: tasks must not be replaced for it."""
    body = spec(
        Labels={"a": "b"},
        UpdateConfig={"Parallelism": 1, "MaxFailureRatio": 0},
        RollbackConfig={"Parallelism": 1},
        EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 8080}, {"TargetPort": 81, "PublishMode": "host"}]},
    )
    body["TaskTemplate"] = {
        "ContainerSpec": {
            "Image": "nginx:1",
            "Env": ["A=1"],
            "Init": False,
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
            "StopGracePeriod": 10_000_000_000,
            "DNSConfig": {},
            "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
            "Isolation": "default",
        },
        "Resources": {"Limits": {"NanoCPUs": 500_000_000}, "Reservations": {}},
        "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000, "MaxAttempts": 0},
        "Placement": {"Constraints": ["node.role==manager"], "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "LogDriver": {"Name": "json-file"},
    }
    await api.ok("POST", "/services/create", body)
    before = stored(api)
    shown = (await api.ok("GET", "/services/web"))["Spec"]
    await api.ok("POST", f"/services/web/update?version={before.rev}", shown)
    assert stored(api).spec_version == before.spec_version
    assert stored(api).spec.task_template == before.spec.task_template
    assert (await api.ok("GET", "/services/web"))["Spec"] == shown
    shown["TaskTemplate"]["ForceUpdate"] += 1
    await api.ok("POST", f"/services/web/update?version={stored(api).rev}", shown)
    assert stored(api).spec_version > before.spec_version


async def test_rolled_back(api: Any) -> None:
    key = await create(api)
    await api.ok("POST", f"/services/{key}/update?version={stored(api).rev}", spec(Labels={"new": "1"}))
    target = f"/services/{key}/update?version={stored(api).rev}&rollback=previous&registryAuthFrom=previous-spec"
    await api.ok("POST", target, {"Name": "web"})
    assert stored(api).spec.labels == {}
    target = f"/services/{key}/update?version={stored(api).rev}"
    assert (await api.fails("POST", target + "&rollback=next", spec()))[0] == 400
    assert await api.fails("POST", target + "&registryAuthFrom=x", spec()) == (
        400,
        "invalid registryAuthFrom 'x'",
    )


async def test_credentials_are_kept_sealed_and_never_shown(api: Any) -> None:
    auth = [("X-Registry-Auth", "c2VjcmV0")]
    await api("POST", "/services/create", spec(), headers=auth)
    assert api.host.unseal(stored(api).id, stored(api).pull_auth) == b"c2VjcmV0"
    assert "c2VjcmV0" not in repr(stored(api))
    shown = repr(await api.ok("GET", "/services/web"))
    assert stored(api).pull_auth not in shown
    await api.ok("POST", f"/services/web/update?version={stored(api).rev}", spec(Labels={"x": "y"}))
    assert api.host.unseal(stored(api).id, stored(api).pull_auth) == b"c2VjcmV0"


@pytest.mark.row("SV-06")
async def test_sv_06_credentials_are_the_specifications_and_go_back_with_it(api: Any) -> None:
    async def update(more: str = "", auth: str = "", **fields: Any) -> tuple[bytes, bytes]:
        headers = [("X-Registry-Auth", auth)] if auth else []
        target = f"/services/web/update?version={stored(api).rev}{more}"
        status, answer = await api("POST", target, spec(**fields), headers=headers)
        assert status == 200, answer
        now = stored(api)
        return tuple(s and api.host.unseal(now.id, s) for s in (now.pull_auth, now.previous_pull_auth))

    await api.ok("POST", "/services/create", spec())
    target = f"/services/web/update?version={stored(api).rev}&registryAuthFrom=previous-spec"
    assert await api.fails("POST", target, spec()) == (400, "service does not have a previous spec")
    assert await update(auth="Mg==", Labels={"n": "2"}) == (b"Mg==", "")
    assert await update(auth="Mw==", Labels={"n": "3"}) == (b"Mw==", b"Mg==")
    assert await update(Labels={"n": "4"}) == (b"Mw==", b"Mw==")
    assert await update(auth="NQ==", Labels={"n": "5"}) == (b"NQ==", b"Mw==")
    assert await update("&registryAuthFrom=previous-spec", Labels={"n": "6"}) == (b"Mw==", b"NQ==")
    assert await update("&rollback=previous&registryAuthFrom=previous-spec") == (b"NQ==", b"Mw==")


async def test_removed_is_gone_at_once(api: Any) -> None:
    key = await create(api)
    await api.ok("DELETE", "/services/web")
    assert stored(api).pending_delete
    assert await api.ok("GET", "/services") == []
    assert await api.fails("GET", f"/services/{key}") == (404, f"service {key} not found")
    assert await api.fails("DELETE", "/services/web") == (404, "service web not found")
    assert (await api("POST", "/services/create", spec()))[0] == 201


async def test_a_missing_secret(api: Any) -> None:
    await api.write(Secret(id="s", spec=SecretSpec(name="pw")))
    body = spec()
    reference = {"SecretID": "s", "SecretName": "pw", "File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292}}
    body["TaskTemplate"]["ContainerSpec"]["Secrets"] = [reference]
    await api.ok("POST", "/services/create", body)
    status, message = await api.fails("DELETE", "/secrets/pw")
    assert status == 400
    assert message.endswith("secret 'pw' is in use by the following service: web")
    reference["SecretID"] = "other"
    assert (await api.fails("POST", "/services/create", {**body, "Name": "more"}))[0] == 400


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"name":["we"]}', ["web"]),
        ('{"name":["eb"]}', []),
        ('{"label":["com.docker.stack.namespace=s"]}', ["db"]),
        ('{"mode":["global"]}', ["agent"]),
        ('{"mode":{"replicated":true}}', ["db", "web"]),
        ('{"runtime":["plugin"]}', []),
    ],
)
async def test_filters(api: Any, filters: str, found: list[str]) -> None:
    await create(api)
    await create(api, "db", Labels={"com.docker.stack.namespace": "s"})
    await create(api, "agent", Mode={"Global": {}})
    shown = await api.ok("GET", f"/v1.41/services?filters={filters}")
    assert sorted(s["Spec"]["Name"] for s in shown) == found
    assert await api.fails("GET", '/services?filters={"node":["x"]}') == (400, "invalid filter 'node'")


async def test_how_many_run(api: Any) -> None:
    key = await create(api)
    agents = await create(api, "agent", Mode={"Global": {}})
    await api.write(
        *task(1, TaskState.RUNNING, service=key),
        *task(2, TaskState.RUNNING, service=key, node=THREE),
        *task(3, TaskState.STARTING, service=agents),
        *task(4, TaskState.SHUTDOWN, service=agents, desired=TaskState.SHUTDOWN),
    )
    shown = {s["Spec"]["Name"]: s["ServiceStatus"] for s in await api.ok("GET", "/v1.41/services?status=true")}
    assert shown["web"] == {"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}
    assert shown["agent"] == {"RunningTasks": 0, "DesiredTasks": 1, "CompletedTasks": 0}
    dead = next(n for n in api.stored(Node) if n.id == THREE)
    await api.write(replace(dead, state=NodeState.DOWN))
    shown = {s["Spec"]["Name"]: s["ServiceStatus"] for s in await api.ok("GET", "/v1.41/services?status=true")}
    assert shown["web"]["RunningTasks"] == 1
    assert "ServiceStatus" not in (await api.ok("GET", "/services"))[0]
