"""`/nodes` as the command line and Prometheus read it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.model.node import Leader, Node, NodeReport, NodeState
from afterswarm.model.volume import Volume

ONE, TWO, THREE = (name + "0" * (25 - len(name)) for name in ("one", "two", "three"))


def spec(**changes: Any) -> dict[str, Any]:
    return {"Role": "manager", "Availability": "active", "Labels": {}, **changes}


def node(api: Any, key: str) -> Node:
    return next(n for n in api.stored(Node) if n.id == key)


async def update(api: Any, key: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer: tuple[int, Any] = await api("POST", f"/v1.41/nodes/{key}/update?version={node(api, key).rev}", body)
    return answer


async def test_the_whole_of_a_manager(api: Any) -> None:
    shown = await api.ok("GET", "/nodes/self")
    assert shown == {
        "ID": ONE,
        "Version": {"Index": 2},
        "CreatedAt": "2023-11-14T22:13:20Z",
        "UpdatedAt": "2023-11-14T22:13:20Z",
        "Spec": {"Labels": {}, "Role": "manager", "Availability": "active"},
        "Description": {
            "Hostname": "swarm-1",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1 << 32},
            "Engine": {"EngineVersion": "20.10.24", "Labels": {"disk": "ssd"}},
        },
        "Status": {"State": "ready", "Addr": "10.77.0.1"},
        "ManagerStatus": {"Leader": True, "Reachability": "reachable", "Addr": "10.77.0.1:2377"},
    }


async def test_who_leads_and_who_is_reachable(api: Any) -> None:
    shown = {n["ID"]: n.get("ManagerStatus") for n in await api.ok("GET", "/nodes")}
    assert shown[TWO] == {"Reachability": "reachable", "Addr": "10.77.0.2:2377"}
    assert shown[THREE] is None
    await api.write(replace(node(api, ONE), state=NodeState.DOWN, message="heartbeat failure"))
    shown = {n["ID"]: n for n in await api.ok("GET", "/nodes")}
    assert shown[ONE]["ManagerStatus"] == {"Reachability": "unreachable", "Addr": "10.77.0.1:2377"}
    assert shown[ONE]["Status"] == {"State": "down", "Addr": "10.77.0.1", "Message": "heartbeat failure"}
    await api.write(Leader(id="leader", node_id=TWO))
    assert (await api.ok("GET", f"/nodes/{TWO}"))["ManagerStatus"]["Leader"] is True


@pytest.mark.parametrize("term", ["self", ONE, "swarm-1", "one"])
async def test_found_by(api: Any, term: str) -> None:
    assert (await api.ok("GET", f"/nodes/{term}"))["ID"] == ONE


async def test_two_hosts_of_one_name(api: Any) -> None:
    twin = next(r for r in api.stored(NodeReport) if r.id == TWO)
    await api.write(replace(twin, description=replace(twin.description, hostname="swarm-1")))
    assert await api.fails("GET", "/nodes/swarm-1") == (400, "node swarm-1 is ambiguous (2 matches found)")
    assert await api.fails("GET", "/nodes/nope") == (404, "node nope not found")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"id":["t"]}', [THREE, TWO]),
        ('{"name":["swarm-2"]}', [TWO]),
        ('{"name":["swarm"]}', [ONE, THREE, TWO]),
        ('{"role":{"manager":true}}', [ONE, TWO]),
        ('{"label":["disk=ssd"]}', [ONE]),
        ('{"node.label":["rack"]}', []),
        ('{"membership":["accepted"]}', [ONE, THREE, TWO]),
        ('{"membership":["pending"]}', []),
    ],
)
async def test_filters(api: Any, filters: str, found: list[str]) -> None:
    assert [n["ID"] for n in await api.ok("GET", f"/nodes?filters={filters}")] == found


async def test_wrong_filters(api: Any) -> None:
    assert await api.fails("GET", '/nodes?filters={"x":["y"]}') == (400, "invalid filter 'x'")
    assert await api.fails("GET", '/nodes?filters={"role":["boss"]}') == (400, "Invalid role filter: 'boss'")


async def test_labels_availability_and_role(api: Any) -> None:
    status, _ = await update(api, THREE, spec(Role="manager", Availability="drain", Labels={"rack": "1"}))
    assert status == 200
    shown = await api.ok("GET", f"/nodes/{THREE}")
    assert shown["Spec"] == {"Labels": {"rack": "1"}, "Role": "manager", "Availability": "drain"}
    assert "ManagerStatus" not in shown  # wanted, and not yet one


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Role": "boss"}, 'invalid Role: "boss"'),
        ({"Role": None}, 'invalid Role: ""'),
        ({"Availability": "gone"}, 'invalid Availability: "gone"'),
    ],
)
async def test_wrong_specifications(api: Any, changes: dict[str, Any], words: str) -> None:
    status, answer = await update(api, ONE, spec(**changes))
    assert (status, answer["message"]) == (400, words)


async def test_the_last_manager_stays_one(api: Any) -> None:
    assert (await update(api, TWO, spec(Role="worker")))[0] == 200
    status, answer = await update(api, ONE, spec(Role="worker"))
    assert status == 400
    assert answer["message"].endswith("attempting to demote the last manager of the swarm")


async def test_an_old_version_is_out_of_sequence(api: Any) -> None:
    status, message = await api.fails("POST", f"/nodes/{ONE}/update?version=1", spec())
    assert (status, message) == (500, "rpc error: code = Unknown desc = update out of sequence")


async def test_removing(api: Any) -> None:
    await api.write(Volume(id="v", node_id=THREE), Volume(id="w", node_id=TWO))
    prefix = "rpc error: code = FailedPrecondition desc = "
    assert await api.fails("DELETE", "/nodes/swarm-3") == (
        400,
        f"{prefix}node {THREE} is not down and can't be removed",
    )
    status, message = await api.fails("DELETE", "/nodes/swarm-2?force=1")
    assert status == 400
    assert "must be demoted to worker before removal" in message
    await api.ok("DELETE", "/nodes/swarm-3?force=1")
    assert [n.id for n in api.stored(Node)] == [ONE, TWO]
    assert [v.id for v in api.stored(Volume)] == ["w"]
    assert {r.id for r in api.stored(NodeReport)} == {ONE, TWO}
