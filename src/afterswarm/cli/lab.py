"""`afterswarm lab …`: hosts on one machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import ROOT
from afterswarm.lab.lab import Lab, need_root
from afterswarm.lab.power import inside


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `lab` and its own commands onto the command line."""
    lab = commands.add_parser("lab", help="hosts on one machine: namespaces, an engine and a daemon each")
    lab.add_argument(
        "--dir", type=Path, default=Path(os.environ.get("AFTERSWARM_LAB_DIR", ROOT)), help=argparse.SUPPRESS
    )
    verbs = lab.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    up = verbs.add_parser("up", help="make and boot the hosts and a registry")
    up.add_argument("--hosts", type=int, default=3, metavar="N")
    status = verbs.add_parser("status", help="each host: name, address, sockets, state")
    status.add_argument("--json", action="store_true")
    for verb, text in (
        ("kill", "power cut: all processes of the host die at once, its link goes down"),
        ("start", "boot it again with the same disk"),
        ("cut", "partition: nothing passes, in either direction"),
        ("heal", "end of the partition"),
    ):
        verbs.add_parser(verb, help=text).add_argument("host")
    execute = verbs.add_parser("exec", help="run a command in the host's namespaces")
    execute.add_argument("host")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD …")
    verbs.add_parser("down", help="remove it all")
    lab.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do one `lab` command; returns the exit code."""
    lab = Lab(args.dir)
    try:
        match args.verb:
            case "up":
                lab.up(args.hosts)
            case "status":
                show(lab, as_json=args.json)
            case "kill" | "start" | "cut" | "heal":
                host = getattr(lab, args.verb)(args.host)
                print(f"{host.name} is {host.state}")
            case "exec":
                argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
                if not argv:
                    print("afterswarm lab exec HOST -- CMD …: no command given", file=sys.stderr)
                    return 2
                need_root()
                command = inside(lab.host(lab.read(), args.host), argv)
                os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
            case _:
                lab.down()
    except (LabError, PermissionError) as e:
        print(f"afterswarm lab: {e}", file=sys.stderr)
        return 1
    return 0


def show(lab: Lab, *, as_json: bool) -> None:
    """The hosts, as a table or as JSON."""
    hosts = lab.read().hosts
    if as_json:
        print(msgspec.json.format(msgspec.json.encode([h.shown() for h in hosts]), indent=2).decode())
        return
    print(f"{'NAME':<10} {'ADDRESS':<12} {'STATE':<6} {'PID':<8} SOCKET")
    for h in hosts:
        print(f"{h.name:<10} {h.address:<12} {h.state:<6} {h.pid or '-':<8} {h.socket}")
