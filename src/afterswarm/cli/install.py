"""`afterswarm install`: the systemd unit and a docker context named `afterswarm`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

UNIT = Path("/etc/systemd/system/afterswarm.service")
SOCKET = "unix:///run/afterswarm/docker.sock"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `install` onto the command line."""
    install = commands.add_parser("install", help="put the systemd unit and a docker context `afterswarm` in place")
    install.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    install.set_defaults(run=run)


def unit(program: str) -> str:
    """The unit's text, with the absolute path of this `afterswarm`."""
    return files("afterswarm.cli").joinpath("afterswarm.service").read_text().replace("@AFTERSWARM@", program)


def run(args: argparse.Namespace) -> int:
    """Write the unit, load and start it where systemd runs, and make the context."""
    if os.geteuid() != 0:
        print("afterswarm install: run it as root (sudo afterswarm install)", file=sys.stderr)
        return 1
    program = shutil.which("afterswarm") or str(Path(sys.argv[0]).resolve())
    target = args.root / UNIT.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(unit(program))
    print(f"wrote {target}")
    if Path("/run/systemd/system").is_dir() and args.root == Path("/"):
        for argv in (["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", "afterswarm.service"]):
            done = subprocess.run(argv, check=False)
            if done.returncode:
                print("afterswarm install: see `journalctl -u afterswarm`", file=sys.stderr)
                return 1
        print("afterswarm.service is enabled and started")
    else:
        print("systemd does not run here: start `afterswarm daemon` by your own init")
    return context()


def context() -> int:
    """Make the docker context, or point an existing one at the socket."""
    docker = shutil.which("docker")
    if not docker:
        print("no docker command line here: apt-get install docker.io, then run this again for the context")
        return 1
    exists = subprocess.run([docker, "context", "inspect", "afterswarm"], capture_output=True, check=False)
    verb = "update" if exists.returncode == 0 else "create"
    argv = [docker, "context", verb, "afterswarm", "--docker", f"host={SOCKET}", "--description", "Afterswarm"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"docker context {verb}: {done.stderr.strip()}", file=sys.stderr)
        return 1
    print("docker context `afterswarm` is there; `docker context use afterswarm` makes it the default")
    return 0
