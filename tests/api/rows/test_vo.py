"""Rows VO: mounts, said by real command lines, kept, shown, and refused in Docker's words. CV: cluster volumes."""

from __future__ import annotations

import json
from typing import Any

import pytest


async def mounts_of(cli: Any) -> list[dict[str, Any]]:
    shown = json.loads(await cli("service", "inspect", "web"))[0]["Spec"]["TaskTemplate"]["ContainerSpec"]
    found: list[dict[str, Any]] = sorted((_given(m) for m in shown["Mounts"]), key=lambda m: str(m["Target"]))
    return found


def _given(value: Any) -> Any:
    """Without what was left open: command lines differ in how they say nothing."""
    if isinstance(value, dict):
        return {k: inner for k, v in value.items() if (inner := _given(v)) not in ("", None, False, {}, [], 0)}
    return value


async def create(cli: Any, *mounts: str) -> None:
    flags = [word for mount in mounts for word in ("--mount", mount)]
    await cli("service", "create", "-d", "-q", "--no-resolve-image", "--name", "web", *flags, "nginx:1")


async def refused(api: Any, **mount: Any) -> tuple[int, str]:
    spec = {"Name": "x", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", "Mounts": [mount]}}}
    status, words = await api.fails("POST", "/services/create", spec)
    return status, words.removeprefix("rpc error: code = InvalidArgument desc = ")


@pytest.mark.row("VO-01", "VO-02", "VO-03", "VO-04")
async def test_vo_01_to_04_mounts_come_and_go(cli: Any) -> None:
    await create(
        cli,
        "type=bind,src=/srv,dst=/a,readonly,bind-propagation=rslave",
        "type=volume,src=data,dst=/b,volume-driver=local,volume-opt=type=tmpfs,volume-label=k=v,volume-nocopy=true",
        "dst=/c",
        "type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1770",
    )
    options = {"DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}, "Labels": {"k": "v"}, "NoCopy": True}
    assert await mounts_of(cli) == [
        {"Type": "bind", "Source": "/srv", "Target": "/a", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
        {"Type": "volume", "Source": "data", "Target": "/b", "VolumeOptions": options},
        {"Type": "volume", "Target": "/c"},
        {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
    ]
    await cli(
        "service", "update", "-d", "-q", "--no-resolve-image", "--mount-rm", "/a", "--mount-rm", "/b",
        "--mount-add", "type=volume,src=e,dst=/e", "web",
    )  # fmt: skip
    assert [m["Target"] for m in await mounts_of(cli)] == ["/c", "/d", "/e"]


@pytest.mark.row("VO-02", "VO-03", "VO-04", client="docker 28.2")
async def test_vo_02_to_04_what_newer_command_lines_say_besides(newest: Any) -> None:
    await create(
        newest,
        "type=bind,src=/srv,dst=/a,bind-recursive=disabled",
        "type=bind,src=/srv,dst=/b,readonly,bind-recursive=readonly,bind-propagation=rprivate",
        "type=volume,src=data,dst=/c,volume-subpath=sub/dir",
        "type=image,src=busybox,dst=/d",
    )
    a, b, c, d = await mounts_of(newest)
    assert a["BindOptions"] == {"NonRecursive": True}
    assert b["BindOptions"] == {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}
    assert c["VolumeOptions"] == {"Subpath": "sub/dir"}
    assert (d["Type"], d["Source"]) == ("image", "busybox")


@pytest.mark.row("VO-04", client="the API")
async def test_vo_04_tmpfs_options(api: Any) -> None:
    options = {"Options": [["noexec"], ["uid", "1"]]}
    mount = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": options}
    spec = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", "Mounts": [mount]}}}
    await api.ok("POST", "/services/create", spec)
    shown = (await api.ok("GET", "/services/web"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"][0]
    assert shown["TmpfsOptions"] == options


@pytest.mark.row("VO-05")
async def test_vo_05_paths_are_checked(cli: Any, api: Any) -> None:
    for mount, words in (
        ("type=volume,src=a,dst=x", "invalid mount target, must be an absolute path: x"),
        ("type=volume,src=/a,dst=/x", "invalid volume mount source, must not be an absolute path: /a"),
    ):
        create_one = ("service", "create", "--no-resolve-image", "--mount", mount, "nginx:1")
        assert words in await cli.fails(*create_one)
    twice = ("--mount", "src=a,dst=/x", "--mount", "src=b,dst=/x")
    words = await cli.fails("service", "create", "--no-resolve-image", *twice, "nginx:1")
    assert "ContainerSpec: duplicate mount point: /x" in words
    assert await refused(api, Type="bind", Source="a", Target="/x") == (
        400, "invalid bind mount source, must be an absolute path: a",
    )  # fmt: skip
    assert await refused(api, Type="tmpfs", Source="a", Target="/x") == (
        400, "invalid tmpfs source, source must be empty",
    )  # fmt: skip
    assert await refused(api, Type="nfs", Target="/x") == (400, 'invalid MountType: "nfs"')
    assert await api.ok("GET", "/services") == []


@pytest.mark.row("VO-06")
async def test_vo_06_each_task_has_a_volume_of_its_own(cli: Any, live: Any) -> None:
    flags = ("--mount", "src=data-{{.Task.Slot}},dst=/data,volume-label=of={{.Service.Name}}", "--replicas", "3")
    await cli("service", "create", "-q", "--name", "web", *flags, "nginx:1")
    made = [c.body["HostConfig"]["Mounts"][0] for a in live.agents.values() for c in a.engine.made.values()]
    assert sorted(m["Source"] for m in made) == ["data-1", "data-2", "data-3"]
    assert all(m["VolumeOptions"]["Labels"] == {"of": "web"} for m in made)
    assert (await mounts_of(cli))[0]["Source"] == "data-{{.Task.Slot}}"
