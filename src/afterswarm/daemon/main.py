"""`afterswarm daemon`: flags in, a running host out."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from afterswarm.core.floating import place as places
from afterswarm.daemon.config import Config, place, socket_path
from afterswarm.daemon.host import Daemon
from afterswarm.model.refused import Refused


async def serve(config: Config) -> None:
    """Until SIGTERM or SIGINT. Containers go on."""
    daemon = asyncio.current_task()
    assert daemon  # noqa: S101 - asyncio.run makes one
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.cancel)
    await Daemon(config).run()


def main(*, listen: str, engine: str, state: str, metrics: str = "", floating: Sequence[str] = ()) -> int:
    """Run the daemon; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        config = Config(
            listen=socket_path("--listen", listen),
            engine=socket_path("--engine", engine),
            state=Path(state),
            metrics=place("--metrics-addr", metrics),
            floating=tuple(places.parse(",".join(floating))),
        )
        asyncio.run(serve(config))
    except Refused as refused:
        print(f"afterswarm daemon: {refused.message}", file=sys.stderr)  # noqa: T201
        return 2
    except OSError as error:
        print(f"afterswarm daemon: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except asyncio.CancelledError:
        pass
    return 0
