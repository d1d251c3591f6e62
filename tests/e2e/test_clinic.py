"""The mission's stack on the lab: deployed from its compose file, used, watched, and left without its leader."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, until

from afterswarm.lab.hosts import REGISTRY
from afterswarm.lab.lab import Lab

EXAMPLE = Path(__file__).parents[2] / "examples" / "tbcare"
SILENT_QUERIES = {'code=~"5.."'}  # nothing fails while all is well


def example(name: str) -> Any:
    """A module of the example, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tbcare_{name}", EXAMPLE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def get(url: str, body: dict[str, str] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def clinic(lab: Lab, swarm: list[Host], tmp_path_factory: pytest.TempPathFactory) -> list[Host]:
    """The stack on three managers, all replicas running; the database's volume on the last host."""
    first, home = swarm[0], swarm[-1]
    work = tmp_path_factory.mktemp("images")
    grafana = example("images").fill(first.place.socket, REGISTRY, work, lab.root / "cache", print)
    secrets = tmp_path_factory.mktemp("secrets")
    for name in ("db_password", "grafana_password"):
        (secrets / name).write_text("correct-horse")
    first.docker("node", "update", "--label-add", "tbcare.db=true", home.name)
    wish = {"TBCARE_IMAGES": f"{REGISTRY}/", "TBCARE_SECRETS": str(secrets), "TBCARE_GRAFANA": "1" if grafana else "0"}
    deploy = [first.client, "-H", f"unix://{first.place.socket}", "stack", "deploy", "-c", EXAMPLE / "compose.yaml"]
    subprocess.run([*deploy, "tbcare"], env={**os.environ, **wish}, check=True, capture_output=True)
    until("all replicas run", lambda: whole(first), within=180)
    until("it has reached its database", lambda: isinstance(get(f"http://{first.address}/patients"), list))
    return swarm


def whole(host: Host) -> bool:
    """Every service has what it asks for."""
    rows = host.docker("service", "ls", "--format", "{{.Replicas}}").splitlines()
    return len(rows) == 7 and all(row.split()[0].split("/")[0] == row.split()[0].split("/")[1] for row in rows)


def test_records_are_kept_whichever_host_is_asked(clinic: list[Host]):
    def admit(host: Host) -> int:
        """503 passes: this replica has not reached the database yet."""
        made = get(f"http://{host.address}/patients", {"name": host.name, "born": "1990-12-10"})
        return int(made["id"])

    made = [until("a record is written", lambda: admit(host)) for host in clinic]  # noqa: B023 - called at once
    for host in clinic:
        known = {row["id"] for row in get(f"http://{host.address}/patients")}
        assert known >= set(made)


def test_every_replica_gets_its_share_and_a_name_of_its_own(clinic: list[Host]):
    seen = {get(f"http://{clinic[0].address}/whoami")["replica"] for _ in range(30)}
    assert seen == {"1", "2", "3"}


def test_locust_is_at_work_behind_the_front_door(clinic: list[Host]):
    feed = f"http://{clinic[1].address}/locust/stats/requests"
    until("Locust has all its users", lambda: get(feed)["user_count"] == 10, within=60)
    with urllib.request.urlopen(f"http://{clinic[1].address}/locust/", timeout=10) as page:
        assert b"<html" in page.read().lower()


def test_prometheus_finds_the_tasks_through_our_api(clinic: list[Host]):
    def targets() -> dict[str, int]:
        found: dict[str, int] = {}
        for target in get(f"http://{clinic[2].address}:9090/api/v1/targets")["data"]["activeTargets"]:
            if target["health"] == "up":
                service = target["labels"]["service"]
                found[service] = found.get(service, 0) + 1
        return found

    wanted = {"tbcare_app": 3, "tbcare_locust-exporter": 1}
    until("three apps and an exporter are up", lambda: targets() == wanted, within=60)


def queries() -> list[str]:
    dashboards = (EXAMPLE / "grafana" / "dashboards").glob("*.json")
    panels = [panel for path in dashboards for panel in json.loads(path.read_text())["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("query", queries())
def test_every_query_of_the_dashboards_is_answered_by_the_real_prometheus(clinic: list[Host], query: str):
    url = f"http://{clinic[0].address}:9090/api/v1/query?{urllib.parse.urlencode({'query': query})}"

    def answered() -> bool:
        answer = get(url)
        assert answer["status"] == "success"
        return bool(answer["data"]["result"]) or any(silent in query for silent in SILENT_QUERIES)

    until(f"{query} has a result", answered, within=60)


def test_the_leaders_death_is_survived(clinic: list[Host], lab: Lab):
    by_name = {host.name: host for host in clinic}
    rows = clinic[0].docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
    leader = next(row.split()[0] for row in rows if row.endswith("Leader"))
    before = get(f"http://{clinic[0].address}/patients", {"name": "before", "born": "1990-12-10"})["id"]
    survivor = next(h for h in clinic if h.name != leader)
    if leader == clinic[-1].name:
        pytest.skip("the leader is the database's host: its own survival comes with a later version")
    lab.kill(leader)
    try:
        until("the leader is down", lambda: survivor.nodes()[leader].startswith("Down"), within=30)
        until("all replicas run elsewhere", lambda: whole(survivor), within=120)
        after = until(
            "a record can be written",
            lambda: get(f"http://{survivor.address}/patients", {"name": "after", "born": "1990-12-10"}),
        )["id"]
        known = {row["id"] for row in get(f"http://{survivor.address}/patients")} | {
            get(f"http://{survivor.address}/patients/{before}")["id"]
        }
        assert {before, after} <= known
    finally:
        lab.start(leader)
    until("the host is ready again", lambda: by_name[leader].nodes()[leader] == "Ready", within=60)
