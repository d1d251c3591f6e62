"""The sections of `Wanted`, encoded: what sessions share is computed once, and only where a change touched it.

`core.wanted` decides what is in them. Here is only the bookkeeping: which services' routes to compute again, and
putting the encoded pieces together for one node.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from afterswarm.control.seal import Unreadable
from afterswarm.core import payloads, wanted
from afterswarm.core.floating import place
from afterswarm.core.payloads import Unseal, Used
from afterswarm.core.trust import pairs, roots
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network
from afterswarm.model.node import Node, NodeReport, NodeState
from afterswarm.model.secret import Config, Secret, payload_id
from afterswarm.model.service import Service
from afterswarm.model.session import PullAuth, SecretData
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


class _Route(msgspec.Struct, frozen=True):
    encoded: bytes
    networks: frozenset[str]
    everywhere: bool


class Board:
    """Give it every batch of changes (`take`), then `refresh`, then ask for `sections`. All of it is synchronous."""

    def __init__(self, unseal: Unseal) -> None:
        self._unseal = unseal
        self._routes: dict[str, _Route] = {}
        self._peers = b"[]"
        self._beat_key: tuple[str, bytes] = ("", b"")  # sealed, clear
        self._peer_ids: tuple[str, ...] = ()
        self._pairs: dict[str, bytes] = {}  # node id -> the keys of its beats, encoded
        self._data: dict[Used, tuple[int, bytes]] = {}  # rev of what holds it, encoded
        self._auths: dict[str, tuple[str, bytes]] = {}  # service id -> sealed, encoded
        self._services: dict[str, None] = {}  # whose route to compute again: services and guests
        self._nodes: dict[str, None] = {}  # whose own sections changed
        self._everyone = False
        self._peers_moved = False

    def take(self, snap: Snapshot, changes: Iterable[Change]) -> None:
        """Note what these changes touch."""
        for change in changes:
            match change.obj:
                case Task() | Report():
                    for obj in (change.old, change.new):
                        if isinstance(obj, Task | Report):
                            self._services[obj.service_id] = None
                            self._nodes[obj.node_id] = None
                case Service(id=service_id):
                    self._services[service_id] = None
                    if _pull_auth(change.old) != _pull_auth(change.new):
                        self._nodes.update((t.node_id, None) for t in snap.tasks_of(service_id))
                case Guest(id=guest_id, node_id=node_id):
                    self._services[guest_id] = None
                    self._nodes[node_id] = None
                case Node(id=node_id):
                    self._peers_moved = True
                    self._nodes[node_id] = None
                    if _down(change.old) != _down(change.new):
                        self._services.update((t.service_id, None) for t in snap.tasks_on(node_id))
                        self._services.update((g.id, None) for g in snap.guests.values() if g.node_id == node_id)
                case NodeReport(id=node_id):
                    self._peers_moved = True
                    if _dual(change.old) != _dual(change.new):
                        self._services.update((t.service_id, None) for t in snap.tasks_on(node_id))
                        self._services.update((g.id, None) for g in snap.guests.values() if g.node_id == node_id)
                case Secret() | Config() | Network() | Cluster():
                    self._everyone = True
                case _:
                    pass

    def refresh(self, snap: Snapshot) -> Iterable[str] | None:
        """Compute what was touched. Returns the nodes whose sections may differ now, `None` for all."""
        for service_id in self._services:
            old = self._routes.pop(service_id, None)
            new = _route(snap, service_id)
            if new is not None:
                self._routes[service_id] = new
            if old != self._routes.get(service_id):
                self._everyone = True
        if self._peers_moved:
            found = wanted.peers(snap)
            peers = _encode(found)
            self._everyone |= peers != self._peers
            self._peers = peers
            self._peer_ids = tuple(peer.node_id for peer in found)
            self._pairs = {}
        self._data = {used: kept for used, kept in self._data.items() if payloads.find(snap, used)}
        self._auths = {i: kept for i, kept in self._auths.items() if i in snap.services}
        touched = None if self._everyone else list(self._nodes)
        self._services, self._nodes = {}, {}
        self._everyone = self._peers_moved = False
        return touched

    def sections(self, snap: Snapshot, node_id: str) -> dict[str, bytes]:
        """Every section of this node's `Wanted` by its name in JSON, encoded."""
        own = wanted.placement(snap, node_id)
        routes = (
            route.encoded
            for _, route in sorted(self._routes.items())
            if route.everywhere or not route.networks.isdisjoint(own.network_ids)
        )
        return {
            "role": _encode(wanted.role(snap, node_id)),
            "peers": self._peers,
            "networks": _encode(wanted.networks(snap, own.network_ids)),
            "secrets": _array(self._payload(snap, used) for used in own.secrets),
            "configs": _array(self._payload(snap, used) for used in own.configs),
            "auths": _array(self._auth(snap.services[service_id]) for service_id in own.auths),
            "routes": _array(routes),
            "guests": _encode(own.guests),
            "floating": _encode(place.floating(snap, node_id)),
            "tasks": _encode(own.tasks),
            "beat_keys": self._beats(snap, node_id),
            "authority": _encode(roots.authority(snap.cluster)),
            "data_path_port": _encode(snap.cluster.data_path_port if snap.cluster else 0),
        }

    def _payload(self, snap: Snapshot, used: Used) -> bytes:
        holder = payloads.find(snap, used)
        rev, encoded = self._data.get(used, (-1, b""))
        if holder is None or rev == holder.rev:
            return encoded
        owner = snap.secrets.get(used[0]) or snap.configs[used[0]]
        try:
            data = payloads.clear(holder, self._unseal)
            driver = payloads.templating(holder)
            encoded = _encode(SecretData(id=payload_id(*used), name=owner.name, data=data, templating=driver))
        except Unreadable:
            log.error("%s cannot be opened with this swarm's key: its tasks will wait for it", owner.name)  # noqa: TRY400
            encoded = b""
        self._data[used] = (holder.rev, encoded)
        return encoded

    def _auth(self, service: Service) -> bytes:
        sealed, encoded = self._auths.get(service.id, ("", b""))
        if sealed != service.pull_auth:
            try:
                auth = self._unseal(service.id, service.pull_auth).decode()
                encoded = _encode(PullAuth(service_id=service.id, auth=auth))
            except Unreadable:
                log.error("%s: what it says to its registry cannot be opened with this swarm's key", service.name)  # noqa: TRY400
                encoded = b""
            self._auths[service.id] = (service.pull_auth, encoded)
        return encoded

    def _beats(self, snap: Snapshot, node_id: str) -> bytes:
        master = self._master(snap)
        if node_id not in self._pairs:
            keys = {peer: pairs.key(master, node_id, peer) for peer in self._peer_ids if peer != node_id}
            self._pairs[node_id] = _encode(keys if master else {})
        return self._pairs[node_id]

    def _master(self, snap: Snapshot) -> bytes:
        cluster = snap.cluster
        sealed = cluster.beat_key if cluster else ""
        if cluster and sealed != self._beat_key[0]:
            try:
                clear = self._unseal(f"{cluster.id}/beat-key", sealed)
            except Unreadable:
                log.error("the key of the beats cannot be opened with this swarm's key")  # noqa: TRY400
                clear = b""
            self._beat_key, self._pairs = (sealed, clear), {}
        return self._beat_key[1]


def _route(snap: Snapshot, key: str) -> _Route | None:
    """Of a service or a guest; `None` when it is no more."""
    if key in snap.services:
        service = snap.services[key]
        encoded = _encode(wanted.route(snap, service))
        return _Route(encoded, wanted.networks_of(snap, service), wanted.publishes(service))
    if key in snap.guests:
        guest = snap.guests[key]
        return _Route(_encode(wanted.guest_route(snap, guest)), frozenset({guest.attachment.network_id}), False)  # noqa: FBT003
    return None


def _array(encoded: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(e for e in encoded if e) + b"]"


def _pull_auth(obj: Obj | None) -> str:
    return obj.pull_auth if isinstance(obj, Service) else ""


def _dual(report: Obj | None) -> bool:
    return isinstance(report, NodeReport) and report.ipv6 is not None


def _down(obj: Obj | None) -> bool | None:
    return obj.state == NodeState.DOWN if isinstance(obj, Node) else None
