"""This manager's etcd member as a child process: its arguments, and a keeper that starts it again when it dies.

What the members of a cluster are is etcd's to know; see `adapters.etcd.Members`. Written for Debian's etcd 3.4.
The certificate is used three ways: as a server's, as a client's towards other members, and by etcd's own JSON gateway
towards itself; it must allow both uses and name the member's address and 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path

import msgspec

CLIENT_PORT = 12379  # on 127.0.0.1 only; not 2379, which the etcd of the distribution's own unit takes
PEER_PORT = 2380
HEARTBEAT_MS = 100
ELECTION_MS = 600  # etcd wants at least five heartbeats
QUOTA_BYTES = 2 * 1024**3
STOPPING = 5.0  # seconds from SIGTERM to SIGKILL
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before the next start; from the first again after a good while
GOOD_WHILE = 30.0
LARGEST_LOG = 8 * 1024**2

REMOVED = b"permanently removed from the cluster"  # what it says before it ends, when the others removed it

log = logging.getLogger(__name__)


class Removed(Exception):
    """The members of the cluster have removed this one: what it has on disk is of no use any more."""


class Files(msgspec.Struct, frozen=True):
    """PEM files. `ca` signs every member's certificate."""

    ca: Path
    cert: Path
    key: Path


class EtcdServer:
    """One member. `run` keeps it running until cancelled. Raises `Removed`.

    `initial_cluster` ("name=peer URL,…", this member included; default: this one alone) and `existing` matter only for
    the first start on an empty directory: `existing` joins a cluster that already lists this member. `force_new` makes
    the member the only one of a cluster of its own, with the data that it has: the way out when a majority is lost
    for good. With `peer_name`, only certificates for this name (`certificate.UNIT`) are accepted as members, so that
    a worker's is not.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        address: str,
        files: Files,
        initial_cluster: str = "",
        existing: bool = False,
        force_new: bool = False,
        peer_name: str = "",
        client_port: int = CLIENT_PORT,
        peer_port: int = PEER_PORT,
        program: str = "etcd",
    ) -> None:
        self.directory = directory
        self.name = name
        self.peer_url = peer_url(address, peer_port)
        self.client_url = f"https://127.0.0.1:{client_port}"
        self._files = files
        self._initial_cluster = initial_cluster or f"{name}={self.peer_url}"
        self._existing = existing
        self._force_new = force_new
        self._peer_name = peer_name
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._said_before = 0  # length of its log when it was last started
        self._again = False  # it ends because it is to begin again

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def log_file(self) -> Path:
        return self.directory / "etcd.log"

    def has_data(self) -> bool:
        """Whether this member was started before."""
        return (self.directory / "data" / "member").is_dir()

    def argv(self) -> list[str]:
        files = self._files
        options = {
            "name": self.name,
            "data-dir": self.directory / "data",
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "listen-client-urls": self.client_url,
            "advertise-client-urls": self.client_url,
            "initial-cluster": self._initial_cluster,
            "initial-cluster-state": "existing" if self._existing else "new",
            "cert-file": files.cert,
            "key-file": files.key,
            "trusted-ca-file": files.ca,
            "client-cert-auth": "true",
            "peer-cert-file": files.cert,
            "peer-key-file": files.key,
            "peer-trusted-ca-file": files.ca,
            "peer-client-cert-auth": "true",
            "experimental-peer-skip-client-san-verification": "true",  # a host may call from another address of its own
            "heartbeat-interval": HEARTBEAT_MS,
            "election-timeout": ELECTION_MS,
            "pre-vote": "true",  # a member that returns does not disturb the leader
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "10m",
            "quota-backend-bytes": QUOTA_BYTES,
            "max-txn-ops": 16_384,
            "max-request-bytes": 8 * 1024**2,
            "snapshot-count": 5_000,  # entries kept in memory between snapshots of the log
            "experimental-warning-apply-duration": "1s",
            "logger": "zap",
            "log-level": "warn",
            "log-outputs": "stderr",
        }
        if self._peer_name:
            options["peer-cert-allowed-hostname"] = self._peer_name
        if self._force_new:
            options["force-new-cluster"] = "true"
        return [self._program, *(f"--{option}={value}" for option, value in options.items())]

    async def run(self) -> None:
        """Start it, start it again when it dies, stop it when cancelled."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            started = loop.time()
            code = await self._once()
            self._force_new = False
            if self._again:
                self._again = False
                continue
            if self._was_removed():
                raise Removed
            deaths = 0 if loop.time() - started > GOOD_WHILE else deaths + 1
            pause = BACK_OFF[min(deaths, len(BACK_OFF) - 1)]
            log.warning("etcd ended with %d, next start in %g s: %s", code, pause, self.last_words())
            await asyncio.sleep(pause)

    async def restart(self) -> None:
        """End it in good order; `run` begins it again, and it reads all its files anew."""
        if self._process:
            self._again = True
            await _stop(self._process)

    def _was_removed(self) -> bool:
        with suppress(OSError), self.log_file.open("rb") as said:
            said.seek(self._said_before)
            return REMOVED in said.read()
        return False

    def last_words(self) -> str:
        """The last line of its log."""
        with suppress(OSError):
            lines = self.log_file.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    async def _once(self) -> int:
        with suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LARGEST_LOG:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        # It dies with this process, however that dies: two members on one directory would wait for each other. At once,
        # for a member that ends in good order looks for another leader first, with the next one waiting for its port.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *self.argv()]
        with self.log_file.open("ab") as out:
            self._said_before = out.tell()
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(),
                cwd=self.directory,
            )
        self._process = process
        try:
            return await process.wait()
        finally:
            await _stop(process)
            self._process = None


def _environment() -> dict[str, str]:
    """Nothing of ours but the path: etcd reads its options from the environment, too."""
    found = {"PATH": os.environ.get("PATH", os.defpath)}
    if platform.machine() == "aarch64":
        found["ETCD_UNSUPPORTED_ARCH"] = "arm64"
    return found


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOPPING):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def peer_url(address: str, port: int = PEER_PORT) -> str:
    """How other members reach the member at this address."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"
