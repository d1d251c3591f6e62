"""What a node keeps of its membership, and the TLS contexts that follow from it.

Under the state directory (0700): `node.json`, `ca.pem`, `cert.pem`, `key.pem`, and on managers `cluster.key`. Each file
is replaced as a whole; `node.json` is written last and removed first, and a node without it is in no swarm. A renewed
certificate is for the same key, so that no moment exists in which the two do not fit.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import msgspec

from afterswarm.model.enrolment import Enrolment
from afterswarm.model.node import Role


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is. Times are seconds since the epoch."""

    node_id: str
    cluster_id: str
    role: Role  # of the certificate
    address: str
    data_path: str = ""
    managers: list[str] = []  # addresses where a manager was last known
    issued: float = 0.0
    expires: float = 0.0

    @property
    def renew_at(self) -> float:
        """When half of the certificate's life has passed."""
        return (self.issued + self.expires) / 2


class Credentials:
    """The files, and contexts that always use the newest of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_path = directory / "ca.pem"
        self.cert_path = directory / "cert.pem"
        self.key_path = directory / "key.pem"
        self._node_path = directory / "node.json"
        self._cluster_key_path = directory / "cluster.key"
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self.identity: Identity | None = self._load()

    def adopt(self, enrolment: Enrolment, *, ca: str, key: str, data_path: str = "") -> Identity:
        """Become the node that a manager took in."""
        self.forget()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self._write(self.ca_path, ca.encode())
        self._write(self.key_path, key.encode())
        identity = Identity(
            node_id=enrolment.node_id,
            cluster_id=enrolment.cluster_id,
            role=enrolment.role,
            address=enrolment.address,
            data_path=data_path,
            managers=enrolment.managers,
        )
        return self._take(identity, enrolment)

    def renew(self, enrolment: Enrolment) -> Identity:
        """Use a new certificate for the same key from now on; new connections show it."""
        if self.identity is None:
            raise RuntimeError("this node is in no swarm")
        identity = self._take(self.identity, enrolment)
        for context in (self._server, self._client):
            if context:
                context.load_cert_chain(self.cert_path, self.key_path)
        return identity

    def remember(self, managers: list[str]) -> None:
        """Where managers are now."""
        if self.identity is not None and managers and managers != self.identity.managers:
            self._save(msgspec.structs.replace(self.identity, managers=managers))

    def forget(self) -> None:
        """Be in no swarm."""
        self.identity = self._server = self._client = None
        for path in (self._node_path, self._cluster_key_path, self.cert_path, self.key_path, self.ca_path):
            path.unlink(missing_ok=True)

    @property
    def key(self) -> str:
        return self.key_path.read_text()

    @property
    def cluster_key(self) -> bytes:
        """b"" on a worker."""
        return self._cluster_key_path.read_bytes() if self._cluster_key_path.exists() else b""

    def keep_cluster_key(self, key: bytes) -> None:
        """Managers only. b"" removes it."""
        if key:
            self._write(self._cluster_key_path, key)
        else:
            self._cluster_key_path.unlink(missing_ok=True)

    def server_context(self) -> ssl.SSLContext:
        """For port 2377. A certificate is asked for and, if shown, must be of this swarm; `/ca` needs none."""
        if self._server is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(self.ca_path)
            context.load_cert_chain(self.cert_path, self.key_path)
            context.verify_mode = ssl.CERT_OPTIONAL
            self._server = context
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """Towards other nodes. Give `server_hostname`: "swarm-manager" for any manager, or the very node's id."""
        if self._client is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(self.ca_path)
            context.load_cert_chain(self.cert_path, self.key_path)
            self._client = context
        return self._client

    def _take(self, identity: Identity, enrolment: Enrolment) -> Identity:
        self._write(self.cert_path, enrolment.certificate.encode())
        if enrolment.cluster_key or enrolment.role == Role.WORKER:
            self.keep_cluster_key(enrolment.cluster_key)
        identity = msgspec.structs.replace(
            identity, role=enrolment.role, issued=enrolment.issued, expires=enrolment.expires
        )
        self._save(identity)
        return identity

    def _save(self, identity: Identity) -> None:
        self._write(self._node_path, msgspec.json.format(msgspec.json.encode(identity)))
        self.identity = identity

    def _load(self) -> Identity | None:
        try:
            return msgspec.json.decode(self._node_path.read_bytes(), type=Identity)
        except FileNotFoundError:
            return None

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all, also when the power is cut."""
        temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
