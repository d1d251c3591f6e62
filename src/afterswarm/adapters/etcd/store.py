"""The store on etcd. Objects are JSON under /afterswarm/<kind>/<id>, guards empty keys under /afterswarm/guard/<name>.

A commit is one etcd transaction that compares revisions; there are no leases and no locks. Nothing is tried again
here: whoever planned a commit plans it again from what it sees then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, suppress
from itertools import groupby

import msgspec

from afterswarm.adapters.etcd.gateway import Header, call, result
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.base import Change, Obj
from afterswarm.model.snapshot import KIND_OF, KINDS
from afterswarm.ports import Batch, Compacted, Conflict, Fenced, Unavailable

ROOT = b"/afterswarm/"
GUARDS = ROOT + b"guard/"
SWEPT = ROOT + b"swept"  # moves when all guards are forgotten
LEADER = ROOT + b"leader/leader"
EVERY_KEY = b"\0"
PAGE = 1_000  # objects asked for at a time
COMMITTING = 1.0  # seconds; short, since what was on its way to a leader that died is never answered
QUIET = 2.0  # seconds without an event until the quorum is asked whether there is none

log = logging.getLogger(__name__)

_DECODERS = {kind: msgspec.json.Decoder(cls) for kind, cls in KINDS.items()}


class _KV(msgspec.Struct, frozen=True):
    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0


class _Event(msgspec.Struct, frozen=True):
    kv: _KV
    type: str = "PUT"
    prev_kv: _KV | None = None


class _Watched(msgspec.Struct, frozen=True):
    header: Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    events: list[_Event] = []


class _Found(msgspec.Struct, frozen=True):
    header: Header
    kvs: list[_KV] = []
    more: bool = False
    count: int = 0


class _Response(msgspec.Struct, frozen=True):
    response_range: _Found | None = None


class _Committed(msgspec.Struct, frozen=True):
    header: Header
    succeeded: bool = False
    responses: list[_Response] = []


class EtcdStore:
    """Implements `ports.Store` through the gateway of the local member."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def load(self) -> tuple[int, list[Obj]]:
        rev, objects = 0, []
        for start, end in ((ROOT, GUARDS), (_after(GUARDS), _after(ROOT))):
            more = True
            while more:
                # The first page says of which revision all others are.
                asked = {"key": start, "range_end": end, "limit": str(PAGE), "revision": str(rev)}
                found = await call(self._client, "/v3/kv/range", asked, _Found)
                rev = rev or found.header.revision
                objects += [obj for kv in found.kvs if (obj := _object(kv))]
                more = found.more
                if found.kvs:
                    start = found.kvs[-1].key + b"\0"  # noqa: PLW2901 - the next page
        return rev, objects

    async def watch(self, after: int) -> AsyncIterator[Batch]:
        """First an empty batch, once the watch stands and the quorum has answered."""
        create = {
            "key": EVERY_KEY,
            "range_end": EVERY_KEY,
            "start_revision": str(after + 1),
            "prev_kv": True,
        }
        body = msgspec.json.encode({"create_request": create})
        headers = [("Grpc-Metadata-hasleader", "true")]  # a member that has no leader ends the watch
        seen = known = after
        try:
            async with (
                self._client.stream("POST", "/v3/watch", headers=headers, body=body) as reply,
                aclosing(_lines(reply.lines(), QUIET)) as lines,
            ):
                async for line in lines:
                    if not line:
                        if seen < known:
                            raise Unavailable("the watch misses events")
                        known = await self._revision(seen)
                        continue
                    watched = result(line, _Watched)
                    if watched.compact_revision:
                        raise Compacted
                    if watched.canceled:
                        raise Unavailable("the watch was cancelled")
                    if watched.created:
                        await self._revision(seen)
                        yield Batch(after, [])
                    for rev, events in groupby(watched.events, key=lambda event: event.kv.mod_revision):
                        yield Batch(rev, list(_changes(events)))
                        seen = rev
        except ConnectFailed as error:
            raise Unavailable(str(error)) from error
        raise Unavailable("the watch ended")

    async def _revision(self, seen: int) -> int:
        """The store's revision, as the quorum knows it. A watch alone does not show that there is still a quorum."""
        found = await call(self._client, "/v3/kv/range", {"key": LEADER, "keys_only": True}, _Found)
        if found.header.revision < seen:
            raise Compacted  # restored from a copy: what was seen is no longer true
        return found.header.revision

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        seen: int,
        guards: Collection[str] = (),
        reads: Collection[str] = (),
        fence: int | None = None,
    ) -> int:
        keys = {_key(change.obj): change for change in changes}
        if len(keys) != len(changes):
            raise ValueError("a commit changes an object once")
        compare = [_is(key, change.old.rev if change.old else 0) for key, change in keys.items()]
        compare += [_not_after(_guard(name), seen) for name in sorted({*guards, *reads})]
        compare += [_not_after(SWEPT, seen)] if guards or reads else []
        compare += [_is(LEADER, fence)] if fence is not None else []
        success = [_write(key, change.new) for key, change in keys.items()]
        success += [_put(_guard(name), b"") for name in sorted(set(guards))]
        who_leads: dict[str, object] = {"request_range": {"key": LEADER, "keys_only": True}}
        # A transaction that writes nothing reads, or etcd would answer it without asking the quorum.
        body = {"compare": compare, "success": success or [who_leads], "failure": [who_leads]}
        done = await call(self._client, "/v3/kv/txn", body, _Committed, COMMITTING)
        if done.succeeded:
            return done.header.revision
        if fence is not None and fence not in _revisions(done):
            raise Fenced
        raise Conflict(done.header.revision)

    async def sweep(self, most: int) -> bool:
        every = {"key": GUARDS, "range_end": _after(GUARDS)}
        if (await call(self._client, "/v3/kv/range", {**every, "count_only": True}, _Found)).count <= most:
            return False
        forget = [{"request_delete_range": every}, _put(SWEPT, b"")]
        await call(self._client, "/v3/kv/txn", {"success": forget}, _Committed)
        return True


async def _lines(lines: AsyncIterator[bytes], quiet: float) -> AsyncGenerator[bytes, None]:
    """The lines, and an empty one whenever none has come for `quiet` seconds. The one awaited meanwhile is not lost."""
    following = asyncio.ensure_future(_next(lines))
    try:
        while True:
            done, _ = await asyncio.wait([following], timeout=quiet)
            if not done:
                yield b""
            elif (line := following.result()) is not None:
                following = asyncio.ensure_future(_next(lines))
                yield line
            else:
                return
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError, ConnectFailed):
            await following


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    return await anext(lines, None)


def _key(obj: Obj) -> bytes:
    return ROOT + f"{KIND_OF[type(obj)]}/{obj.id}".encode()


def _guard(name: str) -> bytes:
    return GUARDS + name.encode()


def _after(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _is(key: bytes, rev: int) -> dict[str, object]:
    """Revision 0: there is no such key."""
    return {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(rev)}


def _not_after(key: bytes, rev: int) -> dict[str, object]:
    return {"key": key, "target": "MOD", "result": "LESS", "mod_revision": str(rev + 1)}


def _put(key: bytes, value: bytes) -> dict[str, object]:
    return {"request_put": {"key": key, "value": value}}


def _write(key: bytes, new: Obj | None) -> dict[str, object]:
    if new is None:
        return {"request_delete_range": {"key": key}}
    return _put(key, msgspec.json.encode(msgspec.structs.replace(new, rev=0)))


def _revisions(done: _Committed) -> list[int]:
    return [kv.mod_revision for r in done.responses if r.response_range for kv in r.response_range.kvs]


def _object(kv: _KV | None) -> Obj | None:
    """`None` for what is no object, and for one of a version to come that this one cannot read."""
    kind, _, _ = kv.key.removeprefix(ROOT).decode(errors="replace").partition("/") if kv else ("", "", "")
    if kv is None or not kv.key.startswith(ROOT) or kind not in _DECODERS:
        return None
    try:
        return msgspec.structs.replace(_DECODERS[kind].decode(kv.value), rev=kv.mod_revision)
    except msgspec.DecodeError:
        log.exception("%s cannot be read", kv.key.decode(errors="replace"))
        return None


def _changes(events: Iterable[_Event]) -> Iterable[Change]:
    for event in events:
        if event.prev_kv is None and (event.type == "DELETE" or event.kv.create_revision != event.kv.mod_revision):
            raise Compacted  # what was there before is no longer kept
        old, new = _object(event.prev_kv), _object(event.kv) if event.type == "PUT" else None
        if old or new:
            yield Change(old, new)
