"""Floating addresses: what managers tell a host of them, and what hosts and managers say to each other about one.

The second kind travels as datagrams ten times a second (`agent.floating`). `asked` is a moment on the asking host's own
clock, which nobody else reads: it comes back in the vote, and says how old the vote is.
"""

from __future__ import annotations

import msgspec

from afterswarm.model.base import Part

LABEL = "afterswarm.floating-address"  # of the swarm: the addresses; of a node: NEVER
NEVER = "never"


class Floating(Part, frozen=True):
    """What one host is to know. `addresses` are as the label has them."""

    addresses: list[str] = []
    barred: bool = False  # this host is to hold none
    last: bool = False  # this host holds one only when no other can


class Letter(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of what is said about one address."""

    address: str


class Ask(Letter, frozen=True):
    """Host to manager: give me your vote. Or good-bye, when not `willing`: I do not have the address any more."""

    boot: str  # one run of the daemon
    asked: float
    again: float = 1.0  # seconds until it asks next
    willing: bool = True
    holding: bool = False
    last: bool = False


class Vote(Letter, frozen=True):
    """Manager to host: until `core.floating.PROMISE` from now I vote for nobody else."""

    boot: str
    asked: float
    electorate: str  # names the set of managers that votes
    size: int


class Call(Letter, frozen=True):
    """Manager to host: it is your turn, ask."""


class Choice(Letter, frozen=True):
    """Manager to manager, while it does not see that a host has the address: whom it would vote for."""

    node: str


Letters = Ask | Vote | Call | Choice


class Whereabouts(Part, frozen=True, omit_defaults=False):
    """One address as a host knows it. Answer of `GET /afterswarm/addresses`, which is ours and not Docker's."""

    address: str
    here: str  # "held", "ready", or why not
    holder: str  # hostname, as far as it is known here
