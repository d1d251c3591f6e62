"""Joining a swarm, from the side of the host that joins. Nothing is written to disk here.

The root certificate is fetched from somebody not yet trusted, compared with the digest in the token, and only then
does a second, verified connection carry the secret.
"""

from __future__ import annotations

import os
import ssl
from typing import TypeVar

import msgspec

from afterswarm.agent.trust import csr
from afterswarm.core.trust import token as tokens
from afterswarm.core.trust.certificate import UNIT
from afterswarm.http.client import Client, Reply
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.enrolment import Enrolment, JoinRequest, Root, split
from afterswarm.model.node import Availability, Role
from afterswarm.model.refused import Refused

MANAGER = UNIT[Role.MANAGER]  # the name that every manager's certificate has
_T = TypeVar("_T", Root, Enrolment)
ANOTHER_ROOT = 500  # the status of a refusal that says so
ANSWER = 10.0  # seconds for one answer
TIMED_OUT = (
    "Timeout was reached before node joined. The attempt to join the swarm was given up: nothing has changed on this "
    "node."
)


class Joined(msgspec.Struct, frozen=True):
    """What to hand to `Credentials.adopt`."""

    enrolment: Enrolment
    ca: str
    key: str


async def join(
    remotes: list[str],
    token: str,
    *,
    address: str = "",
    data_path: str = "",
    hostname: str = "",
    availability: Availability = Availability.ACTIVE,
) -> Joined:
    """Ask these managers ("host" or "host:port") in turn. Raises `Refused` in Docker's words.

    Without `address`, the manager takes the one it sees; it is in the answer.
    """
    parsed = tokens.parse(token)
    pair = await csr.make()
    request = JoinRequest(
        secret=parsed.secret,
        csr=pair.csr,
        address=address,
        data_path=data_path,
        hostname=hostname,
        availability=availability,
    )
    failure = Refused(400, "at least one remote address is needed to join")
    for remote in remotes:
        host, port = split(remote)
        try:
            ca = await root(host, port, parsed.digest)
            return Joined(enrolment=await _ask(host, port, ca, request), ca=ca, key=pair.key)
        except ConnectFailed as error:
            failure = _unreachable(host, port, error)
        except Refused as refused:
            if refused.status != 503:
                raise
            failure = refused
    raise failure


async def root(host: str, port: int, digest: str) -> str:
    """The root certificate there, if it is the one with this digest (the one that a token pins)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what matters is the digest of what comes
    client = Client.tcp(host, port, ssl=context)
    try:
        reply = await client.request("GET", "/ca", timeout=ANSWER)
    finally:
        client.close()
    ca = _decoded(reply, Root).certificate
    if tokens.digest_of(ca) != digest:
        raise Refused(ANOTHER_ROOT, f"remote CA does not match fingerprint. Expected: {digest}")
    return ca


async def _ask(host: str, port: int, ca: str, request: JoinRequest) -> Enrolment:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    client = Client.tcp(host, port, ssl=context, server_hostname=MANAGER)
    try:
        reply = await client.request("POST", "/join", body=msgspec.json.encode(request), timeout=ANSWER)
    finally:
        client.close()
    return _decoded(reply, Enrolment)


def _decoded(reply: Reply, kind: type[_T]) -> _T:
    if reply.status != 200:
        raise Refused(reply.status, reply.message)
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except msgspec.DecodeError as error:
        raise Refused(500, f"rpc error: code = Unknown desc = no answer of a manager: {error}") from error


def _unreachable(host: str, port: int, error: ConnectFailed) -> Refused:
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return Refused(503, TIMED_OUT)
    if isinstance(cause, ssl.SSLError):
        what = f"authentication handshake failed: {cause.reason or cause}"
    else:
        number = cause.errno if isinstance(cause, OSError) and cause.errno else 0
        words = os.strerror(number) if number > 0 else str(cause or error)
        what = f"transport: Error while dialing: dial tcp {host}:{port}: connect: {words.lower()}"
    return Refused(503, f'rpc error: code = Unavailable desc = connection error: desc = "{what}"')
