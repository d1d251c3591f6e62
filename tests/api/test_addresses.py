"""Floating addresses on the command line, and what the swarm refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from afterswarm.cli.main import main
from afterswarm.core.floating import place
from afterswarm.http.server import serve_unix
from afterswarm.model.cluster import Cluster
from afterswarm.model.floating import LABEL

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def address(api: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Command]:
    """`afterswarm address …`: its exit code and what it says."""

    async def run(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["address", "--listen", str(tmp_path / "docker.sock"), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    async with serve_unix(tmp_path / "docker.sock", api.app):
        yield run


def named(api: Any) -> str:
    [cluster] = api.stored(Cluster)
    return str(cluster.spec.labels.get(LABEL, ""))


async def test_addresses_are_added_changed_and_removed(api: Any, address: Command) -> None:
    assert await address("add", "192.0.2.9/24") == (0, "")
    assert await address("add", "fd00::9/64", "--interface", "eth1") == (0, "")
    assert named(api) == "192.0.2.9/24,fd00::9/64@eth1"
    assert await address("add", "192.0.2.9/25") == (0, "")
    assert named(api) == "fd00::9/64@eth1,192.0.2.9/25"
    assert await address("rm", "fd00::9/64") == (0, "")
    assert await address("rm", "192.0.2.9") == (0, "")
    assert named(api) == ""
    code, said = await address("rm", "192.0.2.9")
    assert (code, said) == (1, "afterswarm address: no floating address 192.0.2.9 in this swarm\n")


async def test_what_cannot_float_is_refused_and_nothing_changes(api: Any, address: Command) -> None:
    code, said = await address("add", "192.0.2.9")
    assert code == 1
    assert "with the prefix of the subnet, as 192.0.2.9/24" in said
    [cluster] = api.stored(Cluster)
    taken = next(iter(place.taken(api.host.cache.snapshot())))
    code, said = await address("add", f"{taken}/24")
    assert code == 1
    assert f"floating address {taken} is the address of node" in said
    body = {"Labels": {LABEL: "here/24"}}
    status, words = await api.fails("POST", f"/swarm/update?version={cluster.rev}", body)
    assert status == 400
    assert words.startswith("invalid floating address 'here/24'")
    assert named(api) == ""


async def test_who_holds_one_is_listed(address: Command) -> None:
    code, said = await address("ls")
    assert code == 0
    assert [line.split() for line in said.splitlines()] == [["ADDRESS", "HOLDER", "HERE"], ["192.0.2.9", "one", "held"]]
