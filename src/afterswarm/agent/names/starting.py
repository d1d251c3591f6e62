"""What the resolver's process is started with: its code, its sockets, and nothing else."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import afterswarm.core.dns

_FREEBIND = 15  # linux/in.h: listen on an address before a bridge has it
_RUN = "import sys; sys.path += sys.argv.pop(1).split(':'); from afterswarm.agent.names.server import main; main()"


def begin(at: Path, *, path: Path, version: str, errors: Path, upstream_port: int) -> int:
    """Its pid. It is talked to at `at`, which will be `path`. Raises `OSError`."""
    at.parent.mkdir(parents=True, exist_ok=True)
    at.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        os.fchmod(control.fileno(), 0o600)
        control.bind(str(at))
        control.listen()
        places = f"{Path(__file__).parents[3]}:{_dnslib().parent}"  # without `site`, which would cost it memory
        argv = [sys.executable, "-I", "-S", "-c", _RUN, places, str(path), version, str(upstream_port)]
        files = [
            (os.POSIX_SPAWN_DUP2, control.fileno(), 3),
            *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)),
            (os.POSIX_SPAWN_OPEN, 2, str(errors), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        return os.posix_spawn(argv[0], argv, {}, file_actions=files, setsid=True)


def bound(address: str, port: int) -> list[socket.socket]:
    """For datagrams and for connections. Raises `OSError`."""
    made: list[socket.socket] = []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            made.append(socket.socket(family, kind))
            if kind == socket.SOCK_STREAM:
                made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made[-1].setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            made[-1].bind((address, port))
        made[-1].listen(128)
    except OSError:
        for each in made:
            each.close()
        raise
    return made


@cache
def version() -> str:
    """Of the resolver's code as this daemon was started with it."""
    here = [*Path(__file__).parent.glob("*.py"), *Path(afterswarm.core.dns.__file__).parent.glob("*.py")]
    digest = hashlib.sha256(_dnslib().stat().st_mtime_ns.to_bytes(8, "big") + sys.version.encode())
    for path in sorted(here):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _dnslib() -> Path:
    found = find_spec("dnslib")
    assert found  # noqa: S101 - it is required
    assert found.origin  # noqa: S101
    return Path(found.origin).parent
