"""The command line `afterswarm`. Each command's code is loaded only when it runs."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from afterswarm import __version__

COMMANDS = (
    "lab",
    "install",
    "doctor",
    "policy",
    "address",
    "stack",
)  # each a module here; the daemon's is further below


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(prog="afterswarm", description="what comes after Docker Swarm")
    top.add_argument("--version", action="version", version=f"afterswarm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    daemon = commands.add_parser("daemon", help="the daemon of one host")
    daemon.add_argument(
        "--listen",
        default="unix:///run/afterswarm/docker.sock",
        metavar="unix://PATH",
        help="serve the Docker Engine API here (default: %(default)s)",
    )
    daemon.add_argument(
        "--engine",
        default="unix:///var/run/docker.sock",
        metavar="unix://PATH",
        help="the engine of this host (default: %(default)s)",
    )
    daemon.add_argument(
        "--state",
        default="/var/lib/afterswarm",
        metavar="DIR",
        help="what must survive a restart (default: %(default)s)",
    )
    daemon.add_argument(
        "--metrics-addr",
        default="",
        metavar="HOST:PORT",
        help="answer Prometheus here, too, at /metrics (default: on the socket of --listen alone)",
    )
    daemon.add_argument(
        "--floating-address",
        action="append",
        default=[],
        metavar="ADDRESS/PREFIX[@INTERFACE]",
        help="this host may hold this address, beside those of the swarm (see afterswarm address); repeat for more",
    )
    daemon.set_defaults(run=run_daemon)
    return top


def run_daemon(args: argparse.Namespace) -> int:
    """`afterswarm daemon`."""
    from afterswarm.daemon.main import main as daemon_main  # noqa: PLC0415 - the worker's memory

    return daemon_main(
        listen=args.listen,
        engine=args.engine,
        state=args.state,
        metrics=args.metrics_addr,
        floating=args.floating_address,
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    top = parser()
    commands = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    named = words[:1]
    for name in COMMANDS:
        if named == [name] or not {*COMMANDS, "daemon"}.intersection(named):
            import_module(f"afterswarm.cli.{name}").add(commands)
    args = top.parse_args(words)
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
