"""`afterswarm policy`: which powers over hosts services of this swarm may have, by their labels (docs/labels.md).

It is a label of the swarm, set through the Engine API; the docker command line has no option for those.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from afterswarm.core.options.table import ALLOW, POWERS
from afterswarm.http.client import Client, Reply
from afterswarm.http.errors import ConnectFailed

SEQUENCE = "update out of sequence"
TRIES = 5


class _Failed(Exception):
    """What the daemon answered."""


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
    try:
        allowed = asyncio.run(_settled(args.listen, args.verb, set(args.powers)))
    except (ConnectFailed, _Failed) as why:
        print(f"afterswarm policy: {why}", file=sys.stderr)
        return 1
    for power in sorted(allowed):
        print(power)
    return 0


async def _settled(path: str, verb: str, powers: set[str]) -> set[str]:
    client = Client.unix(path)
    try:
        for _ in range(TRIES):
            swarm = _checked(await client.request("GET", "/swarm")).json()
            labels = swarm["Spec"].get("Labels") or {}
            before = {power for power in labels.get(ALLOW, "").split(",") if power}
            after = before | powers if verb == "allow" else before - powers if verb == "forbid" else before
            if after == before:
                return before
            body = msgspec.json.encode({**swarm["Spec"], "Labels": {**labels, ALLOW: ",".join(sorted(after))}})
            target = f"/swarm/update?version={swarm['Version']['Index']}"
            reply = await client.request("POST", target, body=body)
            if reply.status < 300:
                return after
            if SEQUENCE not in reply.message:
                _checked(reply)
        raise _Failed("the swarm's settings are being changed by somebody else; try again")
    finally:
        client.close()


def _checked(reply: Reply) -> Reply:
    if reply.status >= 300:
        raise _Failed(reply.message)
    return reply
