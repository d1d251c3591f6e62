"""What to change between the links that are there and those that should be: the shortest way, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from afterswarm.core.dataplane.vxlan import EVERYBODY, Link
from afterswarm.model.repair import FDB, LINKS, Difference


class Delete(msgspec.Struct, frozen=True):
    name: str


class Create(msgspec.Struct, frozen=True):
    """A new device, on its bridge and up; its forwarding entries follow as `Learn`."""

    link: Link


class Adjust(msgspec.Struct, frozen=True):
    """Bring MTU, bridge, state and the bridge's own address of an existing device to these."""

    link: Link


class Learn(msgspec.Struct, frozen=True):
    name: str
    mac: str
    host: str


class Unlearn(msgspec.Struct, frozen=True):
    name: str
    mac: str
    host: str


Step = Delete | Create | Adjust | Learn | Unlearn


def steps(actual: Iterable[Link], wanted: Iterable[Link]) -> list[Step]:
    """Deletions first (a VXLAN id can be used once), then each wanted link. Nothing when all is right.

    A moved forwarding entry is taken away before it is added: the driver holds one host per unicast address.
    """
    there = {link.name: link for link in actual}
    goal = {link.name: link for link in sorted(wanted, key=lambda link: link.name)}
    kept = {name for name, link in goal.items() if name in there and _identity(there[name]) == _identity(link)}
    found: list[Step] = [Delete(name) for name in sorted(there) if name not in kept]
    for name, link in goal.items():
        before: set[tuple[str, str]] = set()
        if name not in kept:
            found.append(Create(link))
        else:
            before = set(there[name].fdb)
            if _adjustable(there[name]) != _adjustable(link):
                found.append(Adjust(link))
        after = set(link.fdb)
        found += [Unlearn(name, mac, host) for mac, host in sorted(before - after)]
        found += [Learn(name, mac, host) for mac, host in sorted(after - before)]
    return found


def told(steps: Sequence[Step]) -> list[Difference]:
    """What was not as it should be, where it needs these steps. Of a new device it goes without saying."""
    new = {step.link.name for step in steps if isinstance(step, Create)}
    return [_told(s) for s in steps if not (isinstance(s, Delete | Learn | Unlearn) and s.name in new)]


def _told(step: Step) -> Difference:
    match step:
        case Delete(name):
            return Difference(LINKS, f"{name} was there")
        case Create(link):
            return Difference(LINKS, f"{link.name} was gone, or another")
        case Adjust(link):
            return Difference(LINKS, f"{link.name} on {link.bridge} had other settings")
        case Learn(name, mac, host):
            return Difference(FDB, f"{name} did not know {_who(mac)} at {host}")
        case Unlearn(name, mac, host):
            return Difference(FDB, f"{name} had {_who(mac)} at {host}")


def _who(mac: str) -> str:
    return "everybody" if mac == EVERYBODY else mac


def _identity(link: Link) -> tuple[int, str, str, int]:
    """What a VXLAN device is born with."""
    return link.vni, link.local, link.via, link.port


def _adjustable(link: Link) -> tuple[str, str, int]:
    return link.bridge, link.bridge_mac, link.mtu
