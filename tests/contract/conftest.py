"""A certificate authority and etcd members for the contract of the store. Needs etcd; does not need root."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from afterswarm.adapters.etcd.members import Members
from afterswarm.adapters.etcd.server import EtcdServer, Files, Removed
from afterswarm.adapters.etcd.store import EtcdStore
from afterswarm.control import ca
from afterswarm.core.trust.certificate import UNIT
from afterswarm.http.client import Client
from afterswarm.model.node import Role

sys.path.insert(0, str(Path(__file__).parent))  # for `kernel_lab`, which several modules share


class Pki:
    """The swarm's own authority, and certificates from it on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = ca.found(time.time())
        self.ca = directory / "ca.pem"
        self.ca.write_text(self.authority.cert)

    def files(self, name: str, role: Role = Role.MANAGER, address: str = "127.0.0.1") -> Files:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
        pem = ca.issue(
            self.authority,
            request.public_bytes(serialization.Encoding.PEM).decode(),
            node_id=name,
            cluster_id="swarm",
            role=role,
            addresses=[address],
            now=time.time(),
            lifetime=3600,
        )
        files = Files(self.ca, self.directory / f"{name}.pem", self.directory / f"{name}.key")
        files.cert.write_text(pem)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


class Member:
    """A member under test and the ways to talk to it."""

    def __init__(self, server: EtcdServer, files: Files) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.cert, files.key)
        self.client = Client.tcp("127.0.0.1", int(server.client_url.rpartition(":")[2]), ssl=context)
        self.store = EtcdStore(self.client)
        self.members = Members(self.client)
        self.removed = asyncio.Event()  # the others have removed it

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(self._run())
            try:
                yield
            finally:
                run.cancel()
                self.client.close()

    async def _run(self) -> None:
        try:
            await self.server.run()
        except Removed:
            self.removed.set()

    async def ready(self, within: float = 20) -> None:
        """Until it serves, as a voter of a cluster with a quorum."""
        async with asyncio.timeout(within):
            while not await self.members.ready():  # noqa: ASYNC110 - nothing says when
                await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def member(pki: Pki, tmp_path: Path) -> Callable[..., Member]:
    """Makes a member on free ports of the loopback."""

    def make(name: str = "m1", *, role: Role = Role.MANAGER, **options: object) -> Member:
        address = f"127.0.0.{name[1:]}"
        files = pki.files(name, role, address)
        defaults = {
            "client_port": free_port("127.0.0.1"),
            "peer_port": free_port(address),
            "peer_name": UNIT[Role.MANAGER],
        }
        server = EtcdServer(tmp_path / name, name=name, address=address, files=files, **(defaults | options))  # type: ignore[arg-type]
        return Member(server, files)

    return make


@pytest.fixture
def one_member(member: Callable[..., Member]) -> Callable[[], AbstractAsyncContextManager[Member]]:
    """A cluster of one member, once it is entered."""

    @asynccontextmanager
    async def enter() -> AsyncIterator[Member]:
        only = member("m1")
        async with only.running():
            await only.ready()
            yield only

    return enter


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
