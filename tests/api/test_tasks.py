"""`/tasks`: the later of two truths, and what Prometheus and the command line look for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.service import ContainerSpec, ReplicatedService, Service, ServiceMode, ServiceSpec, TaskSpec
from afterswarm.model.task import Attachment, PortStatus, Report, Task, TaskState

ONE, THREE = "one" + "0" * 22, "three" + "0" * 20
SPEC = TaskSpec(container_spec=ContainerSpec(image="nginx:1", labels={"tier": "front"}))


def service(key: str = "s1", name: str = "web", **more: Any) -> Service:
    mode = ServiceMode(replicated=ReplicatedService(replicas=2))
    return Service(id=key, spec=ServiceSpec(name=name, task_template=SPEC, mode=mode, labels={"a": "b"}), **more)


def task(key: str = "t1", **more: Any) -> Task:
    return Task(id=key, service_id="s1", spec=SPEC, **{"slot": 1, "node_id": ONE, "state": TaskState.ASSIGNED, **more})


def report(key: str = "t1", state: TaskState = TaskState.RUNNING, **more: Any) -> Report:
    return Report(id=key, service_id="s1", node_id=ONE, state=state, since=1.5, message="started", **more)


async def status(api: Any, key: str = "t1") -> dict[str, Any]:
    shown: dict[str, Any] = (await api.ok("GET", f"/v1.41/tasks/{key}"))["Status"]
    return shown


async def test_the_whole_of_a_task(api: Any) -> None:
    spec = NetworkSpec(name="back", scope="swarm", labels={"l": "m"})
    await api.write(
        Network(id="n1", spec=spec, subnet="10.0.1.0/24", gateway="10.0.1.1", vni=4097),
        service(),
        task(attachments=[Attachment(network_id="n1", address="10.0.1.5/24")]),
        report(container_id="c0ffee", pid=42),
    )
    shown = await api.ok("GET", "/v1.41/tasks/t1")
    assert shown["Status"] == {
        "Timestamp": "1970-01-01T00:00:01.5Z",
        "State": "running",
        "Message": "started",
        "ContainerStatus": {"ContainerID": "c0ffee", "PID": 42, "ExitCode": 0},
        "PortStatus": {},
    }
    assert (shown["ServiceID"], shown["Slot"], shown["NodeID"], shown["DesiredState"]) == ("s1", 1, ONE, "running")
    container = {"Image": "nginx:1", "Labels": {"tier": "front"}, "Isolation": "default"}
    assert shown["Spec"]["ContainerSpec"] == container, "as its service shows it"
    assert shown["Labels"] == {}
    (attachment,) = shown["NetworksAttachments"]
    assert attachment["Addresses"] == ["10.0.1.5/24"]
    network = attachment["Network"]
    assert (network["ID"], network["Spec"]["Name"], network["Spec"]["Labels"]) == ("n1", "back", {"l": "m"})
    assert network["Spec"]["Scope"] == "swarm"
    assert network["DriverState"] == {
        "Name": "overlay",
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
    }
    assert network["IPAMOptions"] == {
        "Driver": {"Name": "default"},
        "Configs": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}],
    }


async def test_the_later_of_two_truths(api: Any) -> None:
    await api.write(service(), task(message="scheduler assigned task to node", since=1.0))
    assert (await status(api))["State"] == "assigned"
    await api.write(report(state=TaskState.FAILED, err="task: non-zero exit (1)", exit_code=1, container_id="c", pid=7))
    shown = await status(api)
    assert (shown["State"], shown["Err"], shown["ContainerStatus"]["ExitCode"]) == (
        "failed",
        "task: non-zero exit (1)",
        1,
    )
    assert shown["ContainerStatus"]["PID"] == 0
    await api.write(replace(api.stored(Task)[0], state=TaskState.ORPHANED, message="node is gone", since=3.0))
    shown = await status(api)
    assert (shown["State"], shown["Message"], shown["Timestamp"]) == (
        "orphaned",
        "node is gone",
        "1970-01-01T00:00:03Z",
    )
    assert "Err" not in shown


async def test_why_a_task_waits(api: Any) -> None:
    err = "no suitable node (insufficient resources on 2 nodes)"
    await api.write(service(), task(state=TaskState.PENDING, node_id="", err=err))
    shown = await api.ok("GET", "/tasks/t1")
    assert shown["Status"]["Err"] == err
    assert shown["Status"]["Message"] == "pending task scheduling"
    assert "NodeID" not in shown
    assert "ContainerStatus" not in shown["Status"]


async def test_ports_in_host_mode(api: Any) -> None:
    await api.write(service(), task(), report(ports=[PortStatus(target_port=80, published_port=32768)]))
    port = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 32768, "PublishMode": "host"}
    assert (await status(api))["PortStatus"] == {"Ports": [port]}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"service":["web"]}', ["t1", "t2", "t3"]),
        ('{"service":["s1"],"_up-to-date":["true"]}', ["t2", "t3"]),
        ('{"node":["self"]}', ["t1"]),
        ('{"node":["swarm-3"]}', ["t2", "t3"]),
        ('{"desired-state":["running"]}', ["t2", "t3"]),
        ('{"desired-state":["Shutdown"]}', ["t1"]),
        ('{"desired-state":{"running":true,"shutdown":true}}', ["t1", "t2", "t3"]),
        ('{"id":["t"]}', ["t1", "t2", "t3", "tx"]),
        ('{"name":["web.2"]}', ["t2"]),
        ('{"name":["db"]}', ["tx"]),
        ('{"label":["a=b"],"name":["web.1"]}', ["t1"]),
        ('{"label":["a=b"]}', ["t1", "t2", "t3", "tx"]),
        ('{"label":["zone"]}', []),
        ('{"label":["tier=front"]}', []),
        ('{"runtime":["container"]}', ["t1", "t2", "t3", "tx"]),
    ],
)
async def test_filters(api: Any, filters: str, found: list[str]) -> None:
    await api.write(
        service(spec_version=9),
        service("s2", "db"),
        replace(task("t1", desired=TaskState.SHUTDOWN), spec=replace(SPEC, force_update=1)),
        task("t2", slot=2, node_id=THREE, spec_version=9),
        task("t3", slot=3, node_id=THREE, spec_version=9),
        replace(task("tx", node_id=""), service_id="s2", desired=TaskState.READY),
    )
    shown = await api.ok("GET", f"/v1.41/tasks?filters={filters}")
    assert [t["ID"] for t in shown] == found


async def test_wrong_filters(api: Any) -> None:
    assert await api.fails("GET", '/tasks?filters={"service":["x"]}') == (404, "service x not found")
    assert await api.fails("GET", '/tasks?filters={"node":["x"]}') == (404, "node x not found")
    assert await api.fails("GET", '/tasks?filters={"colour":["x"]}') == (400, "invalid filter 'colour'")
    assert await api.fails("GET", '/tasks?filters={"desired-state":["happy"]}') == (
        400,
        "Invalid desired-state filter: 'happy'",
    )
    assert await api.fails("GET", "/tasks/nope") == (404, "task nope not found")
