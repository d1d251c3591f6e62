"""`afterswarm address`: floating addresses, which one live host of the swarm answers for.

They are a label of the swarm (docs/labels.md), set through the Engine API; the docker command line has no option for
those.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import Any

from afterswarm.cli import swarm_labels
from afterswarm.cli.swarm_labels import Failed
from afterswarm.core.floating import place
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.floating import LABEL
from afterswarm.model.refused import Refused


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `address` onto the command line."""
    words = "floating addresses: one live host answers for each"
    address = commands.add_parser("address", help=words, description=words)
    address.add_argument("--listen", default="/run/afterswarm/docker.sock", metavar="PATH", help="our daemon's socket")
    verbs = address.add_subparsers(metavar="COMMAND", required=True)
    verb = verbs.add_parser("add", help="let the swarm's hosts answer for an address")
    verb.add_argument("address", metavar="ADDRESS/PREFIX", help="with the prefix of its subnet, as 192.0.2.9/24")
    verb.add_argument("--interface", default="", help="instead of the one that has an address in the subnet")
    verb.set_defaults(run=run_add)
    verb = verbs.add_parser("rm", help="nobody answers for it any more")
    verb.add_argument("address", metavar="ADDRESS")
    verb.set_defaults(run=run_rm)
    verb = verbs.add_parser("ls", help="each address, who holds it (asked on a manager), and what this host says of it")
    verb.set_defaults(run=run_ls)


def run_add(args: argparse.Namespace) -> int:
    """`afterswarm address add`."""

    def added(text: str) -> str:
        new = place.one(f"{args.address}@{args.interface}" if args.interface else args.address)
        others = [known for known in place.parse(text) if known.address != new.address]
        return ",".join(known.text for known in [*others, new])

    return _change(args.listen, added)


def run_rm(args: argparse.Namespace) -> int:
    """`afterswarm address rm`."""
    gone = args.address.partition("@")[0].partition("/")[0]

    def removed(text: str) -> str:
        known = place.parse(text)
        left = [each for each in known if each.address != gone]
        if len(left) == len(known):
            raise Failed(f"no floating address {args.address} in this swarm")
        return ",".join(each.text for each in left)

    return _change(args.listen, removed)


def run_ls(args: argparse.Namespace) -> int:
    """`afterswarm address ls`."""
    try:
        rows = asyncio.run(_whereabouts(args.listen))
    except (ConnectFailed, Failed) as why:
        return _complain(str(why))
    print(f"{'ADDRESS':<40} {'HOLDER':<20} HERE")
    for row in rows:
        print(f"{row['Address']:<40} {row['Holder'] or '-':<20} {row['Here']}")
    return 0


def _change(listen: str, change: Callable[[str], str]) -> int:
    try:
        asyncio.run(swarm_labels.settled(listen, LABEL, change))
    except Refused as refused:
        return _complain(refused.message)
    except (ConnectFailed, Failed) as why:
        return _complain(str(why))
    return 0


async def _whereabouts(listen: str) -> list[dict[str, Any]]:
    client = Client.unix(listen)
    try:
        found: list[dict[str, Any]] = swarm_labels.checked(await client.request("GET", "/afterswarm/addresses")).json()
    finally:
        client.close()
    return found


def _complain(why: str) -> int:
    print(f"afterswarm address: {why}", file=sys.stderr)
    return 1
