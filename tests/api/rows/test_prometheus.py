"""The real Prometheus finds services, tasks and nodes through the API, with the labels that its manual names."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
scrape_configs:
"""
JOB = """
- job_name: {role}
  dockerswarm_sd_configs: [{{host: "unix://{sock}", role: {role}, port: 9100, refresh_interval: 1s}}]
  relabel_configs: [{{regex: x, source_labels: [__no_such__], action: keep}}]
"""  # nothing is fetched from the targets, which are not there: they are looked at as they were found


@pytest.fixture
async def targets(sock: Path, tmp_path: Path) -> AsyncIterator[Any]:
    """What Prometheus has found: role -> labels of each target."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus")
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG + "".join(JOB.format(role=role, sock=sock) for role in ("nodes", "services", "tasks")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = (f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}")
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, *words, stdout=log, stderr=log)

        def ask() -> list[dict[str, Any]]:
            try:
                with urllib.request.urlopen(f"http://{address}/api/v1/targets?state=dropped", timeout=5) as answer:
                    found: list[dict[str, Any]] = json.load(answer)["data"]["droppedTargets"]
            except OSError:
                return []
            return found

        async def look() -> dict[str, list[dict[str, str]]]:
            found: dict[str, list[dict[str, str]]] = {}
            for target in await asyncio.to_thread(ask):
                labels = target["discoveredLabels"]
                mine = {key.removeprefix("__meta_dockerswarm_"): value for key, value in labels.items()}
                found.setdefault(labels["job"], []).append(mine)
            return found

        try:
            yield look
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.row("CL-04", client="Prometheus")
async def test_cl_04_prometheus_finds_what_runs(live: Any, api: Any, targets: Any, eventually: Any) -> None:
    network = (await api.ok("POST", "/networks/create", {"Name": "back", "Driver": "overlay"}))["Id"]
    template = {
        "ContainerSpec": {"Image": "nginx:1", "Labels": {"tier": "front"}},
        "Networks": [{"Target": network}],
    }
    ports = {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}
    modes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("web", {"Replicated": {"Replicas": 2}}),
        ("agent", {"Global": {}}),
    )
    for name, mode in modes:
        body = {"Name": name, "Labels": {"team": "a"}, "TaskTemplate": template, "Mode": mode}
        await api.ok("POST", "/services/create", body | ({"EndpointSpec": ports} if name == "web" else {}))

    async def whole() -> Any:
        found = await targets()
        running = [t for t in found.get("tasks", ()) if t.get("task_state") == "running"]
        return found | {"tasks": running} if len({t["task_id"] for t in running}) == 5 else None

    found = await eventually(whole, within=40)
    assert sorted(n["node_hostname"] for n in found["nodes"]) == ["swarm-1", "swarm-2", "swarm-3"]
    node = next(n for n in found["nodes"] if n["node_hostname"] == "swarm-1")
    assert (node["__address__"], node["node_address"]) == ("10.77.0.1:9100", "10.77.0.1")
    assert (node["node_role"], node["node_availability"], node["node_status"]) == ("manager", "active", "ready")
    assert (node["node_manager_leader"], node["node_manager_reachability"]) == ("true", "reachable")
    assert (node["node_platform_os"], node["node_engine_version"]) == ("linux", "20.10.24")
    services = {s["service_name"]: s for s in found["services"] if s.get("network_name") == "back"}
    assert {name: s["service_mode"] for name, s in services.items()} == {"web": "replicated", "agent": "global"}
    assert services["web"]["service_label_team"] == "a"
    assert services["web"]["service_task_container_image"] == "nginx:1"
    assert services["web"]["service_endpoint_port_publish_mode"] == "ingress"
    tasks = [t for t in found["tasks"] if t.get("network_name") == "back"]
    assert sorted(t["service_name"] for t in tasks) == ["agent"] * 3 + ["web"] * 2
    for task in tasks:
        assert task["container_label_tier"] == "front"
        assert task["task_desired_state"] == "running"
        assert task["__address__"].startswith("10.0.")
    assert sorted(t["task_slot"] for t in tasks if t["service_name"] == "web") == ["1", "2"]
    assert all(t["node_address"].startswith("10.77.0.") for t in tasks)
