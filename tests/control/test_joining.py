"""Joining over real TLS: who gets in, who does not, and that a stranger never sees a secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from afterswarm.agent.trust import csr
from afterswarm.agent.trust.enrol import join
from afterswarm.agent.trust.identity import Credentials, Identity
from afterswarm.agent.trust.renewal import Renewal
from afterswarm.control import ca, founding
from afterswarm.core.trust import token
from afterswarm.core.trust.certificate import holder
from afterswarm.http.errors import ConnectFailed
from afterswarm.http.message import Request, Response
from afterswarm.http.server import serve_tcp
from afterswarm.model.base import Change
from afterswarm.model.cluster import JoinTokens
from afterswarm.model.enrolment import Root, split, where
from afterswarm.model.node import Availability, NodeState, Role
from afterswarm.model.refused import Refused


async def test_a_worker_joins(manager) -> None:
    joined = await join(
        [f"127.0.0.1:{manager.port}"], manager.cluster.tokens.worker, hostname="two", availability=Availability.PAUSE
    )
    answer = joined.enrolment
    assert (answer.role, answer.cluster_id, answer.address) == (Role.WORKER, manager.cluster.id, "127.0.0.1")
    assert answer.managers == ["127.0.0.1"]
    assert answer.cluster_key == b""
    node = manager.cache.snapshot().nodes[answer.node_id]
    assert (node.spec.role, node.role, node.state) == (Role.WORKER, Role.WORKER, NodeState.UNKNOWN)
    assert node.spec.availability == Availability.PAUSE


async def test_a_manager_to_be_gets_the_cluster_key_and_is_a_worker_until_it_votes(manager) -> None:
    credentials = await manager.enrolled("two", manager.cluster.tokens.manager)
    assert credentials.identity.role == Role.MANAGER
    assert credentials.cluster_key == manager.key
    node = manager.cache.snapshot().nodes[credentials.identity.node_id]
    assert (node.spec.role, node.role) == (Role.MANAGER, Role.WORKER)


async def test_a_wrong_secret_is_refused_in_docker_s_words_and_changes_nothing(manager, tmp_path) -> None:
    wrong = token.text_of(manager.cluster.ca_cert, bytes(16))
    before = manager.store.rev
    with pytest.raises(Refused, match="A valid join token is necessary to join this cluster") as refused:
        await join([f"127.0.0.1:{manager.port}"], wrong)
    assert refused.value.status == 400
    assert manager.store.rev == before
    assert {p.name for p in tmp_path.iterdir()} == {"first", "engine.sock"}


async def test_a_rotated_token_is_refused(manager) -> None:
    old = manager.cluster.tokens
    stored = manager.cache.snapshot().cluster
    new = JoinTokens(worker=founding.new_token(stored.ca_cert), manager=old.manager)
    await manager.cache.commit([Change(stored, replace(stored, tokens=new))])
    with pytest.raises(Refused, match="A valid join token"):
        await join([f"127.0.0.1:{manager.port}"], old.worker)
    await join([f"127.0.0.1:{manager.port}"], new.worker)
    await join([f"127.0.0.1:{manager.port}"], old.manager)


async def test_a_stranger_in_the_manager_s_place_never_sees_the_secret(manager, tmp_path: Path) -> None:
    """It even presents the true root certificate: it cannot prove to hold a certificate of it."""
    authority = ca.found(manager.clock.now())
    pair = csr.generate()
    certificate = ca.issue(
        authority,
        pair.csr,
        node_id="evil",
        cluster_id="x",
        role=Role.MANAGER,
        addresses=[],
        now=manager.clock.now(),
        lifetime=9999,
    )
    evil = Credentials(tmp_path / "evil")
    evil.adopt(
        founding.Enrolment(node_id="evil", role=Role.MANAGER, certificate=certificate), ca=authority.cert, key=pair.key
    )
    heard: list[tuple[str, bytes]] = []
    shown = authority.cert

    async def listen(request: Request) -> Response:
        heard.append((request.path, await request.read()))
        return Response.json(Root(certificate=shown))

    async with serve_tcp("127.0.0.1", 0, listen, ssl=evil.server_context()) as port:
        text = manager.cluster.tokens.worker
        with pytest.raises(Refused, match=r"remote CA does not match fingerprint\. Expected: ") as refused:
            await join([f"127.0.0.1:{port}"], text)
        assert token.parse(text).digest in str(refused.value)
        shown = manager.cluster.ca_cert
        with pytest.raises(Refused, match="authentication handshake failed"):
            await join([f"127.0.0.1:{port}"], text)
    assert heard == [("/ca", b""), ("/ca", b"")]


async def test_a_worker_does_not_pass_for_a_manager(manager) -> None:
    """A worker's certificate is of the right root; its owner still gets no secret and no session."""
    worker = await manager.enrolled("two", manager.cluster.tokens.worker)
    heard: list[str] = []

    async def listen(request: Request) -> Response:
        heard.append(request.path)
        return Response.json(Root(certificate=manager.cluster.ca_cert))

    async with serve_tcp("127.0.0.1", 0, listen, ssl=worker.server_context()) as port:
        with pytest.raises(Refused, match="authentication handshake failed"):
            await join([f"127.0.0.1:{port}"], manager.cluster.tokens.worker)
    assert heard == ["/ca"]


async def test_unreachable_addresses(manager) -> None:
    async with serve_tcp("127.0.0.1", 0, manager.handler()) as port:
        pass
    with pytest.raises(Refused, match=r"code = Unavailable .*connect: connection refused") as refused:
        await join([f"127.0.0.1:{port}"], manager.cluster.tokens.worker)
    assert refused.value.status == 503
    joined = await join([f"127.0.0.1:{port}", f"127.0.0.1:{manager.port}"], manager.cluster.tokens.worker)
    assert joined.enrolment.node_id in manager.cache.snapshot().nodes


async def test_a_store_without_a_quorum_lets_nobody_in(manager) -> None:
    manager.view.cut()
    with pytest.raises(Refused, match="does not have a leader") as refused:
        await join([f"127.0.0.1:{manager.port}"], manager.cluster.tokens.worker)
    assert refused.value.status == 503


async def test_a_host_that_is_no_manager_says_so(manager) -> None:
    manager.is_manager = False
    with pytest.raises(Refused, match="not a swarm manager"):
        await join([f"127.0.0.1:{manager.port}"], manager.cluster.tokens.worker)


def test_addresses_with_and_without_ports() -> None:
    assert split("10.0.0.1") == ("10.0.0.1", 2377)
    assert split("10.0.0.1:99") == ("10.0.0.1", 99)
    assert split("[fd00::1]:99") == ("fd00::1", 99)
    assert split("fd00::1") == ("fd00::1", 2377)
    for address, port in (("10.0.0.1", 2377), ("10.0.0.1", 99), ("fd00::1", 2377), ("fd00::1", 99)):
        assert split(where(address, port)) == (address, port)
    assert where("10.0.0.1", 2377) == "10.0.0.1"


async def test_what_a_node_keeps(manager, tmp_path: Path) -> None:
    credentials = await manager.enrolled("two", manager.cluster.tokens.manager)
    identity = credentials.identity
    again = Credentials(tmp_path / "two")
    assert again.identity == identity
    assert identity.renew_at == pytest.approx(manager.clock.now() + 45 * 86_400, abs=60)
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "two").iterdir()} == {0o600}
    again.remember(["10.0.0.9"])
    assert Credentials(tmp_path / "two").identity.managers == ["10.0.0.9"]
    again.forget()
    assert Credentials(tmp_path / "two").identity is None
    assert list((tmp_path / "two").iterdir()) == []


async def test_renewal_follows_the_role_and_keeps_the_key(manager) -> None:
    credentials = await manager.enrolled("two", manager.cluster.tokens.worker)
    key, old = credentials.key, credentials.cert_path.read_text()
    changed: list[Identity] = []
    renewal = Renewal(
        credentials, manager.clock, lambda _: manager.client(credentials), lambda new, _old: changed.append(new)
    )
    assert (await renewal.renew()).role == Role.WORKER
    node = manager.cache.snapshot().nodes[credentials.identity.node_id]
    await manager.cache.commit([Change(node, replace(node, spec=replace(node.spec, role=Role.MANAGER)))])
    assert (await renewal.renew()).role == Role.MANAGER
    assert credentials.key == key
    assert credentials.cert_path.read_text() != old
    # Contexts made before the renewal show the new certificate.
    assert (await manager.client(credentials).request("GET", "/engine/info")).status == 200
    credentials.keep_cluster_key(b"key")
    node = manager.cache.snapshot().nodes[node.id]
    await manager.cache.commit([Change(node, replace(node, spec=replace(node.spec, role=Role.WORKER)))])
    assert (await renewal.renew()).role == Role.WORKER
    assert credentials.cluster_key == b""  # a worker has no business with it
    await manager.cache.commit([Change(manager.cache.snapshot().nodes[node.id], None)])
    assert await renewal.renew() is None


async def test_who_may_ask_what(manager) -> None:
    manager.routes[("POST", "/member/add")] = _answer
    worker = await manager.enrolled("two", manager.cluster.tokens.worker)
    other = await manager.enrolled("three", manager.cluster.tokens.manager)

    async def status(credentials: Credentials, method: str, target: str) -> int:
        return (await manager.client(credentials).request(method, target)).status

    assert await status(worker, "GET", "/engine/info") == 403
    assert await status(worker, "POST", "/member/add") == 403
    assert await status(worker, "GET", "/nothing") == 404
    assert await status(other, "POST", "/member/add") == 200
    reply = await manager.client(other).request("GET", "/engine/v1.41/info?a=b")
    assert reply.json() == {"asked": "/v1.41/info?a=b"}
    manager.is_manager = False
    assert await status(other, "GET", "/engine/info") == 200
    assert await status(other, "POST", "/member/add") == 503


async def test_a_certificate_of_another_swarm_does_not_connect(manager, tmp_path: Path) -> None:
    stranger = type(manager)(tmp_path / "stranger")
    await stranger.found(manager.clock.now())
    with pytest.raises(ConnectFailed):
        await manager.client(stranger.credentials).request("GET", "/ca")


def test_certificates_that_name_no_node_have_no_holder() -> None:
    assert holder(None) is None
    assert holder({}) is None
    assert holder({"subject": ((("commonName", "x"),), (("organizationalUnitName", "other"),))}) is None


async def _answer(_request: Request) -> Response:
    return Response.json({})


@pytest.mark.parametrize("body", [b"{", b'{"token":"\xa3"}', b'{"a":' * 10_000], ids=["cut off", "no text", "too deep"])
async def test_a_request_that_cannot_be_read_is_refused(manager, body: bytes) -> None:
    answer = await manager.joining.join(Request("POST", "/join", [], body))
    assert answer.status == 400
