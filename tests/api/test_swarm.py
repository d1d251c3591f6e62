"""`/swarm`: what a host says in each of its states."""

from __future__ import annotations

import datetime as dt
import re
from base64 import b64encode
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from afterswarm.api.host import InitRequest, JoinRequest, LocalInfo
from afterswarm.api.trust import tls_info
from afterswarm.model.cluster import Cluster, Orchestration
from afterswarm.model.refused import Refused

ALREADY = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
ROUTES = [
    ("GET", "/swarm"),
    ("POST", "/swarm/update?version=1"),
    ("GET", "/swarm/unlockkey"),
    ("GET", "/nodes"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET", "/tasks"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET", "/configs"),
    ("DELETE", "/configs/x"),
]


def version(api: Any) -> int:
    return int(api.stored(Cluster)[0].rev)


@pytest.mark.parametrize(("method", "target"), ROUTES)
async def test_outside_a_swarm(api: Any, method: str, target: str) -> None:
    api.host.become(LocalInfo())
    words = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    assert await api.fails(method, target, {}) == (503, words + "to swarm and try again.")


@pytest.mark.parametrize(("method", "target"), ROUTES)
async def test_on_a_worker(api: Any, method: str, target: str) -> None:
    api.host.become(LocalInfo(state="active"), "three")
    words = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    words += "Please run this command on a manager node or promote the current node to a manager."
    assert await api.fails(method, target, {}) == (503, words)


async def test_on_a_manager_that_is_not_there_yet(api: Any) -> None:
    api.host.become(LocalInfo(state="active", control_available=True), "one")
    assert "Manager is being prepared" in (await api.fails("GET", "/nodes"))[1]


async def test_init(api: Any) -> None:
    api.host.become(LocalInfo())
    body = {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.77.0.1", "Availability": "active", "SubnetSize": 24}
    spec = {"Labels": None, "Orchestration": {}, "Raft": {}, "CAConfig": {}, "EncryptionConfig": {}}
    answer = await api.ok("POST", "/v1.41/swarm/init", {**body, "Spec": spec, "DefaultAddrPool": None})
    assert answer == "one" + "0" * 22
    (request,) = api.host.calls
    assert isinstance(request, InitRequest)
    assert (request.advertise_addr, request.spec.name) == ("10.77.0.1", "default")


async def test_a_second_init_or_join_changes_nothing(api: Any) -> None:
    assert await api.fails("POST", "/swarm/init", {}) == (503, ALREADY)
    assert await api.fails("POST", "/swarm/join", {"RemoteAddrs": ["x"]}) == (503, ALREADY)
    assert api.host.calls == []


async def test_what_init_refuses(api: Any) -> None:
    api.host.become(LocalInfo())
    assert (await api.fails("POST", "/swarm/init", {"DataPathPort": 80}))[0] == 400
    assert api.host.calls == []


async def test_join(api: Any) -> None:
    api.host.become(LocalInfo())
    assert (await api.fails("POST", "/swarm/join", {"JoinToken": "t"}))[0] == 400
    await api.ok("POST", "/swarm/join", {"JoinToken": "t", "RemoteAddrs": ["10.77.0.1:2377"]})
    (request,) = api.host.calls
    assert isinstance(request, JoinRequest)
    api.host.refusal = Refused(503, "Timeout was reached before node joined.")
    assert await api.fails("POST", "/swarm/join", {"JoinToken": "t", "RemoteAddrs": ["x"]}) == (
        503,
        "Timeout was reached before node joined.",
    )


async def test_leaving(api: Any) -> None:
    status, message = await api.fails("POST", "/swarm/leave")
    assert status == 503
    assert "leaves 1 managers out of 2" in message
    assert api.host.calls == []
    await api.ok("POST", "/swarm/leave?force=1")
    assert api.host.calls == [("leave", True)]


async def test_a_worker_just_leaves(api: Any) -> None:
    api.host.become(LocalInfo(state="active"), "three")
    await api.ok("POST", "/swarm/leave?force=0")
    assert api.host.calls == [("leave", False)]
    api.host.become(LocalInfo())
    assert await api.fails("POST", "/swarm/leave") == (503, "This node is not part of a swarm")


async def test_inspect(api: Any) -> None:
    shown = await api.ok("GET", "/swarm")
    assert shown["JoinTokens"] == {"Worker": "SWMTKN-w", "Manager": "SWMTKN-m"}
    assert shown["Spec"] == {
        "Name": "default",
        "Labels": {},
        "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {
            "SnapshotInterval": 10000,
            "KeepOldSnapshots": 0,
            "LogEntriesForSlowFollowers": 500,
            "ElectionTick": 10,
            "HeartbeatTick": 1,
        },
        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000, "ForceRotate": 0},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": False},
    }
    assert (shown["DefaultAddrPool"], shown["SubnetSize"], shown["DataPathPort"]) == (["10.0.0.0/8"], 24, 4789)
    assert shown["RootRotationInProgress"] is False


async def test_update_keeps_what_is_not_said(api: Any) -> None:
    cluster = api.stored(Cluster)[0]
    await api.write(replace(cluster, spec=replace(cluster.spec, labels={"old": "1"})))
    body = {"Name": "default", "Orchestration": {"TaskHistoryRetentionLimit": 2}}
    await api.ok("POST", f"/swarm/update?version={version(api)}", body)
    spec = api.stored(Cluster)[0].spec
    assert spec.orchestration == Orchestration(task_history_retention_limit=2)
    assert (spec.labels, spec.raft.snapshot_interval) == ({"old": "1"}, 10_000)
    await api.ok("POST", f"/swarm/update?version={version(api)}", {"Name": "default", "Labels": {"new": "2"}})
    assert api.stored(Cluster)[0].spec.labels == {"new": "2"}


async def test_tokens_are_rotated(api: Any) -> None:
    target = f"/swarm/update?version={version(api)}&rotateWorkerToken=true&rotateManagerToken=false"
    await api.ok("POST", target, (await api.ok("GET", "/swarm"))["Spec"])
    rotated = (await api.ok("GET", "/swarm"))["JoinTokens"]
    assert re.fullmatch(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", rotated["Worker"])
    assert rotated["Manager"] == "SWMTKN-m"
    before = version(api)
    status, message = await api.fails("POST", f"/swarm/update?version={before - 1}&rotateWorkerToken=true", {})
    assert (status, message) == (500, "rpc error: code = Unknown desc = update out of sequence")
    assert (await api.ok("GET", "/swarm"))["JoinTokens"] == rotated


async def test_autolock(api: Any) -> None:
    assert await api.ok("GET", "/swarm/unlockkey") == {"UnlockKey": ""}
    assert await api.fails("POST", "/swarm/unlock", {"UnlockKey": "x"}) == (409, "swarm is not locked")
    on = {"EncryptionConfig": {"AutoLockManagers": True}}
    await api.ok("POST", f"/swarm/update?version={version(api)}", on)
    first = (await api.ok("GET", "/swarm/unlockkey"))["UnlockKey"]
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", first)
    await api.ok("POST", f"/swarm/update?version={version(api)}", on)
    assert (await api.ok("GET", "/swarm/unlockkey"))["UnlockKey"] == first
    await api.ok("POST", f"/swarm/update?version={version(api)}&rotateManagerUnlockKey=true", on)
    assert (await api.ok("GET", "/swarm/unlockkey"))["UnlockKey"] not in ("", first)
    await api.ok("POST", f"/swarm/update?version={version(api)}", {"EncryptionConfig": {"AutoLockManagers": False}})
    assert await api.ok("GET", "/swarm/unlockkey") == {"UnlockKey": ""}


async def test_a_locked_manager(api: Any) -> None:
    api.host.become(LocalInfo(state="locked", manager=True), "one")
    words = "Swarm is encrypted and needs to be unlocked before it can be used. "
    words += 'Please use "docker swarm unlock" to unlock it.'
    for method, target in ROUTES:
        assert await api.fails(method, target, {}) == (503, words)
    assert "locked. Please unlock it first or use `--force`" in (await api.fails("POST", "/swarm/leave"))[1]
    await api.ok("POST", "/swarm/unlock", {"UnlockKey": "SWMKEY-1-x"})
    assert api.host.calls == [("unlock", "SWMKEY-1-x")]


def test_whom_the_swarm_trusts() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    certificate = made.sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    shown = tls_info(pem, pem)
    assert shown["TrustRoot"] == pem
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert shown["CertIssuerPublicKey"] == b64(public)
    assert shown["CertIssuerSubject"] == b64(name.public_bytes())
    assert tls_info("", "") == {}


def b64(data: bytes) -> str:
    return b64encode(data).decode()
