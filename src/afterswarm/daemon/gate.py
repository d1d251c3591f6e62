"""Port 2377: who may ask what of this host.

    anybody with or without a certificate     /ca, /join            (a manager answers)
    nodes of this swarm                       /renew, /session, /leave, /guest/… (a manager answers)
    managers of this swarm                    /member/…             (a manager answers)
                                              /engine/…             (every host: on to its engine)

A worker loads this file too, so it imports nothing heavy; what managers answer is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from afterswarm.core.trust.certificate import Holder, holder
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.http.message import Handler, Request, Response, Upgraded
from afterswarm.http.proxy import forward
from afterswarm.model.enrolment import ENGINE, TIME
from afterswarm.model.node import Role

OPEN = frozenset({"/ca", "/join"})

Routes = Mapping[tuple[str, str], Handler]  # (method, path) -> handler


def router(
    engine: Client,
    *,
    cluster_id: Callable[[], str],
    manager: Callable[[], Routes | None],
    trusted: Callable[[Holder], bool] = lambda _who: True,
    now: Callable[[], float] | None = None,
) -> Handler:
    """The handler of port 2377.

    `manager`: what this host answers as a manager, `None` while it is none. `trusted`: whether a holder of a manager's
    certificate still is one, as far as this host knows (a certificate outlives a demotion). `now` is put into each
    answer, so that others can compare clocks.
    """

    async def handle(request: Request) -> Response | Upgraded:
        answer = await choose(request)
        if isinstance(answer, Response) and now:
            answer.headers.append((TIME, f"{now():.3f}"))
        return answer

    async def choose(request: Request) -> Response | Upgraded:
        who = holder(request.peer.certificate) if request.peer else None
        if who is not None and who.cluster_id != cluster_id():
            who = None
        if request.path.startswith(f"{ENGINE}/"):
            if who is None or who.role != Role.MANAGER or not trusted(who):
                return Response.error(403, "only managers of this swarm may use this host's engine")
            return await _engine(request, engine)
        routes = manager()
        if routes is None:
            return Response.error(503, "rpc error: code = Unavailable desc = this node is not a swarm manager")
        handler = routes.get((request.method, request.path))
        if handler is None:
            return Response.error(404, "page not found")
        if request.path not in OPEN and who is None:
            return Response.error(403, "a certificate of this swarm is needed")
        if request.path.startswith("/member/") and (who is None or who.role != Role.MANAGER or not trusted(who)):
            return Response.error(403, "only managers of this swarm may ask this")
        return await handler(request)

    return handle


async def _engine(request: Request, engine: Client) -> Response | Upgraded:
    try:
        return await forward(request, engine, target=request.target.removeprefix(ENGINE))
    except ConnectFailed as error:
        return Response.error(503, f"the engine of this host cannot be reached: {error}")
