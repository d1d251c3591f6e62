"""`afterswarm policy`: which powers over hosts services of this swarm may have, by their labels (docs/labels.md).

It is a label of the swarm, set through the Engine API; the docker command line has no option for those.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from afterswarm.cli import swarm_labels
from afterswarm.cli.swarm_labels import Failed
from afterswarm.core.options.table import ALLOW, POWERS
from afterswarm.http.errors import ConnectFailed


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `policy` onto the command line."""
    words = "which powers over hosts services may have by their labels"
    policy = commands.add_parser("policy", help=words, description=words)
    policy.add_argument("--listen", default="/run/afterswarm/docker.sock", metavar="PATH", help="our daemon's socket")
    policy.set_defaults(run=run, verb="", powers=[])
    verbs = policy.add_subparsers(metavar="COMMAND")
    for verb, what in (("allow", "let services have them"), ("forbid", "refuse services with them from now on")):
        parser = verbs.add_parser(verb, help=what)
        parser.add_argument("powers", nargs="+", choices=POWERS, metavar="POWER", help=", ".join(POWERS))
        parser.set_defaults(verb=verb)


def run(args: argparse.Namespace) -> int:
    """Change it if that is asked, and print what is allowed then, one power a line."""
    powers = set(args.powers)

    def changed(text: str) -> str:
        before = {power for power in text.split(",") if power}
        after = before | powers if args.verb == "allow" else before - powers if args.verb == "forbid" else before
        return text if after == before else ",".join(sorted(after))

    try:
        allowed = asyncio.run(swarm_labels.settled(args.listen, ALLOW, changed))
    except (ConnectFailed, Failed) as why:
        print(f"afterswarm policy: {why}", file=sys.stderr)
        return 1
    for power in sorted(power for power in allowed.split(",") if power):
        print(power)
    return 0
