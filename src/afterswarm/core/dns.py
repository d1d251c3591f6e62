"""Names of services and tasks -> addresses, as one container may see them.

A container sees the names of the networks it is in and of no other. In the first of its networks that knows a name:

    web, and its aliases      the service's virtual address; in mode dnsrr the addresses of its ready tasks
    tasks.web                 the addresses of its ready tasks, always
    web.1.<task id>, web.1    one task, whatever it is doing (of several in a slot a ready one)
    <hostname>                the ready tasks whose containers are called so, or whose id begins so

Names that nobody here has are not ours to deny: upstream may know them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network

import msgspec

from afterswarm.core.dataplane.targets import choose
from afterswarm.model.network import Network
from afterswarm.model.session import Route, Target
from afterswarm.model.task import Task, TaskState

A, PTR, AAAA, ANY = 1, 12, 28, 255  # RFC 1035, RFC 3596
_REVERSE = ".in-addr.arpa"


class Answer(msgspec.Struct, frozen=True):
    """`kind` is A or PTR. Nothing in `values`: the name exists but has no such record; not `exists`: NXDOMAIN."""

    kind: int = A
    values: tuple[str, ...] = ()
    exists: bool = True


class Asker(msgspec.Struct, frozen=True):
    """Who asks: the networks it is in, and the nameservers that its service gave it instead of the host's."""

    networks: tuple[str, ...]
    nameservers: tuple[str, ...] = ()


class Zone(msgspec.Struct, frozen=True):
    """Everything a host can answer, by network id. Build with `Zone.of`."""

    subnets: Mapping[str, IPv4Network] = {}
    names: Mapping[str, Mapping[str, tuple[str, ...]]] = {}  # network -> name -> addresses
    owners: Mapping[str, Mapping[str, str]] = {}  # network -> address -> name
    askers: Mapping[str, Asker] = {}  # address of a task of this host -> itself

    @staticmethod
    def of(
        *, networks: Iterable[Network], routes: Iterable[Route], tasks: Iterable[Task], silent: Collection[str] = ()
    ) -> Zone:
        """What these say. The order of objects does not matter; `silent` as in `dataplane.targets`."""
        ours = sorted((n for n in networks if n.subnet), key=lambda n: n.id)
        # Of two services with one name, one is being removed: it has nothing ready. Guests do not take a service's.
        routes = sorted(routes, key=lambda r: (r.guest, not any(t.ready for t in r.targets), r.service_id))
        named = [n.id for n in ours if not n.spec.ingress]
        names = {network_id: _names(routes, network_id, silent) for network_id in named}
        return Zone(
            subnets={n.id: IPv4Network(n.subnet) for n in ours},
            names=names,
            owners={network_id: _owners(routes, network_id) for network_id in named},
            askers=_askers(tasks),
        )

    def asker(self, address: str) -> Asker | None:
        """Who has this address: a task of this host, somebody else in one of its networks, or a stranger (`None`)."""
        known = self.askers.get(address)
        if known is not None:
            return known
        networks = tuple(n for n, subnet in self.subnets.items() if IPv4Address(address) in subnet)
        return Asker(networks) if networks else None

    def answer(self, asker: Asker, name: str, kind: int) -> Answer | None:
        """`None`: nothing is known of this name."""
        name = name.lower().removesuffix(".")
        if name.endswith(_REVERSE):
            return self._reverse(asker, name, kind)
        for network_id in asker.networks:
            addresses = self.names.get(network_id, {}).get(name)
            if addresses is not None:
                return Answer(A, addresses if kind in (A, ANY) else ())
        return None

    def _reverse(self, asker: Asker, name: str, kind: int) -> Answer | None:
        try:
            address = IPv4Address(".".join(reversed(name.removesuffix(_REVERSE).split("."))))
        except AddressValueError:
            return None
        for network_id in asker.networks:
            owner = self.owners.get(network_id, {}).get(str(address))
            if owner is not None:
                return Answer(PTR, (owner,) if kind in (PTR, ANY) else ())
        inside = any(address in subnet for subnet in self.subnets.values())
        return Answer(PTR, exists=False) if inside else None  # nobody upstream knows our addresses


def _names(routes: list[Route], network_id: str, silent: Collection[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    tasks: dict[str, tuple[str, ...]] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    for route in routes:
        here = [t for t in route.targets if t.addresses.get(network_id)]
        vip = route.vips.get(network_id, "")
        if not vip and not here:
            continue
        ready = _addresses(choose(here, network_id, ()), network_id)
        heard = _addresses(choose(here, network_id, silent), network_id)
        addresses = heard if route.mode == "dnsrr" else (vip,) if vip else ()
        if addresses or route.mode == "dnsrr":
            found.setdefault(route.name.lower(), addresses)
        tasks.setdefault(f"tasks.{route.name}".lower(), ready)
        for alias in route.aliases.get(network_id, []):
            aliases[alias.lower()] = aliases.get(alias.lower(), ()) + addresses  # several services may share one
            tasks[f"tasks.{alias}".lower()] = (*tasks.get(f"tasks.{alias}".lower(), ()), *ready)
        for target in sorted(here, key=lambda t: (t.ready, t.draining, t.task_id)):  # a ready one is the last word
            for name in (target.name, target.name.removesuffix(f".{target.task_id}")):
                tasks[name.lower()] = (target.addresses[network_id],)
            for name in target.hostnames if target.ready else ():
                aliases[name.lower()] = (*aliases.get(name.lower(), ()), target.addresses[network_id])
    merged = {**aliases, **tasks, **found}
    merged.pop("", None)
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in merged.items()}


def _owners(routes: list[Route], network_id: str) -> dict[str, str]:
    vips = {route.vips[network_id]: route.name for route in routes if network_id in route.vips}
    tasks = {t.addresses[network_id]: t.name for route in routes for t in route.targets if network_id in t.addresses}
    return {address: name for address, name in {**vips, **tasks}.items() if name}


def _addresses(targets: list[Target], network_id: str) -> tuple[str, ...]:
    return tuple(t.addresses[network_id] for t in targets)


def _askers(tasks: Iterable[Task]) -> dict[str, Asker]:
    found = {}
    for task in sorted(tasks, key=lambda t: (t.desired <= TaskState.COMPLETE, t.id)):  # of two, the one that goes on
        spec = task.spec.container_spec
        config = spec.dns_config if spec else None
        asker = Asker(
            networks=tuple(a.network_id for a in task.attachments),
            nameservers=tuple(config.nameservers) if config else (),
        )
        found.update({a.address.partition("/")[0]: asker for a in task.attachments})
    return found
