"""Which versions of the API are spoken, what older ones do not know, and what clients learn of the swarm before all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import docker
import pytest

from afterswarm.api import since
from afterswarm.api.host import LocalInfo
from afterswarm.http.client import Client
from afterswarm.http.message import Request, Response
from afterswarm.http.server import serve_unix
from afterswarm.model.service import Service

EVERYTHING: dict[str, Any] = {  # a specification with every member that some version brought
    "Name": "web",
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "nginx:1",
            "Sysctls": {"net.core.somaxconn": "9"},
            "Privileges": {
                "CredentialSpec": {"Config": "c1", "File": "f"},
                "Seccomp": {"Mode": "unconfined"},
                "AppArmor": {"Mode": "disabled"},
                "NoNewPrivileges": True,
            },
            "Configs": [{"ConfigID": "c1", "ConfigName": "conf", "Runtime": {}}],
            "CapabilityAdd": ["NET_ADMIN"],
            "CapabilityDrop": ["MKNOD"],
            "Ulimits": [{"Name": "nofile", "Hard": 9, "Soft": 9}],
            "Healthcheck": {"Test": ["NONE"], "StartInterval": 5_000_000_000},
            "OomScoreAdj": 7,
            "Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["exec"]], "SizeBytes": 9}}],
        },
        "Placement": {"MaxReplicas": 3},
        "Resources": {"Limits": {"Pids": 5, "NanoCPUs": 10**9}, "SwapBytes": 9, "MemorySwappiness": 9},
    },
    "Mode": {"ReplicatedJob": {}, "GlobalJob": {}},
}


def asked(version: str) -> Request:
    return Request("POST", f"/v{version}/services/create" if version else "/services/create")


def has(body: Any, path: str) -> bool:
    head, _, rest = path.partition(".")
    if isinstance(body, list):
        return any(has(item, path) for item in body)
    return head in body and (not rest or has(body[head], rest))


@pytest.mark.row("SA-11")
@pytest.mark.parametrize("version", since.SERVICE)
def test_sa_11_what_an_older_client_cannot_know_is_dropped(version: since.Version) -> None:
    major, minor = version
    for spoken, there in ((f"{major}.{minor - 1}", False), (f"{major}.{minor}", True), ("", True)):
        body = since.known(json.loads(json.dumps(EVERYTHING)), asked(spoken), since.SERVICE)
        for path in since.SERVICE[version]:
            assert has(body, path) == there, (path, spoken)
        assert body["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["TmpfsOptions"]["SizeBytes"] == 9


def test_every_member_of_the_table_is_one_of_ours() -> None:
    """A typing mistake in the table would drop nothing."""
    for paths in since.SERVICE.values():
        for path in paths:
            assert has(EVERYTHING, path), path


@pytest.mark.row("SA-11", client="docker-py")
async def test_sa_11_docker_py_in_old_versions(sock: Path, api: Any) -> None:
    def use(version: str) -> None:
        client = docker.APIClient(base_url=f"unix://{sock}", version=version)
        try:
            template = docker.types.TaskTemplate(docker.types.ContainerSpec("nginx:1", sysctls={"net.a": "1"}))
            made = client.create_service(template, name="v" + version.replace(".", "-"))
            shown = client.inspect_service(made["ID"])["Spec"]["TaskTemplate"]["ContainerSpec"]
            assert shown["Image"] == "nginx:1"
            assert ("Sysctls" in shown) == (version in ("1.40", "1.41"))
            assert len(client.nodes()) == 3
        finally:
            client.close()

    for version in ("1.24", "1.30", "1.35", "1.40", "1.41"):
        await asyncio.to_thread(use, version)
    assert len(api.stored(Service)) == 5


@pytest.mark.row("SA-11")
async def test_sa_11_command_lines_in_old_and_wrong_versions(cli: Any, api: Any) -> None:
    for version in ("1.30", "1.37", "1.40", "1.41"):
        cli._env["DOCKER_API_VERSION"] = version
        name = "v" + version.replace(".", "-")
        await cli("service", "create", "-d", "--no-resolve-image", "--name", name, "nginx:1")
        assert name in await cli("service", "ls")
        assert "swarm-3" in await cli("node", "ls")
        assert "nginx:1" in await cli("service", "inspect", "--pretty", name)
    assert len(api.stored(Service)) == 4
    cli._env["DOCKER_API_VERSION"] = "1.99"
    words = "client version 1.99 is too new. Maximum supported API version is 1.41"
    assert words in await cli.fails("service", "ls")


@pytest.mark.row("SA-11")
async def test_sa_11_too_old_and_too_new(api: Any) -> None:
    for target in ("/v1.23/services", "/v1.0/nodes"):
        status, words = await api.fails("GET", target)
        assert status == 400
        assert words.endswith(
            "is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        )
    assert await api.fails("POST", "/v1.42/services/create", {}) == (
        400,
        "client version 1.42 is too new. Maximum supported API version is 1.41",
    )
    assert await api.ok("GET", "/v1.24/services") == []
    assert await api.ok("GET", "/services") == []
    refused = await api.app(Request("GET", "/v1.42/services"))
    assert dict(refused.headers)["Api-Version"] == "1.41"


@pytest.mark.row("SA-11")
async def test_sa_11_what_else_depends_on_the_version(api: Any, host: Any) -> None:
    spec = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", "CapabilityAdd": ["NET_ADMIN"]}}}
    for version, added in (("1.40", False), ("1.41", True)):
        spec["Name"] = version.replace(".", "-")
        made = await api.ok("POST", f"/v{version}/services/create", spec)
        shown = (await api.ok("GET", f"/v1.24/services/{made['ID']}"))["Spec"]["TaskTemplate"]["ContainerSpec"]
        assert ("CapabilityAdd" in shown) == added
        listed = await api.ok("GET", f"/v{version}/services?status=true")
        assert all(("ServiceStatus" in s) == added for s in listed)
    secret = {"Name": "s", "Data": "eA==", "Templating": {"Name": "golang"}}
    words = "{} templating is not supported on the specified API version: 1.36"
    assert await api.fails("POST", "/v1.36/secrets/create", secret) == (400, words.format("secret"))
    assert await api.fails("POST", "/v1.36/configs/create", secret) == (400, words.format("config"))
    host.become(LocalInfo())
    await api.ok("POST", "/v1.38/swarm/init", {"DefaultAddrPool": ["10.1.0.0/16"], "SubnetSize": 28, "DataPathPort": 5})
    assert host.calls[0].spec is not None
    assert (host.calls[0].default_addr_pool, host.calls[0].subnet_size, host.calls[0].data_path_port) == ([], 0, 0)


@pytest.mark.row("SW-22")
async def test_sw_22_info(cli: Any, host: Any, api: Any) -> None:
    shown = await cli("info")
    for words in (
        "Swarm: active",
        f"NodeID: {host.node_id}",
        "Is Manager: true",
        "Managers: 2",
        "Nodes: 3",
        "ClusterID: cluster00000000000000000x",
        "Data Path Port: 4789",
        "Task History Retention Limit: 5",
        "Heartbeat Period: 5 seconds",
        "Node Address: 10.77.0.1",
        "Expiry Duration: 3 months",
        "Root Rotation In Progress: false",
    ):
        assert words in shown, words
    managers = [("one" + "0" * 22, "10.77.0.1:2377"), ("two" + "0" * 22, "10.77.0.2:2377")]
    host.become(LocalInfo(state="active", node_addr="10.77.0.3", remote_managers=managers), "three" + "0" * 20)
    shown = await cli("info")
    assert "Is Manager: false" in shown
    assert "10.77.0.1:2377" in shown
    assert "ClusterID" not in shown
    for state, why in (("pending", ""), ("error", "certificate has expired"), ("locked", ""), ("inactive", "")):
        host.become(LocalInfo(state=state, error=why))
        shown = await cli("info")
        assert f"Swarm: {state}" in shown
        assert why in shown
    block = (await api.ok("GET", "/info"))["Swarm"]
    assert (block["LocalNodeState"], block["ControlAvailable"], block["RemoteManagers"]) == ("inactive", False, None)


@pytest.mark.row("SW-23")
async def test_sw_23_ping(cli: Any, host: Any, sock: Path) -> None:
    async def said(method: str) -> tuple[int, str, str]:
        reply = await Client.unix(sock).request(method, "/_ping")
        return reply.status, reply.headers.get("swarm"), reply.headers.get("api-version")

    for method in ("GET", "HEAD"):
        assert await said(method) == (200, "active/manager", "1.41")
    assert "1.41" in await cli("version", "-f", "{{.Server.APIVersion}}")
    for state, control, words in (
        ("active", False, "active/worker"),
        ("inactive", False, "inactive"),
        ("pending", False, "pending"),
        ("error", False, "error"),
        ("locked", False, "locked"),
    ):
        host.become(LocalInfo(state=state, control_available=control), "three" + "0" * 20)
        assert (await said("HEAD"))[1] == words
    host.become(LocalInfo())
    words = await cli.fails("service", "ls")
    assert 'Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.' in words


@pytest.mark.row("SW-23")
async def test_sw_23_other_headers_of_the_engine_stay(api: Any, host: Any, tmp_path: Path) -> None:
    async def engine(_: Request) -> Response:
        more = [("Builder-Version", "2"), ("Docker-Experimental", "false"), ("Swarm", "inactive")]
        return Response(200, [("Api-Version", "1.47"), *more], b"OK")

    async with serve_unix(tmp_path / "other.sock", engine):
        host.engine = Client.unix(tmp_path / "other.sock")
        answer = await api.app(Request("GET", "/_ping"))
        found = dict(answer.headers)
        await answer.body.aclose()
        host.engine.close()
    assert {k: found[k] for k in ("Builder-Version", "Docker-Experimental", "Swarm", "Api-Version")} == {
        "Builder-Version": "2",
        "Docker-Experimental": "false",
        "Swarm": "active/manager",
        "Api-Version": "1.47",
    }
