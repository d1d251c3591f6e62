"""Where tasks are put, and what those say that find no place, as both command lines see it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afterswarm.model.node import Engine, Plugin
from afterswarm.sim.container import Program

CREATE = ("service", "create", "-d", "--no-resolve-image", "--restart-delay", "50ms")
HOSTS = ("swarm-1", "swarm-2", "swarm-3")


def with_plugins(*more: tuple[str, str]) -> Engine:
    usual = [("Volume", "local"), ("Network", "bridge"), ("Log", "json-file")]
    return Engine(engine_version="20.10.24", plugins=[Plugin(type=kind, name=name) for kind, name in (*usual, *more)])


@pytest.mark.row("PL-01", "ND-03")
async def test_pl_01_constraints(cli: Any, live: Any, seen: Any) -> None:
    await cli("node", "update", "--label-add", "Zone=East", "swarm-2")
    ids = dict(line.split() for line in (await cli("node", "ls", "--format", "{{.Hostname}} {{.ID}}")).splitlines())
    places = {
        "node.hostname==SWARM-2": "swarm-2",
        "node.role != manager": "swarm-3",
        f"NODE.ID=={ids['swarm-1']}": "swarm-1",
        "node.labels.Zone == east": "swarm-2",
        "engine.labels.disk==ssd": "swarm-1",
        "node.ip==10.77.0.3": "swarm-3",
        "node.ip==10.77.0.2/31": "swarm-2 swarm-3",
        "node.platform.os!=linux": "",
        "node.platform.arch==x86_64": "swarm-1 swarm-2 swarm-3",
        "node.labels.zone==east": "",  # names of labels mind their case
    }
    for n, constraint in enumerate(places):
        await cli(*CREATE, "--name", f"s{n}", "--mode", "global", "--constraint", constraint, "nginx:1")
    for n, hosts in enumerate(places.values()):
        await seen.runs_on(f"s{n}", **dict.fromkeys(hosts.split(), 1))
    both = ("--constraint", "node.role==manager", "--constraint", "node.hostname!=swarm-1")
    await cli(*CREATE, "--name", "web", "--replicas", "2", *both, "nginx:1")
    await seen.runs_on("web", swarm_2=2)
    change = ("--constraint-rm", "node.role==manager", "--constraint-add", "node.hostname!=swarm-2")
    await cli("service", "update", "-d", "--no-resolve-image", *change, "web")
    await seen.runs_on("web", swarm_3=2)
    for bad in ("node.role=manager", "node.role==", "==x"):
        assert "InvalidArgument" in await cli.fails(*CREATE, "--constraint", bad, "nginx:1")
    await cli(*CREATE, "--name", "nowhere", "--constraint", "node.hostname==elsewhere", "nginx:1")
    await seen.waits("nowhere", "scheduling constraints not satisfied on 3 nodes")


@pytest.mark.row("PL-02")
async def test_pl_02_preferences(cli: Any, live: Any, seen: Any) -> None:
    for host, zone in (("swarm-1", "a"), ("swarm-2", "a")):  # swarm-3 is in none: a zone of its own
        await cli("node", "update", "--label-add", f"zone={zone}", host)
    spread = ("--placement-pref", "spread=node.labels.zone", "--placement-pref", "spread=node.labels.rack")
    await cli(*CREATE, "--name", "web", "--replicas", "4", *spread, "nginx:1")
    await seen.runs_on("web", swarm_1=1, swarm_2=1, swarm_3=2)
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    preferences = shown["Spec"]["TaskTemplate"]["Placement"]["Preferences"]
    assert [p["Spread"]["SpreadDescriptor"] for p in preferences] == ["node.labels.zone", "node.labels.rack"]
    change = ("--placement-pref-rm", "spread=node.labels.zone", "--placement-pref-add", "spread=engine.labels.disk")
    await cli("service", "update", "-d", "--no-resolve-image", "--update-parallelism", "0", *change, "web")
    await seen.runs_on("web", swarm_1=2, swarm_2=1, swarm_3=1)  # one branch has the label, the other has it not


@pytest.mark.row("PL-03", "PL-09")
async def test_pl_03_max_replicas_per_node(cli: Any, live: Any, seen: Any) -> None:
    await cli(*CREATE, "--name", "web", "--replicas", "4", "--replicas-max-per-node", "1", "nginx:1")
    await seen.waits("web", "max replicas per node limit exceed")
    assert "3/4 (max 1 per node)" in await cli("service", "ls")
    await cli("service", "update", "-d", "--no-resolve-image", "--replicas-max-per-node", "2", "web")
    await seen.eventually(lambda: _lists(cli, "4/4 (max 2 per node)"))


async def _lists(cli: Any, words: str) -> bool:
    return words in await cli("service", "ls")


@pytest.mark.row("PL-04", "SV-05")
async def test_pl_04_platforms(cli: Any, live: Any, seen: Any, api: Any) -> None:
    await cli("service", "create", "-d", "--name", "web", "nginx:1")  # the command line asks for the image's platforms
    await seen.eventually(lambda: _lists(cli, "1/1"))
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    platforms = shown["Spec"]["TaskTemplate"]["Placement"]["Platforms"]
    assert platforms == [{"Architecture": "amd64", "OS": "linux"}]
    template = {"ContainerSpec": {"Image": "nginx:1"}, "Placement": {"Platforms": [{"Architecture": "s390x"}]}}
    await api.ok("POST", "/services/create", {"Name": "mainframe", "TaskTemplate": template})
    await seen.waits("mainframe", "unsupported platform on 3 nodes")


@pytest.mark.row("PL-05", "RS-02", "PL-09")
async def test_pl_05_reservations(cli: Any, live: Any, seen: Any) -> None:
    await cli(*CREATE, "--name", "web", "--replicas", "4", "--reserve-cpu", "1.5", "--reserve-memory", "1G", "nginx:1")
    await seen.waits("web", "insufficient resources on 3 nodes")
    assert "3/4" in await cli("service", "ls")
    await cli(*CREATE, "--name", "big", "--reserve-memory", "5G", "nginx:1")
    await seen.waits("big", "insufficient resources on 3 nodes")
    await cli("service", "update", "-d", "--no-resolve-image", "--reserve-cpu", "0.5", "web")
    await seen.eventually(lambda: _lists(cli, "4/4"))
    await cli("service", "update", "-d", "--no-resolve-image", "--reserve-memory", "3G", "big")
    await seen.eventually(lambda: _lists(cli, "1/1"))


@pytest.mark.row("PL-06", "NW-12")
async def test_pl_06_host_ports(cli: Any, live: Any, seen: Any) -> None:
    publish = ("--publish", "mode=host,published=8080,target=80")
    await cli(*CREATE, "--name", "web", "--replicas", "4", *publish, "nginx:1")
    await seen.waits("web", "host-mode port already in use on 3 nodes")
    assert "3/4" in await cli("service", "ls")
    await cli("service", "scale", "-d", "web=3")
    await seen.runs_on("web", swarm_1=1, swarm_2=1, swarm_3=1)


@pytest.mark.row("PL-07")
async def test_pl_07_plugins(cli: Any, live: Any, seen: Any, api: Any) -> None:
    for host in ("swarm-1", "swarm-2"):
        await seen.says(api, host, engine=with_plugins())
    await seen.says(api, "swarm-3", engine=with_plugins(("Volume", "rexray:latest"), ("Log", "gelf")))
    volume = ("--mount", "type=volume,src=data,dst=/data,volume-driver=rexray")
    await cli(*CREATE, "--name", "db", *volume, "nginx:1")
    await cli(*CREATE, "--name", "chatty", "--log-driver", "gelf", "nginx:1")
    await cli(*CREATE, "--name", "lost", "--log-driver", "splunk", "nginx:1")
    await seen.runs_on("db", swarm_3=1)
    await seen.runs_on("chatty", swarm_3=1)
    await seen.waits("lost", "missing plugin on 3 nodes")


@pytest.mark.row(
    "PL-08", differs="there are no cluster volumes (CSI): a task that mounts one waits for ever, and says why"
)
async def test_pl_08_cluster_volumes(cli: Any, live: Any, seen: Any, api: Any) -> None:
    mount = {"Type": "cluster", "Source": "group:fast", "Target": "/data"}
    template = {"ContainerSpec": {"Image": "nginx:1", "Mounts": [mount]}}
    await api.ok("POST", "/services/create", {"Name": "db", "TaskTemplate": template})
    await seen.waits("db", "no CSI plugin for cluster volumes on 3 nodes")
    (shown,) = json.loads(await cli("service", "inspect", "db"))
    assert shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"] == [mount]


@pytest.mark.row("PL-09")
async def test_pl_09_all_reasons_in_one_sentence(cli: Any, live: Any, seen: Any) -> None:
    await cli("node", "update", "--availability", "pause", "swarm-1")
    await cli(*CREATE, "--name", "web", "--constraint", "node.role==worker", "--reserve-cpu", "3", "nginx:1")
    await seen.waits("web", "insufficient resources on 2 nodes; 1 node not available for new tasks")
    out = await cli("service", "ps", "--format", "{{.Node}}|{{.CurrentState}}", "web")
    assert out.startswith("|Pending")
    await cli("node", "update", "--availability", "active", "swarm-1")
    await seen.waits("web", "insufficient resources on 3 nodes")


@pytest.mark.row("PL-10")
async def test_pl_10_fewest_copies_then_fewest_tasks(cli: Any, live: Any, seen: Any) -> None:
    await cli(*CREATE, "--name", "heavy", "--constraint", "node.hostname==swarm-1", "--replicas", "2", "nginx:1")
    await seen.runs_on("heavy", swarm_1=2)
    await cli(*CREATE, "--name", "web", "--replicas", "2", "nginx:1")
    await seen.runs_on("web", swarm_2=1, swarm_3=1)
    await cli("service", "scale", "-d", "web=6")
    await seen.runs_on("web", swarm_1=2, swarm_2=2, swarm_3=2)  # copies come first, whatever else is there


@pytest.mark.row("PL-11")
async def test_pl_11_a_node_where_it_keeps_failing_is_the_last_choice(cli: Any, live: Any, seen: Any) -> None:
    class Broken(dict[str, Program]):
        def get(self, image: str, _default: object = None) -> Program:
            return Program(exits_after=0.05, exit_code=1) if image.startswith("flaky") else Program()

    live.agent("swarm-3").engine.programs = Broken()
    create = ("service", "create", "-d", "--no-resolve-image", "--restart-delay", "0s")
    await cli(*create, "--name", "web", "--replicas", "6", "flaky:1")
    await seen.runs_on("web", swarm_1=3, swarm_2=3)
    await cli(*create, "--name", "other", "--replicas", "3", "nginx:1")
    await seen.runs_on("other", swarm_1=1, swarm_2=1, swarm_3=1)


@pytest.mark.row("PL-13", "ND-10")
async def test_pl_13_a_task_never_moves(cli: Any, live: Any, seen: Any) -> None:
    await cli(*CREATE, "--name", "web", "--constraint", "node.role==manager", "nginx:1")
    await seen.runs_on("web", swarm_1=1)
    ((before,),) = await seen.ps("web", "ID")
    await cli("node", "update", "--availability", "drain", "swarm-1")
    await seen.runs_on("web", swarm_2=1)
    ((after,),) = await seen.ps("web", "ID")
    assert after != before
    await cli("node", "update", "--availability", "active", "swarm-1")
    (shown,) = json.loads(await cli("inspect", "--type", "task", before))
    assert (shown["DesiredState"], shown["Slot"]) == ("shutdown", 1)
    node_id = await cli("node", "inspect", "-f", "{{.ID}}", "swarm-1")
    assert shown["NodeID"] == node_id
    assert await seen.ps("web", "ID", "Node") == [[after, "swarm-2"]]


@pytest.mark.row("MO-07")
async def test_mo_07_which_tasks_go_when_there_are_to_be_fewer(cli: Any, live: Any, seen: Any) -> None:
    place = ("--constraint", "node.hostname!=swarm-3", "--reserve-cpu", "0.5")
    await cli(*CREATE, "--name", "web", "--replicas", "9", *place, "nginx:1")
    await seen.waits("web", "insufficient resources on 2 nodes; scheduling constraints not satisfied on 1 node")
    await cli("service", "scale", "-d", "web=8")  # the one that waits goes
    await seen.runs_on("web", swarm_1=4, swarm_2=4)
    await cli("service", "scale", "-d", "web=4")
    await seen.runs_on("web", swarm_1=2, swarm_2=2)
    await cli(*CREATE, "--name", "lopsided", "--replicas", "2", "--constraint", "node.hostname==swarm-3", "nginx:1")
    await seen.runs_on("lopsided", swarm_3=2)
    change = ("--constraint-rm", "node.hostname==swarm-3", "--replicas", "4")
    await cli("service", "update", "-d", "--no-resolve-image", *change, "lopsided")
    await seen.runs_on("lopsided", swarm_1=1, swarm_2=1, swarm_3=2)
    await cli("service", "scale", "-d", "lopsided=3")
    await seen.runs_on("lopsided", swarm_1=1, swarm_2=1, swarm_3=1)
