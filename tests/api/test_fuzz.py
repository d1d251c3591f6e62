"""Anything may be sent: it is refused in words and has changed nothing, or what it asks for can be carried out."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterswarm.control.controllers import CONTROLLERS
from afterswarm.core.host import container_config
from afterswarm.core.host.container_config import Place
from afterswarm.core.trust import token
from afterswarm.model.base import Change
from afterswarm.model.refused import Refused
from afterswarm.model.service import Service
from afterswarm.model.task import Task, TaskState

SEQUENCE = "update out of sequence"
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "a", "{{.Task.Slot}}", "{{", "../..", "A=B", "=", "node.id==x", "1s", "SIGKILL", "\x00", "é" * 99]
    ),
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64, 10**30, 1 << 16]), st.integers(), st.floats()
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
SERVICE: dict[str, Any] = {
    "Name": "web",
    "Labels": {"a": "b", "afterswarm.depends-on": "db"},
    "Mode": {"Replicated": {"Replicas": 2}},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "nginx:1",
            "Labels": {"tier": "front"},
            "Command": ["nginx"],
            "Args": ["-g", "daemon off;"],
            "Hostname": "{{.Task.Name}}",
            "Env": ["A={{.Node.Hostname}}"],
            "Dir": "/srv",
            "User": "1000",
            "Groups": ["1"],
            "TTY": True,
            "OpenStdin": False,
            "Init": True,
            "ReadOnly": True,
            "StopSignal": "SIGINT",
            "StopGracePeriod": 3_000_000_000,
            "Hosts": ["10.1.2.3 db"],
            "DNSConfig": {"Nameservers": ["10.0.0.9"], "Search": ["example.org"], "Options": ["ndots:2"]},
            "CapabilityAdd": ["CAP_NET_RAW"],
            "CapabilityDrop": ["ALL"],
            "Sysctls": {"net.core.somaxconn": "512"},
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
            "Privileges": {"NoNewPrivileges": True, "SELinuxContext": {"Disable": True}},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 2},
            "Mounts": [
                {"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"Labels": {"a": "b"}}},
                {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
                {"Type": "bind", "Source": "/srv", "Target": "/b", "BindOptions": {"Propagation": "rprivate"}},
            ],
        },
        "Resources": {
            "Limits": {"NanoCPUs": 10_000_000, "MemoryBytes": 64 << 20, "Pids": 9},
            "Reservations": {
                "NanoCPUs": 10_000_000,
                "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}],
            },
        },
        "RestartPolicy": {"Condition": "any", "Delay": 1_000_000_000, "MaxAttempts": 3, "Window": 1_000_000_000},
        "Placement": {
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            "MaxReplicas": 2,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
        },
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        "ForceUpdate": 1,
        "Runtime": "container",
    },
    "UpdateConfig": {"Parallelism": 2, "Delay": 1, "FailureAction": "pause", "Monitor": 1, "MaxFailureRatio": 0.5},
    "RollbackConfig": {"Parallelism": 1, "Order": "start-first"},
    "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "secrets": {"Name": "pw", "Labels": {"a": "b"}, "Data": "aHVzaA==", "Templating": {"Name": "golang"}},
    "configs": {"Name": "conf", "Labels": {"a": "b"}, "Data": "aHVzaA==", "Templating": {"Name": "golang"}},
    "networks": {
        "Name": "back",
        "Driver": "overlay",
        "Attachable": True,
        "Labels": {"a": "b"},
        "Options": {"encrypted": "", "com.docker.network.driver.mtu": "1400"},
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be put in place of what is there."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [deeper for key in keys for deeper in ((*path, key), *places(value[key], (*path, key)))]


@st.composite
def bent(draw: st.DrawFn, right: dict[str, Any]) -> Any:
    """The body, with something else here and there."""
    body = copy.deepcopy(right)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(body)))
        found = body
        for key in path:
            found = found[key]
        if draw(st.booleans()):
            found[last] = draw(JUNK)
        else:
            del found[last]
        if not body:
            break
    return body


def told(body: Any) -> bytes:
    return json.dumps(body, allow_nan=True).encode()


async def send(api: Any, method: str, target: str, body: bytes, headers: list[tuple[str, str]] | None = None) -> Any:
    """The status; and nothing has changed if it is an error."""
    cache = api.host.cache
    before = cache.rev, dict(api.host.cache._kinds["service"])
    status, answer = await api(method, target, body, headers=headers)
    if status >= 400:
        assert method == "HEAD" or answer["message"]
        assert status != 500 or SEQUENCE in answer["message"]
        assert (cache.rev, dict(api.host.cache._kinds["service"])) == before
    return status


async def carried_out(api: Any) -> None:
    """Every planner finds something to do about every service, and hosts know what to ask their engine."""
    snap = api.host.cache.snapshot()
    for service in snap.services.values():
        for controller in CONTROLLERS:
            for key in controller.keys_of(Change(None, service)):
                controller.plan(snap, key)
        task = Task(id="t", service_id=service.id, slot=1, spec=service.spec.task_template, state=TaskState.ASSIGNED)
        try:
            container_config.body(task, Place(node_id="n1", hostname="one"))
        except Refused as refused:
            assert refused.message  # noqa: PT017 - it becomes the task's error


async def clear(api: Any) -> None:
    await api.host.cache.commit([Change(service, None) for service in api.stored(Service)])


@FUZZ
@given(body=bent(SERVICE), again=bent(SERVICE), auth=st.one_of(st.just(""), st.text(st.characters(max_codepoint=126))))
async def test_services(api: Any, body: Any, again: Any, auth: str) -> None:
    await clear(api)
    header = [("X-Registry-Auth", base64.b64encode(auth.encode()).decode() if len(auth) % 2 else auth)]
    if await send(api, "POST", "/v1.41/services/create", told(body), header) >= 300:
        assert await send(api, "POST", "/v1.41/services/create", told(SERVICE)) == 201
    await carried_out(api)
    (service,) = api.stored(Service)
    target = f"/v1.41/services/{service.id}/update?version={service.rev}"
    if isinstance(again, dict):
        again["Name"] = service.name
    await send(api, "POST", target, told(again), header)
    await carried_out(api)
    for target in (f"/services/{service.id}?insertDefaults=true", "/services?status=1", "/tasks"):
        assert await send(api, "GET", target, b"") == 200


@pytest.mark.parametrize("kind", sorted(OTHERS))
@FUZZ
@given(data=st.data())
async def test_secrets_configs_and_networks(api: Any, kind: str, data: st.DataObject) -> None:
    body = data.draw(bent(OTHERS[kind]))
    if kind == "networks" and isinstance(body, dict):
        body["Driver"] = "overlay"
    await send(api, "POST", f"/{kind}/create", told(body))
    assert await send(api, "GET", f"/{kind}", b"") == 200
    for shown in await api.ok("GET", f"/{kind}"):
        if shown.get("Scope", "swarm") == "swarm" and not shown.get("Ingress"):
            await send(api, "DELETE", f"/{kind}/{shown.get('ID') or shown['Id']}", b"")


@FUZZ
@given(
    kind=st.sampled_from(["nodes", "services", "tasks", "secrets", "configs", "networks"]),
    filters=st.one_of(
        st.dictionaries(
            st.sampled_from(
                ["id", "name", "label", "mode", "role", "node", "service", "desired-state", "runtime", "x"]
            ),
            JUNK,
            max_size=3,
        ).map(json.dumps),
        st.text(max_size=30),
    ),
)
async def test_filters(api: Any, kind: str, filters: str) -> None:
    await send(api, "GET", f"/v1.41/{kind}?filters={quote(filters, errors='replace')}", b"")


@FUZZ
@given(
    kind=st.sampled_from(["nodes/one", "services/web", "secrets/pw", "configs/conf", "swarm"]),
    version=st.one_of(st.text(max_size=12), st.integers().map(str)),
    body=st.one_of(JUNK.map(told), st.binary(max_size=40)),
)
async def test_versions_and_bodies(api: Any, kind: str, version: str, body: bytes) -> None:
    await send(api, "POST", f"/{kind}/update?version={quote(version, errors='replace')}", body)


@FUZZ
@given(path=st.lists(st.text(max_size=8), max_size=4), method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"]))
async def test_paths(api: Any, path: list[str], method: str) -> None:
    for first in ("services", "swarm", "v1.41/nodes", "v9.99/tasks", "v1/secrets"):
        await send(api, method, "/".join(["", first, *(quote(p, safe="", errors="replace") for p in path)]), b"")


@FUZZ
@given(text=st.one_of(st.text(), st.from_regex(r"SWMTKN-1-[0-9a-z]{40,60}-[0-9a-z]{20,30}", fullmatch=True)))
def test_join_tokens(text: str) -> None:
    try:
        token.parse(text)
    except Refused as refused:
        assert refused.message  # noqa: PT017
