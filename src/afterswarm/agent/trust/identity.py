"""What a node keeps of its membership.

Under the state directory (0700): `node.json`, `ca.pem`, `cert.pem`, `key.pem`, and on managers `cluster.key`. Each file
is replaced as a whole; `node.json` is written last and removed first, and a node without it is in no swarm. A renewed
certificate is for the same key, so that no moment exists in which the two do not fit.

With autolock, a manager has `locked.json` in place of the two keys: both sealed with the unlock key, which is on no
disk. While it works, the private key is a file in the run directory, which is a tmpfs.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import msgspec

from afterswarm.agent.trust.contexts import Contexts
from afterswarm.core.trust.token import digest_of
from afterswarm.model.enrolment import PORT, Enrolment, where
from afterswarm.model.node import Role


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is. Times are seconds since the epoch."""

    node_id: str
    cluster_id: str
    role: Role  # of the certificate
    address: str
    port: int = PORT  # for other hosts, at `address`
    listen: str = ""  # address and port that it is opened at; "": `port` at all addresses
    data_path: str = ""
    managers: list[str] = []  # where a manager was last known (see `enrolment.where`)
    issuer: str = ""  # digest of the root certificate that issued the node's
    issued: float = 0.0
    expires: float = 0.0

    @property
    def at(self) -> str:
        """Where other hosts reach this one."""
        return where(self.address, self.port)

    @property
    def renew_at(self) -> float:
        """When half of the certificate's life has passed."""
        return (self.issued + self.expires) / 2


class Sealed(msgspec.Struct, frozen=True):
    """`locked.json`: the keys of a manager with autolock."""

    version: str  # of the unlock key: as the swarm keeps it, sealed
    key: str
    cluster_key: str


class Credentials:
    """The files, and TLS contexts that always follow them.

    `run` is where a private key may lie that must not be on a disk; `None`: with the others (no autolock then).
    """

    def __init__(self, directory: Path, run: Path | None = None) -> None:
        self.directory = directory
        self.ca_path = directory / "ca.pem"
        self.cert_path = directory / "cert.pem"
        self.key_path = run / "key.pem" if run else directory / "key.pem"  # the one to work with
        self._kept_key_path = directory / "key.pem"
        self._node_path = directory / "node.json"
        self._cluster_key_path = directory / "cluster.key"
        self._sealed_path = directory / "locked.json"
        self._opened_cluster_key = b""
        self._contexts = Contexts(self)
        self.trust = digest_of(self.ca_path.read_text()) if self.ca_path.exists() else ""  # the root that counts
        self.identity: Identity | None = self._load()
        self.locked = self.identity is not None and self._sealed_path.exists()
        if self._parted:
            self.key_path.unlink(missing_ok=True)
            if self.identity and not self.locked:
                self._work_with(self._kept_key_path.read_text())

    def adopt(
        self,
        enrolment: Enrolment,
        *,
        ca: str,
        key: str,
        data_path: str = "",
        listen: str = "",
        port: int = PORT,
    ) -> Identity:
        """Become the node that a manager took in."""
        self.forget()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self._write(self.ca_path, ca.encode())
        self.trust = digest_of(ca)
        self._write(self._kept_key_path, key.encode())
        self._work_with(key)
        identity = Identity(
            node_id=enrolment.node_id,
            cluster_id=enrolment.cluster_id,
            role=enrolment.role,
            address=enrolment.address,
            port=port,
            listen=listen,
            data_path=data_path,
            managers=enrolment.managers,
        )
        return self._take(identity, enrolment)

    def renew(self, enrolment: Enrolment) -> Identity:
        """Use a new certificate for the same key from now on; new connections show it."""
        if self.identity is None:
            raise RuntimeError("this node is in no swarm")
        identity = self._take(self.identity, enrolment)
        self._contexts.outdated()
        return identity

    def remember(self, managers: list[str]) -> None:
        """Where managers are now."""
        if self.identity is not None and managers and managers != self.identity.managers:
            self._save(msgspec.structs.replace(self.identity, managers=managers))

    def move(self, address: str, data_path: str) -> None:
        """This node is alone, perhaps at another address: its certificate names the old one, and is to be renewed."""
        assert self.identity  # noqa: S101 - only a member moves
        at = where(address, self.identity.port)
        moved = msgspec.structs.replace(self.identity, address=address, data_path=data_path, managers=[at])
        if address != self.identity.address:
            moved = msgspec.structs.replace(moved, issued=0.0, expires=0.0)
        self._save(moved)

    def forget(self) -> None:
        """Be in no swarm."""
        self.identity = None
        self.locked = False
        self._opened_cluster_key = b""
        self.trust = ""
        self._contexts.outdated()
        own = (self.cert_path, self._kept_key_path, self.key_path, self.ca_path)
        for path in (self._node_path, self._sealed_path, self._cluster_key_path, *own):
            path.unlink(missing_ok=True)

    # ---- whom to trust -------------------------------------------------------------------------------------------

    def follow(self, root: str) -> bool:
        """Trust this root certificate (PEM) from now on and no other; whether that is news."""
        if not self.identity or not root or root == self.ca_path.read_text():
            return False
        ssl.create_default_context(cadata=root)  # raises ValueError or SSLError before anything is lost
        self._write(self.ca_path, root.encode())
        self.trust = digest_of(root)
        self._contexts.outdated()
        return True

    def server_context(self) -> ssl.SSLContext:
        """For port 2377. A certificate is asked for and, if shown, must be of this swarm; `/ca` needs none."""
        return self._contexts.server()

    def client_context(self) -> ssl.SSLContext:
        """Towards other nodes. Give `server_hostname`: "swarm-manager" for any manager, or the very node's id."""
        return self._contexts.client()

    # ---- keys ----------------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        return self.key_path.read_text()

    @property
    def cluster_key(self) -> bytes:
        """b"" on a worker."""
        if self._opened_cluster_key:
            return self._opened_cluster_key
        return self._cluster_key_path.read_bytes() if self._cluster_key_path.exists() else b""

    def keep_cluster_key(self, key: bytes) -> None:
        """Managers only. b"" removes it."""
        if self._sealed_path.exists():
            self._opened_cluster_key = key
        elif key:
            self._write(self._cluster_key_path, key)
        else:
            self._cluster_key_path.unlink(missing_ok=True)

    @property
    def sealed(self) -> Sealed | None:
        """What is kept in place of the keys; `None` without autolock."""
        try:
            return msgspec.json.decode(self._sealed_path.read_bytes(), type=Sealed)
        except FileNotFoundError:
            return None

    def seal(self, sealed: Sealed) -> None:
        """Keep the keys only like this. They stay at hand until the process ends."""
        if not self._parted:
            raise RuntimeError("there is no place for a key but on the disk")
        self._opened_cluster_key = self.cluster_key
        self._write(self._sealed_path, msgspec.json.encode(sealed))
        for path in (self._kept_key_path, self._cluster_key_path):
            path.unlink(missing_ok=True)

    def unlock(self, key: str, cluster_key: bytes) -> None:
        """Somebody had the unlock key: these are what was sealed."""
        self._work_with(key)
        self._opened_cluster_key = cluster_key
        self.locked = False
        for path in (self._kept_key_path, self._cluster_key_path):  # of a power cut while they were sealed
            path.unlink(missing_ok=True)

    def unseal(self) -> None:
        """Autolock has ended: keep the keys as they are."""
        cluster_key = self.cluster_key
        self._write(self._kept_key_path, self.key.encode())
        if cluster_key:
            self._write(self._cluster_key_path, cluster_key)
        self._sealed_path.unlink(missing_ok=True)

    # ---- files ---------------------------------------------------------------------------------------------------

    @property
    def _parted(self) -> bool:
        return self.key_path != self._kept_key_path

    def _work_with(self, key: str) -> None:
        if self._parted:
            self.key_path.parent.mkdir(parents=True, exist_ok=True)
            self._write(self.key_path, key.encode())

    def _take(self, identity: Identity, enrolment: Enrolment) -> Identity:
        self._write(self.cert_path, enrolment.certificate.encode())
        if enrolment.role == Role.WORKER and self._sealed_path.exists():
            self._opened_cluster_key = b""
            self.unseal()
        if enrolment.cluster_key or enrolment.role == Role.WORKER:
            self.keep_cluster_key(enrolment.cluster_key)
        identity = msgspec.structs.replace(
            identity,
            role=enrolment.role,
            issuer=enrolment.issuer,
            issued=enrolment.issued,
            expires=enrolment.expires,
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
