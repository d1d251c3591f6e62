"""Rows CV: cluster volumes are kept and shown as Docker does. Nobody makes them: there are no CSI plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NO_PLUGINS = "kept, shown, changed and removed; no plugin makes it, and a task that mounts it waits and says so"
FLAGS = (
    "-d", "csi", "--group", "fast", "--scope", "multi", "--sharing", "all", "--type", "mount", "--opt", "a=b",
    "--required-bytes", "1g", "--limit-bytes", "2g", "--topology-required", "region=R1,zone=Z1",
    "--topology-preferred", "region=R1", "--availability", "active", "--label", "l=1",
)  # fmt: skip


@pytest.mark.row("CV-01", client="docker 28.2", differs=NO_PLUGINS)
async def test_cv_01_create(newest: Any, api: Any) -> None:
    key = (await newest("secret", "create", "word", "-", stdin="sesame")).strip()
    assert await newest("volume", "create", *FLAGS, "--secret", f"login={key}", "shared") == "shared"
    (shown,) = json.loads(await newest("volume", "inspect", "shared"))
    assert (shown["Name"], shown["Driver"], shown["Options"], shown["Labels"], shown["Scope"]) == (
        "shared", "csi", {"a": "b"}, {"l": "1"}, "global",
    )  # fmt: skip
    spec = shown["ClusterVolume"]["Spec"]
    assert spec["AccessMode"] == {"Scope": "multi", "Sharing": "all", "MountVolume": {}}
    assert spec["CapacityRange"] == {"RequiredBytes": 1 << 30, "LimitBytes": 2 << 30}
    assert spec["AccessibilityRequirements"] == {
        "Requisite": [{"Segments": {"region": "R1", "zone": "Z1"}}],
        "Preferred": [{"Segments": {"region": "R1"}}],
    }
    assert spec["Secrets"] == [{"Key": "login", "Secret": key}]
    assert (spec["Group"], spec["Availability"]) == ("fast", "active")
    assert "already exists" in await newest.fails("volume", "create", *FLAGS, "shared")
    assert "secret not found: none" in await newest.fails("volume", "create", *FLAGS, "--secret", "a=none", "other")
    bare = {"Name": "x", "Driver": "csi", "ClusterVolumeSpec": {"Group": "g"}}
    assert (await api.fails("POST", "/v1.50/volumes/create", bare))[0] == 400
    assert [v["Name"] for v in (await api.ok("GET", "/v1.50/volumes"))["Volumes"]] == ["shared"]
    assert (await api.ok("GET", "/v1.41/volumes"))["Volumes"] == [], "older clients do not know of them"


@pytest.mark.row("CV-02", client="docker 28.2", differs=NO_PLUGINS)
async def test_cv_02_update_list_remove_mount(newest: Any) -> None:
    await newest("volume", "create", *FLAGS, "shared")
    row = (await newest("volume", "ls", "--cluster")).splitlines()[1].split()
    assert row == ["shared", "fast", "csi", "active", "pending", "creation"]
    await newest("volume", "update", "--availability", "drain", "shared")
    (shown,) = json.loads(await newest("volume", "inspect", "shared"))
    assert shown["ClusterVolume"]["Spec"]["Availability"] == "drain"
    mount = ("--mount", "type=cluster,src=group:fast,dst=/data")
    await newest("service", "create", "-d", "-q", "--no-resolve-image", "--name", "web", *mount, "nginx:1")
    (service,) = json.loads(await newest("service", "inspect", "web"))
    (kept,) = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert (kept["Type"], kept["Source"], kept["Target"]) == ("cluster", "group:fast", "/data")
    assert await newest("volume", "rm", "shared") == "shared"
    assert "shared" not in await newest("volume", "ls", "--cluster")


@pytest.mark.row("CV-02", client="the API", differs=NO_PLUGINS)
async def test_cv_02_a_task_with_a_cluster_volume_says_why_it_waits(api: Any, live: Any, eventually: Any) -> None:
    mounts = [{"Type": "cluster", "Source": "group:fast", "Target": "/data"}]
    spec = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", "Mounts": mounts}}}
    await api.ok("POST", "/services/create", spec)

    async def said() -> bool:
        words = "no suitable node (no CSI plugin for cluster volumes on 3 nodes)"
        return words in [t["Status"].get("Err") for t in await api.ok("GET", "/tasks")]

    await eventually(said)


@pytest.mark.row("CV-03", client="docker 28.2", differs=NO_PLUGINS)
async def test_cv_03_in_compose_files(newest: Any, tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("""
version: "3.8"
services:
  web:
    image: nginx:1
    volumes: [{type: cluster, source: data, target: /data}]
volumes:
  data:
    name: group:fast
    driver: csi
    x-cluster-spec: {group: fast, access_mode: {scope: multi, sharing: all, mount_volume: {}}}
""")
    await newest("stack", "deploy", "--resolve-image", "never", "-c", str(tmp_path / "stack.yml"), "st")
    (service,) = json.loads(await newest("service", "inspect", "st_web"))
    (kept,) = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert (kept["Type"], kept["Target"]) == ("cluster", "/data")


@pytest.mark.row("CV-04", client="the API", differs="the engine of a node loads no CSI plugins, so that none is shown")
async def test_cv_04_no_node_has_a_plugin(api: Any) -> None:
    nodes = await api.ok("GET", "/nodes")
    kinds = {p["Type"] for n in nodes for p in n["Description"]["Engine"].get("Plugins") or []}
    assert not any("csi" in kind for kind in kinds)
