"""The few calls that the demo makes by itself, over a docker socket, while it shows the docker command line's own."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any


class Socket(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def get(path: str, target: str, timeout: float = 3.0) -> Any:
    """`GET target`; `OSError` when it cannot be had."""
    link = Socket(path, timeout)
    try:
        link.request("GET", target)
        answer = link.getresponse()
        body = answer.read()
    except http.client.HTTPException as e:
        raise OSError(str(e)) from e
    finally:
        link.close()
    if answer.status >= 300:
        raise OSError(f"{target}: {answer.status} {body.decode(errors='replace')[:200]}")
    return json.loads(body)


class Replicas:
    """What `docker service ls` would say now, and where it runs."""

    def __init__(self, path: str) -> None:
        services = get(path, "/services")
        tasks = get(path, "/tasks")
        nodes = {n["ID"]: n for n in get(path, "/nodes")}
        self.at = time.time()
        self.ready = {n["Description"]["Hostname"]: n["Status"]["State"] == "ready" for n in nodes.values()}
        self.wanted = {
            s["Spec"]["Name"]: s["Spec"]["Mode"].get("Replicated", {}).get("Replicas", 1) or 0 for s in services
        }
        names = {s["ID"]: s["Spec"]["Name"] for s in services}
        self.running = dict.fromkeys(self.wanted, 0)
        self.hosts: dict[str, list[str]] = {}
        for task in tasks:
            node = nodes.get(task.get("NodeID", ""))
            alive = task["Status"]["State"] == "running" and task["DesiredState"] == "running"
            if alive and node and node["Status"]["State"] == "ready" and task["ServiceID"] in names:
                name = names[task["ServiceID"]]
                self.running[name] += 1
                self.hosts.setdefault(node["Description"]["Hostname"], []).append(name)

    @property
    def whole(self) -> bool:
        """Every service has all its replicas, on hosts that are up."""
        return bool(self.wanted) and all(self.running[s] >= n for s, n in self.wanted.items())

    def line(self, stack: str) -> str:
        return "  ".join(f"{s.removeprefix(stack + '_')} {self.running[s]}/{n}" for s, n in self.wanted.items())
