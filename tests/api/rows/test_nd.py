"""Nodes, by both command lines, in a swarm that is alive: swarm-1 and swarm-2 manage, swarm-3 works."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.model.node import Node, NodeState, Role

THREE = "three" + "0" * 20
QUICK = ("--restart-delay", "100ms", "--update-monitor", "200ms")


def where(api: Any, service: str) -> Callable[[], Awaitable[list[str]]]:
    """Nodes of the service's running tasks."""

    async def look() -> list[str]:
        names = {n["ID"]: n["Description"]["Hostname"] for n in await api.ok("GET", "/nodes")}
        filters = json.dumps({"service": [service], "desired-state": ["running"]})
        tasks = await api.ok("GET", f"/tasks?filters={filters}")
        return sorted(names.get(t["NodeID"], "?") for t in tasks if t["Status"]["State"] == "running")

    return look


async def settled(eventually: Any, api: Any, service: str, *nodes: str) -> None:
    look = where(api, service)

    async def there() -> bool:
        return await look() == sorted(nodes)

    await eventually(there)


async def shown(cli: Any, what: str, *filters: str) -> dict[str, str]:
    flags = [flag for f in filters for flag in ("--filter", f)]
    rows = (await cli("node", "ls", *flags, "--format", f"{{{{.Hostname}}}} {{{{{what}}}}}")).splitlines()
    return {name: rest for name, _, rest in (row.partition(" ") for row in rows)}


@pytest.mark.row("ND-01")
async def test_nd_01_listing(cli: Any, api: Any) -> None:
    table = await cli("node", "ls")
    for column in ("ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"):
        assert column in table.splitlines()[0]
    assert await shown(cli, ".ManagerStatus") == {"swarm-1": "Leader", "swarm-2": "Reachable", "swarm-3": ""}
    await cli("node", "update", "--label-add", "rack=a", "swarm-2")
    for filters, found in (
        (["role=manager"], {"swarm-1", "swarm-2"}),
        (["role=worker"], {"swarm-3"}),
        (["role=worker", "role=manager"], {"swarm-1", "swarm-2", "swarm-3"}),
        (["name=swarm-2"], {"swarm-2"}),
        (["id=thr"], {"swarm-3"}),
        (["label=disk"], {"swarm-1"}),
        (["label=disk=hdd"], set()),
        (["node.label=rack=a"], {"swarm-2"}),
        (["membership=accepted"], {"swarm-1", "swarm-2", "swarm-3"}),
        (["membership=pending"], set()),
    ):
        assert set(await shown(cli, ".Status", *filters)) == found, filters
    assert len((await cli("node", "ls", "-q")).split()) == 3
    assert "invalid filter 'colour'" in await cli.fails("node", "ls", "--filter", "colour=red")


@pytest.mark.row("ND-02", "ND-13")
async def test_nd_02_inspect(cli: Any, api: Any, rooted: None) -> None:
    (me,) = json.loads(await cli("node", "inspect", "self"))
    assert me["Description"]["Engine"]["Labels"] == {"disk": "ssd"}
    assert me["Description"]["Resources"] == {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1 << 32}
    assert set(me["Description"]["TLSInfo"]) == {"TrustRoot", "CertIssuerSubject", "CertIssuerPublicKey"}
    assert me["ManagerStatus"] == {"Leader": True, "Reachability": "reachable", "Addr": "10.77.0.1:2377"}
    assert json.loads(await cli("node", "inspect", "swarm-1")) == [me]
    assert json.loads(await cli("node", "inspect", "one")) == [me]
    pretty = await cli("node", "inspect", "--pretty", "self")
    for line in ("Hostname:", "State:", "Availability:", "Raft Status:", "TLS Info:", "disk=ssd"):
        assert line in pretty
    assert "ManagerStatus" not in json.loads(await cli("node", "inspect", "swarm-3"))[0]
    assert "nope" in await cli.fails("node", "inspect", "nope")


@pytest.mark.row("ND-03")
async def test_nd_03_update(cli: Any, api: Any) -> None:
    await cli("node", "update", "--label-add", "a=1", "--label-add", "b", "--availability", "pause", "swarm-3")
    await cli("node", "update", "--label-rm", "a", "swarm-3")
    (node,) = json.loads(await cli("node", "inspect", "swarm-3"))
    assert node["Spec"] == {"Labels": {"b": ""}, "Role": "worker", "Availability": "pause"}
    assert "doesn't exist in node's labels" in await cli.fails("node", "update", "--label-rm", "none", "swarm-3")
    assert await cli.fails("node", "update", "--availability", "gone", "swarm-3")
    assert await cli.fails("node", "update", "--role", "boss", "swarm-3")
    old = node["Version"]["Index"]
    await cli("node", "update", "--label-add", "c=3", "swarm-3")
    status, words = await api.fails("POST", f"/nodes/{THREE}/update?version={old}", node["Spec"])
    assert (status, words) == (500, "rpc error: code = Unknown desc = update out of sequence")


@pytest.mark.row("ND-04")
async def test_nd_04_promote_and_demote(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    async def managers() -> Any:
        found = {name for name, status in (await shown(cli, ".ManagerStatus")).items() if status}
        return found if {n.spec.role == n.role for n in api.stored(Node)} == {True} else None

    assert await cli("node", "promote", "swarm-3") == "Node swarm-3 promoted to a manager in the swarm."
    assert await eventually(managers) == {"swarm-1", "swarm-2", "swarm-3"}
    assert await cli("node", "promote", "swarm-3") == f"Node {THREE} is already a manager."
    assert "swarm-2 demoted in the swarm" in await cli("node", "demote", "swarm-2", "swarm-3")
    assert await eventually(managers) == {"swarm-1"}
    assert await cli("node", "demote", "swarm-3") == f"Node {THREE} is already a worker."
    assert "attempting to demote the last manager of the swarm" in await cli.fails("node", "demote", "swarm-1")


@pytest.mark.row("ND-05")
async def test_nd_05_remove(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    async def down() -> bool:
        return (await shown(cli, ".Status"))["swarm-3"] == "Down"

    await cli("service", "create", "-d", *QUICK, "--name", "web", "--replicas", "3", "nginx:1")
    await settled(eventually, api, "web", "swarm-1", "swarm-2", "swarm-3")
    assert "is a cluster manager and is a member of the raft cluster" in await cli.fails("node", "rm", "-f", "swarm-2")
    assert "is not down and can't be removed" in await cli.fails("node", "rm", "swarm-3")
    live.power_cut("swarm-3")
    await eventually(down)
    assert await cli("node", "rm", "swarm-3") == "swarm-3"
    assert "swarm-3" in await cli.fails("node", "inspect", "swarm-3")
    look = where(api, "web")

    async def three_elsewhere() -> bool:
        found = await look()
        return len(found) == 3 and set(found) == {"swarm-1", "swarm-2"}

    await eventually(three_elsewhere)


@pytest.mark.row("ND-05")
async def test_nd_05_remove_one_that_is_up_by_force(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    """Its containers end, and it is not let in again: what its certificate is worth is in tests/control."""
    await cli("service", "create", "-d", *QUICK, "--name", "all", "--mode", "global", "nginx:1")
    await settled(eventually, api, "all", "swarm-1", "swarm-2", "swarm-3")
    assert await cli("node", "rm", "--force", "swarm-3") == "swarm-3"

    async def ended() -> bool:
        return live.agents[THREE].engine.running() == []

    await eventually(ended)
    assert set(await shown(cli, ".Status")) == {"swarm-1", "swarm-2"}


@pytest.mark.row("ND-06")
async def test_nd_06_tasks_of_a_node(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    await cli("service", "create", "-d", *QUICK, "--name", "a", "--constraint", "node.hostname==swarm-3", "nginx:1")
    await cli("service", "create", "-d", *QUICK, "--name", "b", "--mode", "global", "nginx:1")
    await settled(eventually, api, "a", "swarm-3")
    await settled(eventually, api, "b", "swarm-1", "swarm-2", "swarm-3")
    names = (await cli("node", "ps", "--format", "{{.Name}}", "swarm-3")).split()
    assert sorted(name.split(".")[0] for name in names) == ["a", "b"]
    assert (await cli("node", "ps", "--format", "{{.Node}}", "self")).split() == ["swarm-1"]
    assert (await cli("node", "ps", "-f", "name=a", "--format", "{{.Name}}", "swarm-3")).split() == ["a.1"]
    assert (await cli("node", "ps", "-f", "desired-state=shutdown", "-q", "swarm-3")) == ""
    (task,) = (await cli("node", "ps", "-f", "name=a", "-q", "--no-trunc", "swarm-3")).split()
    assert (await cli("node", "ps", "-f", f"id={task}", "-q", "--no-trunc", "swarm-3")).split() == [task]


@pytest.mark.row("ND-07", "ND-12")
async def test_nd_12_a_silent_node_is_down(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    """The period between heartbeats is kept and shown, and the swarm is quicker than it."""
    await cli("service", "create", "-d", *QUICK, "--name", "web", "--replicas", "3", "nginx:1")
    await settled(eventually, api, "web", "swarm-1", "swarm-2", "swarm-3")
    assert set((await shown(cli, ".Status")).values()) == {"Ready"}
    live.power_cut("swarm-3")

    async def down() -> bool:
        return (await shown(cli, ".Status"))["swarm-3"] == "Down"

    await eventually(down, 5)
    seen = await api.ok("GET", "/nodes/swarm-3")
    assert seen["Status"]["State"] == "down"
    assert seen["Status"]["Message"] == "heartbeat failure"
    look = where(api, "web")

    async def replaced() -> bool:
        return len(await look()) == 3 and "swarm-3" not in await look()

    await eventually(replaced)
    live.boot("swarm-3")

    async def ready() -> bool:
        return (await shown(cli, ".Status"))["swarm-3"] == "Ready"

    await eventually(ready)


@pytest.mark.row("ND-07")
async def test_nd_07_every_state_as_it_is_shown(cli: Any, api: Any) -> None:
    for state in NodeState:
        node = next(n for n in api.stored(Node) if n.id == THREE)
        await api.write(replace(node, state=state, role=Role.MANAGER))
        assert (await shown(cli, ".Status"))["swarm-3"] == state.value.title()
        reach = {NodeState.READY: "Reachable", NodeState.UNKNOWN: "Unknown"}.get(state, "Unreachable")
        assert (await shown(cli, ".ManagerStatus"))["swarm-3"] == reach


@pytest.mark.row("ND-08", "ND-09", "ND-10")
async def test_nd_10_availability(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    await cli("service", "create", "-d", "--name", "web", "--replicas", "3", "--restart-delay", "1h", "nginx:1")
    await cli("service", "create", "-d", *QUICK, "--name", "all", "--mode", "global", "nginx:1")
    await settled(eventually, api, "web", "swarm-1", "swarm-2", "swarm-3")
    await settled(eventually, api, "all", "swarm-1", "swarm-2", "swarm-3")
    await cli("node", "update", "--availability", "pause", "swarm-3")
    await cli("service", "scale", "-d", "web=6")

    async def six() -> Any:
        found = await where(api, "web")()
        return found if len(found) == 6 else None

    assert (await eventually(six)).count("swarm-3") == 1  # what it has stays, and nothing new comes
    assert await where(api, "all")() == ["swarm-1", "swarm-2", "swarm-3"]
    await cli("node", "update", "--availability", "drain", "swarm-3")

    async def moved() -> bool:
        found = await where(api, "web")()
        return len(found) == 6 and "swarm-3" not in found

    await eventually(moved)  # at once, whatever the restart delay is
    await settled(eventually, api, "all", "swarm-1", "swarm-2")
    assert (await shown(cli, ".Availability"))["swarm-3"] == "Drain"
    await cli("node", "update", "--availability", "active", "swarm-3")
    await settled(eventually, api, "all", "swarm-1", "swarm-2", "swarm-3")
    assert "swarm-3" not in await where(api, "web")()  # nothing is moved back
    await cli("service", "scale", "-d", "web=7")

    async def placed() -> bool:
        return (await where(api, "web")()).count("swarm-3") == 1

    await eventually(placed)


@pytest.mark.row("ND-11")
async def test_nd_11_constraints_go_on_to_hold(cli: Any, api: Any, live: Any, eventually: Any) -> None:
    for node in ("swarm-2", "swarm-3"):
        await cli("node", "update", "--label-add", "zone=a", node)
    flags = ("--replicas", "2", "--constraint", "node.labels.zone==a", "--constraint", "node.role==worker")
    await cli("service", "create", "-d", *QUICK, "--name", "web", *flags[:4], "nginx:1")
    await cli("service", "create", "-d", *QUICK, "--name", "work", *flags[4:], "nginx:1")
    await settled(eventually, api, "web", "swarm-2", "swarm-3")
    await settled(eventually, api, "work", "swarm-3")
    await cli("node", "update", "--label-rm", "zone", "swarm-2")
    await settled(eventually, api, "web", "swarm-3", "swarm-3")
    said = await cli("service", "ps", "--no-trunc", "--format", "{{.Node}} {{.Error}}", "web")
    assert '"assigned node no longer meets constraints"' in said
    await cli("node", "update", "--availability", "pause", "--label-rm", "zone", "swarm-3")
    assert await where(api, "web")() == ["swarm-3", "swarm-3"]  # a paused node is left alone
    await cli("node", "update", "--availability", "active", "swarm-3")
    await settled(eventually, api, "web")
    said = await cli("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "web")
    assert "no suitable node" in said
    await cli("node", "promote", "swarm-3")
    await settled(eventually, api, "work")
