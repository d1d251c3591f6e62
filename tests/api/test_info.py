"""The swarm's block in `/info`."""

from __future__ import annotations

from typing import Any

from afterswarm.api.host import LocalInfo


async def test_a_manager(api: Any, host: Any) -> None:
    host.state = LocalInfo(
        state="active",
        node_addr="10.77.0.1",
        control_available=True,
        remote_managers=[("one", "10.77.0.1:2377"), ("two", "10.77.0.2:2377")],
    )
    info = await api.ok("GET", "/v1.41/info")
    assert info["ServerVersion"] == "20.10.24"
    swarm = info["Swarm"]
    assert swarm["NodeID"] == host.node_id
    assert (swarm["NodeAddr"], swarm["LocalNodeState"], swarm["ControlAvailable"]) == ("10.77.0.1", "active", True)
    assert (swarm["Nodes"], swarm["Managers"], swarm["Error"]) == (3, 2, "")
    assert swarm["RemoteManagers"][1] == {"NodeID": "two", "Addr": "10.77.0.2:2377"}
    cluster = swarm["Cluster"]
    assert cluster["ID"] == "cluster00000000000000000x"
    assert cluster["DataPathPort"] == 4789
    assert cluster["DefaultAddrPool"] == ["10.0.0.0/8"]
    assert cluster["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 5}
    assert "JoinTokens" not in cluster


async def test_a_worker_and_nobody(api: Any, host: Any) -> None:
    host.become(LocalInfo(state="active", node_addr="10.77.0.3", remote_managers=[("one", "10.77.0.1:2377")]), "three")
    swarm = (await api.ok("GET", "/info"))["Swarm"]
    assert (swarm["NodeID"], swarm["ControlAvailable"]) == ("three", False)
    assert "Cluster" not in swarm
    host.become(LocalInfo(state="error", error="certificate expired"))
    swarm = (await api.ok("GET", "/info"))["Swarm"]
    assert (swarm["LocalNodeState"], swarm["Error"], swarm["RemoteManagers"]) == ("error", "certificate expired", None)
