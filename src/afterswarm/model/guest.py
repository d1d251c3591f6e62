"""Guests: containers that no service stands for, in an overlay network (`docker run --network`).

Docker has a pseudo-task for each (runtime "attachment"). Here it is an object of its own, one per container and
network: nobody schedules or restarts it. It holds an address from before the container is made until it is removed.
"""

from __future__ import annotations

from afterswarm.model.base import Obj, Part
from afterswarm.model.network import Network
from afterswarm.model.task import Attachment


class Guest(Obj, frozen=True):
    """`node_id`, `name_servers` and the address are given when it is admitted, the rest is what its host last said."""

    node_id: str = ""
    attachment: Attachment = Attachment()
    name_servers: list[str] = []  # that the user gave it instead of the host's
    container_id: str = ""  # "": not made yet
    name: str = ""
    running: bool = False


class Wish(Part, frozen=True):
    """Body of `POST /guest/admit` on port 2377: a host asks for an address in a network."""

    network: str = ""  # name, id, or the beginning of an id
    named: str = ""  # as the user called it
    address: str = ""  # this one and no other
    address6: str = ""  # likewise; each says what the other is
    name_servers: list[str] = []


class Admission(Part, frozen=True, omit_defaults=False):
    """Its answer."""

    guest: Guest = Guest(id="")
    network: Network = Network(id="")


class Said(Part, frozen=True):
    """Body of `POST /guest/report`: what became of a host's guests."""

    changed: list[Guest] = []
    gone: list[str] = []
