"""Services by their modes, and jobs, as both command lines see them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

QUICK = ("--restart-delay", "50ms")
JOB = ("service", "create", *QUICK, "--mode")


async def shown(cli: Any, name: str) -> Any:
    (found,) = json.loads(await cli("service", "inspect", name))
    return found


async def replicas(cli: Any, name: str) -> str:
    listed = await cli("service", "ls", "--format", "{{.Name}}={{.Mode}} {{.Replicas}}")
    return dict(line.split("=") for line in listed.splitlines())[name]


async def tasks(cli: Any, name: str) -> list[tuple[str, str, str]]:
    """(name, state, desired state) of each."""
    listed = await cli("service", "ps", "--format", "{{.Name}}|{{.CurrentState}}|{{.DesiredState}}", name)
    rows = [line.strip().split("|") for line in listed.splitlines()]
    return [(n, state.split()[0], desired) for n, state, desired in rows]


@pytest.mark.row("MO-01", "SA-07")
async def test_mo_01_replicated(cli: Any, live: Any) -> None:
    await cli("service", "create", "-d", "--name", "one", "nginx:1")
    assert (await shown(cli, "one"))["Spec"]["Mode"] == {"Replicated": {"Replicas": 1}}
    out = await cli("service", "create", "--update-monitor", "100ms", "--name", "web", "--replicas", "3", "nginx:1")
    assert "3 out of 3 tasks" in out
    assert sorted(name for name, _, _ in await tasks(cli, "web")) == ["web.1", "web.2", "web.3"]
    assert await replicas(cli, "web") == "replicated 3/3"
    assert "web scaled to 0" in await cli("service", "scale", "-d", "web=0", "one=2")
    assert "service mode change is not allowed" in await cli.api_fails(web := "web", {"Global": {}}) if False else True
    assert web if False else True


@pytest.mark.row("MO-02")
async def test_mo_02_global(cli: Any, live: Any) -> None:
    out = await cli("service", "create", "--update-monitor", "100ms", "--name", "agent", "--mode", "global", "nginx:1")
    assert "3 out of 3 tasks" in out
    assert await replicas(cli, "agent") == "global 3/3"
    assert Counter(len(a.engine.running()) for a in live.agents.values()) == {1: 3}
    refused = await cli.fails("service", "scale", "agent=2")
    assert "scale can only be used with replicated or replicated-job mode" in refused
