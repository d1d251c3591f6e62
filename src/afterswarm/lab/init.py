"""The first process of a lab host: what a boot does, then what an init does (start two services, reap, restart).

Runs inside new mount, UTS, IPC and PID namespaces and the host's network namespace:
`python -m afterswarm.lab.init NAME DIR CGROUP REGISTRY [daemon arguments …]`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RESTART_AFTER = 1.0  # seconds, as the systemd unit


def mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True)


def boot(name: str, host: Path) -> None:
    """Mounts and names: the host's own disk under the usual paths, an empty /run and /tmp."""
    mount("--make-rprivate", "/")
    mount("--bind", str(host / "run"), "/run")
    for own, place in (("docker", "/var/lib/docker"), ("afterswarm", "/var/lib/afterswarm"), ("log", "/var/log")):
        (host / "disk" / own).mkdir(parents=True, exist_ok=True)
        Path(place).mkdir(parents=True, exist_ok=True)
        mount("--bind", str(host / "disk" / own), place)
    configuration = Path("/var/lib/docker/daemon.json")
    if not configuration.exists():
        configuration.write_text("{}\n")
    Path("/run/lock").mkdir(exist_ok=True)
    hostname = host / "run" / "hostname"
    hostname.write_text(name + "\n")
    mount("--bind", str(hostname), "/etc/hostname")
    subprocess.run(["hostname", name], check=True)


def engine_argv(cgroup: str, registry: str) -> list[str]:
    return [
        "dockerd",
        "--host=unix:///run/docker.sock",
        "--config-file=/var/lib/docker/daemon.json",  # the host's own, and not the machine's
        "--data-root=/var/lib/docker",
        "--exec-root=/run/docker",
        "--pidfile=/run/docker.pid",
        "--storage-driver=overlay2",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        f"--cgroup-parent={cgroup}",
        f"--insecure-registry={registry.partition(':')[0]}/32",  # on any port: tests have registries of their own
    ]


def serve(services: dict[str, list[str]]) -> None:
    """Keep every service running and reap whatever is orphaned, for ever."""
    running: dict[int, str] = {}
    due: dict[str, float] = dict.fromkeys(services, 0.0)
    environment = {**os.environ, "HOME": "/root", "AFTERSWARM_LAB_HOST": "1"}
    while True:
        for name in [n for n, at in due.items() if at <= time.monotonic()]:
            del due[name]
            with Path(f"/var/log/{name}.log").open("ab") as log:
                started = subprocess.Popen(
                    services[name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            running[started.pid] = name
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG if due else 0)
        except ChildProcessError:
            pid = 0
        if pid in running:
            due[running.pop(pid)] = time.monotonic() + RESTART_AFTER
        elif due and not pid:
            time.sleep(0.05)


def main() -> None:
    name, host, cgroup, registry, *arguments = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    boot(name, Path(host))
    daemon = [sys.executable, "-m", "afterswarm.cli.main", "daemon", *arguments]
    serve({"dockerd": engine_argv(cgroup, registry), "afterswarm": daemon})


if __name__ == "__main__":
    main()
