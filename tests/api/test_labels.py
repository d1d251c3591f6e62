"""Options as labels, through the API: refused whole, allowed by the swarm, and a change of one is a change of tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from afterswarm.cli.main import main
from afterswarm.http.server import serve_unix
from afterswarm.model.service import Service

PRIVILEGED = {"afterswarm.privileged": "true"}


def spec(labels: dict[str, str]) -> dict[str, Any]:
    return {"Name": "web", "Labels": labels, "TaskTemplate": {"ContainerSpec": {"Image": "web"}}}


async def test_a_bad_value_leaves_nothing_behind(api: Any) -> None:
    status, words = await api.fails("POST", "/services/create", spec({"afterswarm.shm-size": "much"}))
    assert (status, words) == (400, "invalid label afterswarm.shm-size=much: expected a size such as 64m")
    assert api.stored(Service) == []


async def test_the_policy_of_the_swarm_is_asked_and_changed_on_the_command_line(
    api: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def policy(*words: str) -> list[str]:
        code = await asyncio.to_thread(main, ["policy", "--listen", str(tmp_path / "docker.sock"), *words])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out.split()

    async with serve_unix(tmp_path / "docker.sock", api.app):
        assert await policy() == []
        status, words = await api.fails("POST", "/services/create", spec(PRIVILEGED))
        assert status == 403
        assert "this swarm does not allow privileged; `afterswarm policy allow privileged` on a manager" in words
        assert await policy("allow", "privileged", "devices") == ["devices", "privileged"]
        await api.ok("POST", "/services/create", spec(PRIVILEGED))
        assert await policy("forbid", "privileged") == ["devices"]
        (service,) = api.stored(Service)
        changed = spec(PRIVILEGED | {"more": "labels"})
        assert (await api.fails("POST", f"/services/web/update?version={service.rev}", changed))[0] == 403


async def test_only_labels_of_options_make_tasks_new(api: Any) -> None:
    await api.ok("POST", "/services/create", spec({}))
    versions = []
    for labels in ({"color": "red"}, {"color": "red", "afterswarm.shm-size": "1m"}, {"afterswarm.shm-size": "1m"}):
        (service,) = api.stored(Service)
        await api.ok("POST", f"/services/web/update?version={service.rev}", spec(labels))
        versions.append(api.stored(Service)[0].spec_version)
    assert versions[0] == 0 < versions[1] == versions[2]


async def test_no_daemon_to_ask_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = await asyncio.to_thread(main, ["policy", "--listen", str(tmp_path / "none.sock")])
    assert code == 1
    assert "none.sock" in capsys.readouterr().err
