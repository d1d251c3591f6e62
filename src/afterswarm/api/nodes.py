"""`/nodes`: list, inspect, update (labels, availability, role), remove."""

from __future__ import annotations

from afterswarm.api import decode, filters, lookup, trust
from afterswarm.api.host import Host
from afterswarm.api.views import render
from afterswarm.api.write import check_version, replica_of, settle, snapshot_of
from afterswarm.core.admit import node as admit
from afterswarm.http.message import Request, Response
from afterswarm.model.base import Change
from afterswarm.model.enrolment import PORT
from afterswarm.model.node import Availability, Description, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json

FILTERS = frozenset({"id", "label", "membership", "name", "node.label", "role"})
_REACHABILITY = {NodeState.READY: "reachable", NodeState.UNKNOWN: "unknown"}


async def listing(host: Host, request: Request) -> Response:
    snap = snapshot_of(host)
    wanted = filters.parse(request, FILTERS)
    roles = filters.one_of(wanted, "role", Role, lambda v: f"Invalid role filter: '{v}'")
    memberships = filters.one_of(
        wanted, "membership", ("accepted", "pending"), lambda v: f"Invalid membership filter: '{v}'"
    )
    if memberships == {"pending"}:  # whoever has the token is accepted
        return Response.json([])
    found = []
    for key in sorted(snap.nodes):
        node = snap.nodes[key]
        report = snap.node_reports.get(key)
        if (
            filters.prefixed(wanted, "id", node.id)
            and filters.prefixed(wanted, "name", lookup.hostname(snap, node))
            and filters.labelled(wanted, "label", report.description.engine.labels if report else {})
            and filters.labelled(wanted, "node.label", node.spec.labels)
            and (not roles or node.spec.role in roles)
        ):
            found.append(rendered(snap, node))
    return Response.json(found)


async def inspect(host: Host, _request: Request, id: str) -> Response:  # noqa: A002 - the route's word
    snap = snapshot_of(host)
    return Response.json(rendered(snap, lookup.node(snap, id, me=host.node_id)))


async def update(host: Host, request: Request, id: str) -> Response:  # noqa: A002
    replica = replica_of(host)
    version = decode.version(request, "node")
    spec = _spec(await decode.raw(request, NodeSpec))

    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        node = lookup.node(snap, id, me=host.node_id)
        check_version(node, version)
        return [Change(node, admit.update(snap, node, spec))], None

    await settle(replica, decide)
    return Response(200)


async def remove(host: Host, request: Request, id: str) -> Response:  # noqa: A002
    def decide(snap: Snapshot) -> tuple[list[Change], None]:
        node = lookup.node(snap, id, me=host.node_id)
        return admit.remove(snap, node, force=request.flag("force")), None

    await settle(replica_of(host), decide)
    return Response(200)


def _spec(body: Json) -> NodeSpec:
    """Role and availability have to be said, and are named when they are wrong."""
    for field, choices in (("Role", Role), ("Availability", Availability)):
        value = body.get(field, "")
        if value not in list(choices):
            raise Refused(400, f'invalid {field}: "{value}"')
    return decode.convert(body, NodeSpec)


def rendered(snap: Snapshot, node: Node) -> Json:
    report = snap.node_reports.get(node.id)
    cluster = snap.cluster
    shown = {
        **render.base(node),
        "Spec": {"Labels": {}, **render.plain(node.spec)},
        "Description": _description(report.description if report else Description()),
        "Status": _status(node, report),
    }
    if not node.spec.name:
        shown["Spec"].pop("Name", None)
    if cluster and cluster.ca_cert:
        shown["Description"]["TLSInfo"] = trust.of_node(cluster, report)
    if node.role == Role.MANAGER:
        shown["ManagerStatus"] = _manager_status(snap, node, report)
    return shown


def _description(description: Description) -> Json:
    shown = render.plain(description)
    for part in ("Platform", "Resources", "Engine"):
        shown.setdefault(part, {})
    return {"Hostname": "", **shown}


def _status(node: Node, report: NodeReport | None) -> Json:
    status: Json = {"State": node.state.value, "Addr": report.address if report else ""}
    if node.message:
        status["Message"] = node.message
    return status


def _manager_status(snap: Snapshot, node: Node, report: NodeReport | None) -> Json:
    status: Json = {"Reachability": _REACHABILITY.get(node.state, "unreachable")}
    if snap.leader and snap.leader.node_id == node.id and node.state != NodeState.DOWN:
        status["Leader"] = True
    if report and report.address:
        status["Addr"] = f"{report.address}:{report.port or PORT}"
    return status


ROUTES = [
    ("GET", "/nodes", listing),
    ("GET", "/nodes/{id}", inspect),
    ("POST", "/nodes/{id}/update", update),
    ("DELETE", "/nodes/{id}", remove),
]
