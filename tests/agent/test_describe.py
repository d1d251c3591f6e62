"""A node's description from its engine, and engines that cannot be used."""

from __future__ import annotations

import asyncio

import pytest

from afterswarm.agent.describe import LOOK, EngineUnfit, check, describe, description, follow
from afterswarm.model.node import Plugin
from afterswarm.model.service import GenericResource
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.engine import SimEngine

INFO = {
    "Name": "swarm-1",
    "ServerVersion": "20.10.24+dfsg1",
    "OSType": "linux",
    "Architecture": "x86_64",
    "NCPU": 2,
    "MemTotal": 1 << 33,
    "Labels": ["disk=ssd", "rack"],
    "Plugins": {"Volume": ["local"], "Network": ["host", "bridge"], "Authorization": None},
    "GenericResources": [
        {"NamedResourceSpec": {"Kind": "gpu", "Value": "0"}},
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}},
    ],
    "Swarm": {"LocalNodeState": "inactive"},
}


def test_an_engine_describes_its_node():
    found = description(INFO)
    assert found.hostname == "swarm-1"
    assert (found.platform.architecture, found.platform.os) == ("x86_64", "linux")
    assert (found.resources.nano_cpus, found.resources.memory_bytes) == (2_000_000_000, 1 << 33)
    assert found.resources.generic_resources == [
        GenericResource(named_resource_spec={"Kind": "gpu", "Value": "0"}),
        GenericResource(discrete_resource_spec={"Kind": "ssd", "Value": 2}),
    ]
    assert found.engine.engine_version == "20.10.24+dfsg1"
    assert found.engine.labels == {"disk": "ssd", "rack": ""}
    assert found.engine.plugins == [
        Plugin(type="Network", name="bridge"),
        Plugin(type="Network", name="host"),
        Plugin(type="Volume", name="local"),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ServerVersion": "19.03.15"}, "19.03.15.*20.10.*upgrade"),
        ({"Swarm": {"LocalNodeState": "active"}}, "itself in swarm mode.*swarm leave --force"),
        ({"Swarm": {"LocalNodeState": "locked"}}, "itself in swarm mode"),
        ({"OSType": "windows"}, "Linux is needed"),
    ],
)
def test_an_unfit_engine_is_told_apart_with_the_way_out(change, words):
    check(INFO)
    with pytest.raises(EngineUnfit, match=words):
        check(INFO | change)


@pytest.mark.parametrize("version", ["20.10.0", "28.2.2", "29.0.0", "dev"])
def test_later_engines_are_fit(version):
    check(INFO | {"ServerVersion": version})


@pytest.mark.looptime
async def test_what_changes_is_said_and_what_does_not_is_not():
    plain = description(INFO | {"GenericResources": []})
    looks = [plain, EngineUnfit("it restarts"), description(INFO), description(INFO)]
    said = []

    async def look():
        found = looks.pop(0)
        if isinstance(found, EngineUnfit):
            raise found
        return found

    following = asyncio.create_task(follow(plain, look, said.append, LoopClock()))
    await asyncio.sleep(4.5 * LOOK)
    following.cancel()
    assert said == [description(INFO)]
    assert not looks


async def test_a_missing_engine_is_told_with_the_way_out():
    engine = SimEngine()
    assert (await describe(engine)).hostname == "sim"
    engine.disconnect()
    with pytest.raises(EngineUnfit, match=r"no Docker Engine answers.*--engine"):
        await describe(engine)
