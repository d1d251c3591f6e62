"""Where local volumes lie, so that a database is never started on the empty disk of another host."""

from __future__ import annotations

from afterswarm.model.base import Obj


class Volume(Obj, frozen=True):
    """Volume `name` of slot `slot` of the service named `service` lies on `node_id`.

    id = ids.derive("volume", name, service, slot). Named by service *name*, not id: removing and deploying a stack
    again finds its data. Written by the scheduler with the assignment; goes with the node.
    """

    name: str = ""
    service: str = ""
    slot: int = 0
    node_id: str = ""
