"""The Engine API over a unix socket, for both sides alike: what is asked of ours is asked of Docker's."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
from typing import Any

DOCKER = os.environ.get("BENCH_DOCKER") or shutil.which("docker") or "docker"


class _Socket(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def call(path: str, method: str, target: str, body: Any = None, timeout: float = 30.0) -> Any:
    """One request, decoded; `OSError` with the engine's words when it is refused or not answered."""
    link = _Socket(path, timeout)
    try:
        data = json.dumps(body).encode() if body is not None else None
        link.request(method, target, data, {"Content-Type": "application/json"} if data else {})
        answer = link.getresponse()
        said = answer.read()
    except http.client.HTTPException as e:
        raise OSError(str(e)) from e
    finally:
        link.close()
    if answer.status >= 300 and answer.status != 304:
        raise OSError(f"{method} {target}: {answer.status} {said.decode(errors='replace')[:200].strip()}")
    return json.loads(said) if said.strip() else None


def get(path: str, target: str, timeout: float = 3.0) -> Any:
    """`GET target`."""
    return call(path, "GET", target, timeout=timeout)


def docker(path: str, *words: str, timeout: float = 180.0, stdin: bytes | None = None, **environment: str) -> str:
    """The docker command line; `OSError` with its words when it fails."""
    done = subprocess.run(
        [DOCKER, "-H", f"unix://{path}", *words],
        input=stdin, capture_output=True, timeout=timeout, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"docker {' '.join(words)}: {(done.stderr + done.stdout).decode(errors='replace').strip()}")
    return done.stdout.decode().strip()
