"""Rotation of the root certificate, over real TLS: who can talk to whom at each step."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from afterswarm.agent.trust import csr
from afterswarm.agent.trust.diagnosis import Diagnosis
from afterswarm.agent.trust.enrol import join
from afterswarm.agent.trust.renewal import Renewal
from afterswarm.control import ca, founding, given
from afterswarm.control.keys import Keys
from afterswarm.core.cluster import rotation
from afterswarm.core.trust import roots
from afterswarm.core.trust.token import digest_of
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.base import Change
from afterswarm.model.cluster import CAConfig, SwarmSpec
from afterswarm.model.node import NodeReport
from afterswarm.model.refused import Refused

YEAR = 365 * 86_400.0


async def begin(manager, cert: str = "", key: str = "") -> None:
    cluster = manager.cache.snapshot().cluster
    made = Keys(lambda: manager.key, manager.clock.now).rotation(cluster, cert, key)
    await manager.cache.commit([Change(cluster, replace(cluster, rotation=made))])


async def renewed(manager, credentials) -> None:
    renewal = Renewal(credentials, manager.clock, lambda _: manager.client(credentials), lambda *_: None)
    assert await renewal.renew()
    await said(manager, credentials)


async def said(manager, credentials) -> None:
    """What its agent tells of it."""
    identity = credentials.identity
    old = manager.cache.snapshot().node_reports.get(identity.node_id)
    report = NodeReport(id=identity.node_id, address="127.0.0.1", trust=credentials.trust, issuer=identity.issuer)
    await manager.cache.commit([Change(old, report)])


async def step(manager) -> bool:
    plan = rotation.plan(manager.cache.snapshot(), "cluster")
    await manager.cache.commit(plan.changes)
    return bool(plan.changes)


async def talk(manager, *others) -> None:
    """Each can call the manager, and the manager's certificate is accepted by each."""
    for credentials in others:
        assert (await manager.client(credentials).request("GET", "/ca")).status == 200
        assert (await manager.client(credentials).request("POST", "/renew", body=b"{}")).status == 400


async def test_everybody_can_talk_at_every_step(manager) -> None:
    worker = await manager.enrolled("two", manager.cluster.tokens.worker)
    old = manager.cluster.ca_cert
    for credentials in (manager.credentials, worker):
        await said(manager, credentials)
    await begin(manager)
    cluster = manager.cache.snapshot().cluster
    assert cluster.tokens == manager.cluster.tokens
    assert roots.authority(cluster).root == old
    await talk(manager, worker)
    await renewed(manager, manager.credentials)  # the manager has a new certificate, the worker an old one
    await talk(manager, worker)
    assert not await step(manager)
    joined = await manager.enrolled("three", cluster.tokens.worker)  # with the old token, by the new root
    await said(manager, joined)
    assert joined.identity.issuer == digest_of(cluster.rotation.cert)
    await renewed(manager, worker)
    await talk(manager, worker, joined)
    assert await step(manager)
    cluster = manager.cache.snapshot().cluster
    new = cluster.ca_cert
    assert (cluster.rotation, len(cluster.former), new != old) == (None, 1, True)
    assert cluster.tokens.worker != manager.cluster.tokens.worker
    with pytest.raises(Refused, match="does not match fingerprint"):
        await join([f"127.0.0.1:{manager.port}"], manager.cluster.tokens.worker)
    await manager.enrolled("four", cluster.tokens.worker)
    assert manager.credentials.follow(new)  # the manager trusts only the new root, the workers only the old one
    await talk(manager, worker, joined)
    worker.follow(new)
    await talk(manager, worker, joined)
    assert not await step(manager)
    for credentials in (manager.credentials, worker):
        await said(manager, credentials)


async def test_a_node_that_was_off_for_two_rotations_that_waited_for_it(manager) -> None:
    """It trusts the first root, and gets its certificate of the second; the manager is at the third by then."""
    late = await manager.enrolled("two", manager.cluster.tokens.worker)
    for credentials in (manager.credentials, late):
        await said(manager, credentials)
    await begin(manager)
    for credentials in (manager.credentials, late):
        await renewed(manager, credentials)
    assert await step(manager)
    manager.credentials.follow(manager.cache.snapshot().cluster.ca_cert)
    await said(manager, manager.credentials)
    assert not await step(manager)  # it is not forgotten
    await begin(manager)
    await renewed(manager, manager.credentials)
    await talk(manager, late)
    await renewed(manager, late)
    assert await step(manager)
    for credentials in (manager.credentials, late):
        credentials.follow(manager.cache.snapshot().cluster.ca_cert)
        await said(manager, credentials)
    assert await step(manager)
    assert manager.cache.snapshot().cluster.former == []
    for credentials in (manager.credentials, late):
        await renewed(manager, credentials)
        assert credentials.cert_path.read_text().count("BEGIN CERTIFICATE") == 1
    await talk(manager, late)


async def test_who_was_removed_meanwhile_is_not_let_in(manager) -> None:
    gone = await manager.enrolled("two", manager.cluster.tokens.worker)
    await said(manager, manager.credentials)
    await manager.cache.commit([Change(manager.cache.snapshot().nodes[gone.identity.node_id], None)])
    await begin(manager)
    await renewed(manager, manager.credentials)
    assert await step(manager)
    manager.credentials.follow(manager.cache.snapshot().cluster.ca_cert)
    with pytest.raises(ConnectFailed):
        await manager.client(gone).request("POST", "/renew", body=b"{}")
    gone.remember([f"127.0.0.1:{manager.port}"])
    assert "join again" in await Diagnosis(gone, manager.clock).look()
    manager.credentials.remember([f"127.0.0.1:{manager.port}"])
    assert await Diagnosis(manager.credentials, manager.clock).look() == ""


def root(key=None, *, days: float = 4000, authority: bool = True, length: int | None = None) -> tuple[str, str]:
    """A certificate of the user's own, and its key."""
    import datetime as dt  # noqa: PLC0415
    import time  # noqa: PLC0415

    key = key or ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ours")])
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + dt.timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=length), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier(b"made in another way"), critical=False)
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    text = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, none).decode()
    return made.sign(key, hashes.SHA256()).public_bytes(pem).decode(), text


@pytest.mark.parametrize("kind", ["elliptic", "rsa"])
async def test_a_root_of_the_users_own(manager, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else None
    await said(manager, manager.credentials)
    old = await manager.enrolled("two", manager.cluster.tokens.worker)
    await begin(manager, *root(key))
    await renewed(manager, manager.credentials)
    await talk(manager, old)
    await renewed(manager, old)
    assert await step(manager)
    for credentials in (manager.credentials, old):
        credentials.follow(manager.cache.snapshot().cluster.ca_cert)
    await talk(manager, old)


def test_a_swarm_that_begins_with_a_root_of_the_users_own() -> None:
    import time  # noqa: PLC0415

    cert, key = root()
    config = CAConfig(signing_ca_cert=cert, signing_ca_key=key)
    made = founding.found(
        csr.generate().csr,
        address="10.0.0.1",
        spec=SwarmSpec(ca_config=config),
        pools=[],
        subnet_size=24,
        data_path_port=4789,
        now=time.time(),
    )
    assert (made.ca, made.cluster.ca_cert) == (cert, cert)
    assert made.cluster.spec == SwarmSpec()
    assert key.strip().splitlines()[1] not in made.cluster.ca_key


@pytest.mark.parametrize(
    ("given_root", "words"),
    [
        (lambda: ("nonsense", root()[1]), "could not parse the desired CA certificate"),
        (lambda: (root()[0] * 2, root()[1]), "cannot contain multiple certificates"),
        (lambda: (root()[0], root()[1]), "certificate key mismatch"),
        (lambda: (root()[0], "nonsense"), "malformed private key"),
        (lambda: root(days=300), "CA certificate expires too soon"),
        (lambda: root(authority=False), "may not sign certificates"),
        (lambda: root(length=0), "could never be replaced"),
        (lambda: root(rsa.generate_private_key(65537, 1024)), "RSA keys of 2048 bits"),  # noqa: S505
    ],
)
def test_roots_that_are_refused(given_root, words: str) -> None:
    import time  # noqa: PLC0415

    with pytest.raises(Refused, match=words) as refused:
        given.authority(*given_root(), time.time())
    assert refused.value.status == 400


def test_the_same_key_again_is_refused() -> None:
    made = ca.found(YEAR)
    assert ca.same_key(made.cert, ca.cross(made, made.cert))
    assert not ca.same_key(made.cert, ca.found(YEAR).cert)
