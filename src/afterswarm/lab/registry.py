"""The lab's image registry (Debian `docker-registry`) on the bridge, so that pulls are real."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import REGISTRY


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
    with (root / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    for _ in range(200):
        if process.poll() is not None:
            raise LabError(f"the registry did not start: see {root / 'registry.log'}")
        try:
            with urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=1):
                return process.pid
        except OSError:
            time.sleep(0.05)
    raise LabError(f"the registry does not answer at {REGISTRY}: see {root / 'registry.log'}")


def stop(pid: int) -> None:
    if not pid:
        return
    try:
        if b"docker-registry" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
    except OSError:
        pass
