"""The lab's image registry (Debian `docker-registry`) on the bridge, so that pulls are real."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from pathlib import Path

from afterswarm.lab import processes
from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import REGISTRY

PROGRAM = "docker-registry"


def start(root: Path) -> int:
    """Start it and return its pid. Images stay in `root`/registry between labs."""
    config = root / "registry.yml"
    storage = root / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{REGISTRY}'}}\n"
    )
    log = root / "registry.log"
    pid = processes.start([PROGRAM, "serve", str(config)], log)
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=1):
                return pid
        except OSError:
            time.sleep(0.05)
        if not is_running(pid):
            raise LabError(f"the registry did not start: see {log}")
    raise LabError(f"the registry does not answer at {REGISTRY}: see {log}")


def is_running(pid: int) -> bool:
    return bool(pid) and processes.is_running(pid, PROGRAM)


def stop(pid: int) -> None:
    """End it, and return when it has ended."""
    if not is_running(pid):
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(200):
        if not is_running(pid):
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
