"""A host's network, with the real kernel and an engine in memory: run in the host's namespace, told over stdin.

Each line is a list: what, and its arguments. Each is answered with one line.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import msgspec

from afterswarm.adapters.clock import WallClock
from afterswarm.adapters.kernel.linux import LinuxKernel
from afterswarm.agent.network.network import Network
from afterswarm.model.session import Wanted
from afterswarm.model.task import Task
from afterswarm.sim.engine import SimEngine


async def main(node_id: str) -> None:
    clock, heard = WallClock(), dict[str, float]()
    made = Network(engine=SimEngine(clock=clock), kernel=LinuxKernel(), node_id=node_id, clock=clock, heard=heard)
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def hear(nodes: list[str]) -> None:
        while True:
            heard.update(dict.fromkeys(nodes, clock.now()))
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        group.create_task(made.run())
        beating = group.create_task(hear([]))
        while line := await lines.readline():
            what, *told = msgspec.json.decode(line)
            answer: Any = None
            match what:
                case "want":
                    wanted = msgspec.convert(told[0], Wanted)
                    beating.cancel()
                    beating = group.create_task(hear([p.node_id for p in wanted.peers or ()]))
                    made.want(wanted)
                    while made.applied != wanted.rev:  # noqa: ASYNC110 - nothing says when
                        await asyncio.sleep(0.02)
                case "started":
                    await made.started(msgspec.convert(told[0], Task), told[1])
                case "stopped":
                    await made.stopped(told[0])
                case "open":
                    answer = len(list(Path("/proc/self/fd").iterdir()))
                case "repairs":
                    answer = {"done": made.repairs.done, "failing": made.repairs.failing, "last": made.repairs.last}
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
            sys.stdout.flush()


logging.basicConfig(level=logging.INFO, stream=sys.stderr)
asyncio.run(main(sys.argv[1]))
