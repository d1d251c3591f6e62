"""Who is heard: listens for the beats of peers, and keeps the process that sends our own (`sender`).

A beat counts when its node is a peer, its HMAC fits the key that this host shares with that one alone, and it is no
replay: newer than the last one of that node or, after a restart of its sender, at least fresh by our clock (a clock
that was set back must not make a host mute).

Daemons also send each other letters this way, with the same keys, on the same port: `tell`, and `hear` for those that
come. A letter says itself what makes it fresh.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from afterswarm.agent.beats import sender
from afterswarm.core.dataplane.host_rules import BEATS
from afterswarm.model.session import Peer, Wanted
from afterswarm.ports import Clock

log = logging.getLogger(__name__)

PORT = BEATS
FRESH = 30.0  # seconds that clocks of two hosts may differ by, when a sender starts anew with its clock set back
TOUCH = 1.0  # seconds between signs of life to our own sender
LETTER = b"ASL1"
_MAC = 32


class Beat(NamedTuple):
    boot: str
    milliseconds: int


class Beats:
    """`heard`: node id -> `Clock.now()` of its last beat, for peers only. `run_dir` is on a tmpfs, like `/run`.

    `routed`: node id -> the revision that its kernel routes by, as of that beat.
    """

    def __init__(self, *, node_id: str, clock: Clock, run_dir: Path, port: int = PORT) -> None:
        self.heard: dict[str, float] = {}
        self.routed: dict[str, int] = {}
        self._node_id = node_id
        self._clock = clock
        self._port = port
        self._file = run_dir / "beat"
        self._keys: dict[str, bytes] = {}  # node id -> of the beats between it and us
        self._own_routed = 0
        self._addresses: dict[str, str] = {}
        self._own_address = ""
        self._last: dict[str, Beat] = {}
        self._bound = False
        self.hear: Callable[[str, bytes], None] = lambda _sender, _letter: None

    def want(self, wanted: Wanted) -> None:
        """New peers and keys; `None` is unchanged."""
        if wanted.beat_keys is not None:
            self._keys = wanted.beat_keys
        if wanted.peers is not None:
            self._follow(wanted.peers)
        if wanted.beat_keys is not None or wanted.peers is not None:
            self._write_settings()

    def acknowledge(self, rev: int) -> None:
        """This host's kernel routes by this revision: to be told to everybody."""
        if rev != self._own_routed:
            self._own_routed = rev
            if self._keys:
                self._write_settings()

    async def run(self) -> None:
        """Until cancelled. The sender goes on then, for as long as a restart may take."""
        transport: asyncio.DatagramTransport | None = None
        try:
            while True:
                transport = transport or await self._listen()
                if self._keys:
                    self._alive.touch()
                    self._keep_sender()
                await self._clock.sleep(TOUCH)
        finally:
            if transport:
                transport.close()

    def clear(self) -> None:
        """This host has left the swarm: no more beats. Not while `run` runs."""
        self._end(self._sender())
        for path in (self._file, self._alive, self._pidfile):
            path.unlink(missing_ok=True)

    def tell(self, node_id: str, letter: bytes) -> None:
        """To a peer's daemon; lost when it is none, or cannot be reached. Also after `run` has ended."""
        key, address = self._keys.get(node_id), self._addresses.get(node_id)
        if key is None or address is None:
            return
        text = b" ".join((LETTER, self._node_id.encode(), letter))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out, suppress(OSError):
            out.sendto(text + hmac.digest(key, text, "sha256"), (address, self._port))

    def received(self, datagram: bytes) -> None:
        """What the socket heard."""
        text, seal = datagram[:-_MAC], datagram[-_MAC:]
        magic, _, rest = text.partition(b" ")
        if magic not in (sender.MAGIC, LETTER):
            return
        name, _, said = rest.partition(b" ")
        node_id = name.decode(errors="replace")
        key = self._keys.get(node_id)
        if node_id not in self._addresses or key is None:
            return
        if not hmac.compare_digest(seal, hmac.digest(key, text, "sha256")):
            return
        if magic == LETTER:
            self.hear(node_id, said)
            return
        words = text.split(b" ")
        if len(words) != 5:
            return
        now = self._clock.now()
        beat = Beat(words[2].decode(errors="replace"), int(words[3]))
        last = self._last.get(node_id)
        if last and beat.milliseconds <= last.milliseconds:
            restarted = beat.boot != last.boot
            if not restarted or abs(beat.milliseconds / 1000 - now) > FRESH:
                return
        self._last[node_id] = beat
        self.heard[node_id] = now
        self.routed[node_id] = int(words[4])

    # ---- inside --------------------------------------------------------------------------------------------------

    def _follow(self, peers: Iterable[Peer]) -> None:
        peers = list(peers)
        self._own_address = next((p.address for p in peers if p.node_id == self._node_id), "")
        self._addresses = {p.node_id: p.address for p in peers if p.address and p.node_id != self._node_id}
        for gone in self.heard.keys() - self._addresses.keys():
            del self.heard[gone]
            self.routed.pop(gone, None)

    async def _listen(self) -> asyncio.DatagramTransport | None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Ear(self), local_addr=("0.0.0.0", self._port), family=socket.AF_INET
            )
        except OSError as error:
            if not self._bound:
                log.error("cannot hear other hosts: UDP port %d: %s", self._port, error)  # noqa: TRY400
            self._bound = True  # said once
            return None
        return transport

    def _write_settings(self) -> None:
        lines = [f"node {self._node_id}", f"port {self._port}", f"routed {self._own_routed}"]
        if self._own_address:
            lines.append(f"from {self._own_address}")
        known = sorted(self._keys.keys() & self._addresses.keys())
        lines += [f"peer {self._addresses[node_id]} {self._keys[node_id].hex()}" for node_id in known]
        text = "\n".join(lines) + "\n"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._file.exists() and self._file.read_text() == text:
            return
        new = self._file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(text)
        new.replace(self._file)

    @property
    def _alive(self) -> Path:
        return self._file.with_suffix(".alive")

    @property
    def _pidfile(self) -> Path:
        return self._file.with_suffix(".pid")

    def _command(self) -> list[str]:
        script = sender.__file__
        return [sys.executable, "-I", "-S", script, str(self._file), _digest(script)]

    def _keep_sender(self) -> None:
        """One sender of this version runs: the one of the daemon's last life, or a new one."""
        command = self._command()
        pid = self._sender()
        if pid and _command_of(pid) == command:
            return
        self._end(pid)
        devnull = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        pid = os.posix_spawn(command[0], command, {}, file_actions=devnull, setsid=True)
        self._pidfile.write_text(str(pid))

    def _sender(self) -> int:
        """The pid of our sender, of whatever version; 0 when it has ended."""
        try:
            pid = int(self._pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        with suppress(ChildProcessError):  # it was started by an earlier daemon
            os.waitpid(pid, os.WNOHANG)  # takes leave of it if it has ended
        return pid if str(self._file) in _command_of(pid) else 0

    def _end(self, pid: int) -> None:
        if not pid:
            return
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)  # at once: it has no handler


@cache
def _digest(script: str) -> str:
    """Of the version that this daemon was started with."""
    return hashlib.sha256(Path(script).read_bytes()).hexdigest()[:12]


def _command_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, beats: Beats) -> None:
        self._beats = beats

    def datagram_received(self, data: bytes, _addr: tuple[str, int]) -> None:
        self._beats.received(data)
