"""One manager's part in floating addresses and nothing else: its beats, its votes, its kernel; the store is in memory.

python bench/load/floating_host.py NUMBER HOSTS DIRECTORY ADDRESS/PREFIX     (in the host's namespace)
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from afterswarm.adapters.clock import WallClock
from afterswarm.adapters.kernel.addresses import LinuxAddresses
from afterswarm.agent.beats.beats import Beats
from afterswarm.agent.floating.floats import Floats
from afterswarm.agent.floating.post import Post
from afterswarm.control.cache import Cache
from afterswarm.control.floating import Votes
from afterswarm.core.trust import pairs
from afterswarm.model.base import Change
from afterswarm.model.floating import Floating, Letters
from afterswarm.model.node import Node, Role
from afterswarm.model.session import Peer, Wanted
from afterswarm.sim.store import SimStore


async def main(number: int, count: int, directory: Path, address: str) -> None:
    names = [f"n{n}" for n in range(1, count + 1)]
    me, clock = names[number - 1], WallClock()
    store = SimStore()
    await store.commit([Change(None, Node(id=name, role=Role.MANAGER)) for name in names], seen=0)
    cache = Cache(store, clock)
    beats = Beats(node_id=me, clock=clock, run_dir=directory)

    def tell(node_id: str, letter: Letters) -> None:
        post.tell(node_id, letter)

    votes = Votes(cache, me=me, clock=clock, heard=beats.heard, tell=tell)
    floats = Floats(
        node_id=me,
        boot=os.urandom(8).hex(),
        clock=clock,
        addresses=LinuxAddresses(),
        tell=tell,
        file=directory / "floating",
    )
    post = Post(me, beats.tell, host=floats.take, manager=votes.take)
    beats.hear = post.heard
    peers = [Peer(node_id=name, hostname=name, address=f"10.78.0.{n}", manager=True) for n, name in enumerate(names, 1)]
    keys = {name: pairs.key(b"bench", me, name) for name in names if name != me}
    wanted = Wanted(peers=peers, beat_keys=keys, floating=Floating(addresses=[address]))
    beats.want(wanted)
    floats.want(wanted)
    async with asyncio.TaskGroup() as group:
        for part in (cache.run(), beats.run(), votes.run(), floats.run()):
            group.create_task(part)


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
