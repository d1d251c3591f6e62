"""`/networks`: the swarm's and the engine's in one list, each once."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.api.host import LocalInfo
from afterswarm.model.network import Network
from afterswarm.model.service import (
    Endpoint,
    NetworkAttachmentConfig,
    Service,
    ServiceSpec,
    TaskSpec,
    VirtualIP,
)
from afterswarm.model.task import Attachment, Report, Task, TaskState

THREE = "three" + "0" * 20
LABEL = "io.afterswarm.network"


async def create(api: Any, name: str = "back", **more: Any) -> str:
    answer = await api.ok("POST", "/v1.41/networks/create", {"Name": name, "Driver": "overlay", **more})
    return str(answer["Id"])


async def names(api: Any, filters: str = "") -> list[str]:
    return [n["Name"] for n in await api.ok("GET", f"/v1.41/networks?filters={filters}")]


def stored(api: Any, key: str) -> Network:
    return next(n for n in api.stored(Network) if n.id == key)


def user(key: str) -> list[Any]:
    template = TaskSpec(networks=[NetworkAttachmentConfig(target=key)])
    endpoint = Endpoint(virtual_ips=[VirtualIP(network_id=key, addr="10.0.1.2/24")])
    place = Attachment(network_id=key, address="10.0.1.5/24")
    task = Task(id="t1", service_id="s", slot=1, node_id=THREE, state=TaskState.ASSIGNED, attachments=[place])
    service = Service(id="s", spec=ServiceSpec(name="web", task_template=template), endpoint=endpoint)
    return [service, task, Report(id="t1", service_id="s", node_id=THREE, state=TaskState.RUNNING)]


async def test_both_in_one_list(api: Any, engine: Any) -> None:
    key = await create(api)
    engine.add("back", {LABEL: key})
    engine.add("mine")
    shown = await api.ok("GET", "/v1.41/networks")
    assert sorted(n["Name"] for n in shown) == ["back", "bridge", "ingress", "mine"]
    back = next(n for n in shown if n["Name"] == "back")
    assert (back["Id"], back["Driver"], back["Scope"]) == (key, "overlay", "swarm")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"driver":["overlay"]}', ["back", "ingress"]),
        ('{"driver":["bridge"]}', []),
        ('{"scope":["swarm"]}', ["back", "ingress"]),
        ('{"scope":["local"]}', []),
        ('{"name":["ac"]}', ["back"]),
        ('{"label":["tier"]}', ["back"]),
        ('{"label":["tier=x"]}', []),
        ('{"type":["builtin"]}', []),
        ('{"id":["ingress0"]}', ["ingress"]),
        ('{"dangling":["true"]}', ["back", "ingress"]),
        ('{"dangling":["false"]}', []),
    ],
)
async def test_filters(api: Any, engine: Any, filters: str, found: list[str]) -> None:
    await create(api, Labels={"tier": "db"})
    engine.networks.clear()
    assert sorted(await names(api, filters)) == found


async def test_the_engine_hears_the_filters(api: Any, engine: Any) -> None:
    await names(api, '{"name":["x"]}')
    assert ("GET", '/v1.41/networks?filters={"name":["x"]}') in engine.asked
    assert await api.fails("GET", '/networks?filters={"x":["y"]}') == (400, "invalid filter 'x'")


async def test_inspect(api: Any, engine: Any) -> None:
    key = await create(api, Labels={"a": "b"}, Options={"com.docker.network.driver.mtu": "1400"}, Attachable=True)
    await api.write(replace(stored(api, key), subnet="10.0.1.0/24", gateway="10.0.1.1", vni=4097), *user(key))
    there = {"abc": {"Name": "web.1.t1", "EndpointID": "e", "MacAddress": "02", "IPv4Address": "10.0.1.5/24"}}
    part = engine.add("back", {LABEL: key}, Containers=there)
    for term in (key, "back", key[:5], part):
        shown = await api.ok("GET", f"/v1.41/networks/{term}")
        assert shown["Id"] == key
    assert shown["IPAM"] == {
        "Driver": "default",
        "Options": None,
        "Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}],
    }
    driver = "com.docker.network.driver"
    assert shown["Options"] == {f"{driver}.mtu": "1400", f"{driver}.overlay.vxlanid_list": "4097"}
    assert shown["Containers"] == there
    assert shown["Peers"] == [{"Name": THREE[:12], "IP": "10.77.0.3"}]
    assert (shown["Attachable"], shown["Internal"], shown["Ingress"]) == (True, False, False)
    assert "Services" not in shown
    shown = await api.ok("GET", "/v1.41/networks/back?verbose=true")
    task = {"Name": "web.1.t1", "EndpointID": "", "EndpointIP": "10.0.1.5", "Info": {"Host IP": "10.77.0.3"}}
    assert shown["Services"] == {"web": {"VIP": "10.0.1.2", "Ports": [], "LocalLBIndex": 0, "Tasks": [task]}}


async def test_the_engines_own_networks_are_the_engines(api: Any, engine: Any) -> None:
    engine.add("mine")
    assert (await api.ok("GET", "/v1.41/networks/mine"))["Driver"] == "bridge"
    assert await api.fails("GET", "/networks/nope") == (404, "network nope not found")
    await api.ok("POST", "/v1.41/networks/create", {"Name": "more"})
    assert "more" in [n["Name"] for n in engine.networks.values()]
    engine.containers["x"] = {}
    await api.ok("POST", "/networks/mine/connect", {"Container": "x"})
    assert (await api("DELETE", "/networks/mine"))[0] == 204
    assert "mine" not in [n["Name"] for n in engine.networks.values()]


async def test_names_are_taken_once(api: Any, engine: Any) -> None:
    await create(api)
    engine.add("mine")
    taken = (409, "network with name back already exists")
    assert await api.fails("POST", "/networks/create", {"Name": "back", "Driver": "overlay"}) == taken
    assert await api.fails("POST", "/networks/create", {"Name": "back"}) == taken
    assert (await api.fails("POST", "/networks/create", {"Name": "mine", "Driver": "overlay"}))[0] == 409


async def test_what_the_command_line_sends(api: Any) -> None:
    ipam = {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.9.0.0/24", "IPRange": "", "Gateway": ""}]}
    key = await create(api, CheckDuplicate=True, EnableIPv6=False, IPAM=ipam, Options=None, Labels={}, ConfigFrom=None)
    assert (await api.ok("GET", f"/networks/{key}"))["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24"}]


async def test_removing(api: Any) -> None:
    key = await create(api)
    await api.write(*user(key))
    status, message = await api.fails("DELETE", "/networks/back")
    assert status == 400
    assert message.endswith(f"network {key} is in use by service s")
    service = api.stored(Service)[0]
    await api.write(replace(service, pending_delete=True))
    assert (await api("DELETE", "/networks/back"))[0] == 204
    assert stored(api, key).pending_delete  # its last task is still running
    assert "back" not in await names(api)
    assert await api.fails("GET", "/networks/back") == (404, "network back not found")
    assert await create(api) != key


async def test_parts_of_overlay_networks_are_left_alone(api: Any, engine: Any) -> None:
    key = await create(api)
    part = engine.add("back", {LABEL: key})
    engine.containers["x"] = {}
    assert (await api.fails("POST", "/networks/back/connect", {"Container": "x"}))[0] == 403
    assert (await api.fails("POST", f"/networks/{part}/connect", {"Container": "x"}))[0] == 403
    await api.ok("POST", '/v1.41/networks/prune?filters={"label":["x"]}')
    method, target = engine.asked[-1]
    assert method == "POST"
    assert target.startswith("/v1.41/networks/prune?filters=")
    assert "label%21" in target
    assert part in engine.networks


async def test_prune_takes_unused_overlay_networks(api: Any) -> None:
    key = await create(api)
    await create(api, "idle")
    await api.write(*user(key))
    assert await api.ok("POST", "/networks/prune") == {"NetworksDeleted": ["idle"]}
    assert sorted(n.name for n in api.stored(Network)) == ["back", "ingress"]


async def test_what_a_swarm_left_behind_is_the_engines(api: Any, engine: Any) -> None:
    """A container that is still in it kept it from going when the host left."""
    part = engine.add("back", {LABEL: "net1"}, Options={"com.docker.network.bridge.name": "aswnet1"})
    api.host.become(LocalInfo(state="inactive"))
    assert part in {n["Id"] for n in await api.ok("GET", "/networks")}
    assert (await api.ok("GET", "/networks/back"))["Driver"] == "bridge"
    assert (await api("DELETE", "/networks/back"))[0] == 204
    assert part not in engine.networks


async def test_a_worker_shows_the_parts_as_the_overlay_networks(api: Any, engine: Any) -> None:
    engine.add("back", {LABEL: "net1"}, Options={"com.docker.network.bridge.name": "aswnet1"})
    engine.add("lan", {LABEL: "net2"}, driver="macvlan", Options={"parent": "eth0"})
    api.host.become(LocalInfo(state="active"), THREE)
    shown = {n["Name"]: n for n in await api.ok("GET", "/networks")}
    assert (shown["back"]["Id"], shown["back"]["Driver"], shown["back"]["Scope"]) == ("net1", "overlay", "swarm")
    assert shown["bridge"]["Driver"] == "bridge"
    assert (shown["lan"]["Id"], shown["lan"]["Driver"], shown["lan"]["Scope"]) == ("net2", "macvlan", "swarm")
    assert (await api.ok("GET", "/networks/back"))["Driver"] == "overlay"
    assert (await api.fails("DELETE", "/networks/back"))[0] == 503
    status, message = await api.fails("POST", "/networks/create", {"Name": "x", "Driver": "overlay"})
    assert status == 503
    assert "Worker nodes can't be used" in message
