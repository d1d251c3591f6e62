"""`afterswarm stack deploy` on real hosts: in order, with further options, ports where they should answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hosts import BUSYBOX, Host, until

from afterswarm.stack.reader import Unreadable, compose

try:
    compose()
except Unreadable as why:
    pytest.skip(str(why), allow_module_level=True)

CHECK = {"test": "test -f /tmp/ok", "interval": "300ms", "retries": 30}
WEB = "echo hello > /www/index.html; httpd -f -p 80 -h /www"


def deploy(host: Host, folder: Path, services: dict[str, Any], *options: str, **more: Any) -> tuple[int, str]:
    path = folder / "compose.yaml"
    path.write_text(json.dumps({"services": {k: {"image": BUSYBOX, **s} for k, s in services.items()}, **more}))
    command = [sys.executable, "-m", "afterswarm.cli.main", "stack", "deploy", "-H", f"unix://{host.place.socket}"]
    argv = [*command, "-c", str(path), "--timeout", "60", *options, "shop"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=100)
    return done.returncode, done.stdout


@pytest.mark.row("ST-06", "ST-09", "ST-10", client="afterswarm stack")
def test_st_10_a_stack_comes_up_in_order(swarm: list[Host], tmp_path: Path) -> None:
    healthy, completed = ({"condition": f"service_{word}"} for word in ("healthy", "completed_successfully"))
    services = {
        "db": {"command": ["sh", "-c", "sleep 2; touch /tmp/ok; sleep 9999"], "healthcheck": CHECK},
        "migrate": {"command": ["sh", "-c", "sleep 1"], "depends_on": {"db": healthy}},
        "web": {
            "command": ["sh", "-c", WEB],
            "depends_on": {"db": healthy, "migrate": completed},
            "shm_size": "8m",
            "ports": ["127.0.0.1:8090:80", "8091:81"],
            "configs": [{"source": "page", "target": "/page"}],
            "deploy": {"replicas": 2, "restart_policy": {"delay": "1s"}},
        },
    }
    configs = {"page": {"content": "made of $$5"}}
    code, out = deploy(swarm[0], tmp_path, services, configs=configs)
    assert code == 0, out
    assert "shop_web: 0/2 running (waiting for db to be healthy)" in out
    assert "shop_web: 0/2 running (waiting for migrate to complete)" in out
    assert "ok     shop_web: 2/2 running" in out
    on_each = "wget -q -T 2 -O- http://{}:8090/"
    for host in swarm:
        assert host.run("sh", "-c", on_each.format("127.0.0.1") + " || curl -sm 2 http://127.0.0.1:8090/") == "hello"
        refused = subprocess.run(["curl", "-sm", "2", f"http://{host.address}:8090/"], capture_output=True, check=False)
        assert refused.returncode != 0, refused.stdout
    (name, node), *_ = swarm[0].running("shop_web")
    there = next(host for host in swarm if host.name == node)
    container = there.docker("ps", "-q", "-f", f"name={name}", engine=True)
    assert there.docker("inspect", "-f", "{{.HostConfig.ShmSize}}", container, engine=True) == str(8 << 20)
    assert there.docker("exec", container, "cat", "/page", engine=True) == "made of $5"
    code, out = deploy(swarm[1], tmp_path, services, "--dry-run", configs=configs)
    assert code == 0
    assert "0 to create, 0 to change, 0 to remove" in out, out
    services["web"]["environment"] = {"A": "1"}
    code, out = deploy(swarm[1], tmp_path, services, "--dry-run", configs=configs)
    assert "~ service shop_web\n    Env.A: + 1\n" in out
    swarm[2].docker("stack", "rm", "shop")
    until("nothing is left", lambda: not swarm[2].docker("service", "ls", "-q"))


@pytest.mark.row("ST-01", client="afterswarm stack")
def test_st_01_a_failure_has_a_reason_and_an_exit_code(swarm: list[Host], tmp_path: Path) -> None:
    waits = {"migrate": {"condition": "service_completed_successfully"}}
    services: dict[str, Any] = {
        "migrate": {"command": ["sh", "-c", "sleep 1; exit 3"]},
        "web": {"command": ["sleep", "9999"], "depends_on": waits},
    }
    code, out = deploy(swarm[0], tmp_path, services)
    assert code == 1
    assert "error: shop_migrate: 0/1 running (task: non-zero exit (3))" in out
    assert "error: shop_web: 0/1 running (waiting for migrate to complete: it failed" in out
    assert not swarm[0].running("shop_web")
    services["migrate"]["command"] = ["true"]
    code, out = deploy(swarm[0], tmp_path, services)
    assert code == 0, out
    assert swarm[0].running("shop_web"), "what waited goes on by itself"
    swarm[0].docker("stack", "rm", "shop")
