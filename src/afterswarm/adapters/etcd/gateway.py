"""Calls to the local etcd member through its JSON gateway (etcd 3.4: `/v3/…`).

In its JSON, bytes are base64 and 64-bit integers are strings; msgspec reads both. No `Accept` header is sent: etcd
logs a warning for every request that has one.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.refused import Refused
from afterswarm.ports import Unavailable

TIMEOUT = 2.0  # seconds; an answer takes milliseconds, an election about one second

# gRPC's codes that say "not now": cancelled, unknown (etcd has no code for "raft proposal dropped", which comes while
# its lead changes hands, nor for "server stopped"), deadline exceeded, out of space or too many requests, internal (its
# gateway says so of a stream that ends because etcd does), unavailable.
NOT_NOW = {1, 2, 4, 8, 13, 14}

Answer = TypeVar("Answer", bound=msgspec.Struct)


class Header(msgspec.Struct, frozen=True):
    """Heads every answer."""

    revision: int = 0
    member_id: int = 0


class Problem(msgspec.Struct, frozen=True):
    """An error: an answer of its own, or (the second pair) a line of a stream."""

    message: str = ""
    code: int = 0
    grpc_code: int = 0
    http_code: int = 500

    def error(self, status: int = 0) -> Exception:
        if (self.code or self.grpc_code) in NOT_NOW:
            return Unavailable(self.message)
        return Refused(status or self.http_code, self.message)


class _Line(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: Problem | None = None


async def call(client: Client, target: str, body: object, answer: type[Answer], timeout: float = TIMEOUT) -> Answer:
    """POST and decode. Raises `Unavailable` when there is no answer or no quorum, `Refused` in etcd's words."""
    try:
        reply = await client.request("POST", target, body=msgspec.json.encode(body), timeout=timeout)
    except ConnectFailed as error:
        raise Unavailable(str(error)) from error
    try:
        if reply.status == 200:
            return msgspec.json.decode(reply.body, type=answer, strict=False)
        raise msgspec.json.decode(reply.body, type=Problem, strict=False).error(reply.status)
    except msgspec.DecodeError as error:
        raise Unavailable(f"{client.where} answered {reply.status}: {reply.body[:200]!r}") from error


def result(line: bytes, answer: type[Answer]) -> Answer:
    """One line of a stream. Raises as `call` does."""
    try:
        found: Any = msgspec.json.decode(line, type=_Line, strict=False)
        if found.error:
            raise found.error.error()
        return msgspec.json.decode(found.result, type=answer, strict=False)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the store's stream broke off: {line[:200]!r}") from error
