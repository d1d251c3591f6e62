"""Names of services and tasks -> addresses, as the containers of one host may see them.

A container sees the names of the networks it is in and of no other. In the first of its networks that knows a name:

    web, and its aliases      the service's virtual addresses; in mode dnsrr the addresses of its ready tasks
    tasks.web                 the addresses of its ready tasks, always
    web.1.<task id>, web.1    one task, whatever it is doing (of several in a slot a ready one)
    <hostname>                the ready tasks whose containers are called so, or whose id begins so
    _http._tcp.<any of these but the last>   where its port `http` is, for each of the addresses' owners
    <any of these>.<network>  the same, in that network alone

Names that nobody here has are not ours to deny: upstream may know them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from afterswarm.core.dataplane.targets import choose
from afterswarm.model.network import Network
from afterswarm.model.session import Route, Target
from afterswarm.model.task import Task, TaskState

Addresses = tuple[str, ...]
Offer = tuple[int, str, Addresses]  # port, whose, its addresses


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """One network."""

    name: str
    subnets: tuple[str, ...] = ()
    internal: bool = False
    names: Mapping[str, Addresses] = {}
    ports: Mapping[str, tuple[Offer, ...]] = {}  # "_http._tcp.web"
    owners: Mapping[str, str] = {}  # address -> name


class Asker(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container: its networks, the nameservers it was given instead of the host's, whether it has a way out."""

    networks: tuple[str, ...]
    nameservers: tuple[str, ...] = ()
    outside: bool = True


class Zone(msgspec.Struct, frozen=True):
    """Everything a host can answer. Build with `Zone.of`; `lookup.Book` reads it."""

    networks: Mapping[str, Section] = {}  # by id
    askers: Mapping[str, Asker] = {}  # by address of a container of this host

    @staticmethod
    def of(
        *,
        networks: Iterable[Network],
        routes: Iterable[Route],
        tasks: Iterable[Task],
        silent: Collection[str] = (),
        outward: Collection[str] = (),
    ) -> Zone:
        """What these say. The order of objects does not matter; `silent` as in `dataplane.targets`.

        `outward`: ids of tasks whose containers are in other networks too, which the swarm does not know.
        """
        known = {n.id: n for n in sorted(networks, key=lambda n: n.id)}
        # Of two services with one name, one is being removed: it has nothing ready. Guests do not take a service's.
        routes = sorted(routes, key=lambda r: (r.guest, not any(t.ready for t in r.targets), r.service_id))
        return Zone(
            networks={n.id: _section(n, routes, silent) for n in known.values() if n.subnet},
            askers=_askers(tasks, known, outward),
        )


def _section(network: Network, routes: list[Route], silent: Collection[str]) -> Section:
    subnets = tuple(s for s in (network.subnet, network.subnet6) if s)
    if network.spec.ingress:
        return Section(name=network.name, subnets=subnets)
    names, ports = _names(routes, network, silent)
    return Section(
        name=network.name,
        subnets=subnets,
        internal=network.spec.internal,
        names=names,
        ports=ports,
        owners=_owners(routes, network),
    )


class _Names:
    """Names of one rank: of two ranks that have a name, the higher one's counts."""

    def __init__(self) -> None:
        self.addresses: dict[str, Addresses] = {}
        self.ports: dict[str, dict[str, tuple[Offer, ...]]] = {}  # name -> "_http._tcp" -> …

    def add(self, name: str, addresses: Addresses, ports: Mapping[str, tuple[Offer, ...]]) -> None:
        """Several may share it."""
        name = name.lower()
        self.addresses[name] = (*self.addresses.get(name, ()), *addresses)
        here = self.ports.setdefault(name, {})
        for label, offers in ports.items():
            here[label] = (*here.get(label, ()), *offers)

    def put(self, name: str, addresses: Addresses, ports: Mapping[str, tuple[Offer, ...]]) -> None:
        """It is this one's alone."""
        self.addresses[name.lower()] = addresses
        self.ports[name.lower()] = dict(ports)


def _names(
    routes: list[Route], at: Network, silent: Collection[str]
) -> tuple[dict[str, Addresses], dict[str, tuple[Offer, ...]]]:
    services, tasks, aliases = _Names(), _Names(), _Names()
    for route in routes:
        here = [t for t in route.targets if _addresses(t, at)]
        vips = _vips(route, at)
        if not vips and not here:
            continue
        ready = choose(here, at.id, ())
        heard = choose(here, at.id, silent)
        addresses = _all(heard, at) if route.mode == "dnsrr" else vips
        whose = [(t.name, _addresses(t, at)) for t in heard] if route.mode == "dnsrr" else [(route.name, vips)]
        ports = _ports(route, whose if addresses else [])
        each = _ports(route, [(t.name, _addresses(t, at)) for t in ready])
        if (addresses or route.mode == "dnsrr") and route.name.lower() not in services.addresses:
            services.put(route.name, addresses, ports)
        if f"tasks.{route.name}".lower() not in tasks.addresses:
            tasks.put(f"tasks.{route.name}", _all(ready, at), each)
        for alias in route.aliases.get(at.id, []):
            aliases.add(alias, addresses, ports)
            tasks.add(f"tasks.{alias}", _all(ready, at), each)
        for target in sorted(here, key=lambda t: (t.ready, t.draining, t.task_id)):  # a ready one is the last word
            own = _addresses(target, at)
            for name in (target.name, target.name.removesuffix(f".{target.task_id}")):
                tasks.put(name, own, _ports(route, [(target.name, own)]))
            for name in target.hostnames if target.ready else ():
                aliases.add(name, own, {})
    return _merged(aliases, tasks, services)


def _merged(*ranks: _Names) -> tuple[dict[str, Addresses], dict[str, tuple[Offer, ...]]]:
    names: dict[str, Addresses] = {}
    ports: dict[str, dict[str, tuple[Offer, ...]]] = {}
    for rank in ranks:
        names.update(rank.addresses)
        ports.update(rank.ports)
    names.pop("", None)
    return (
        {name: tuple(dict.fromkeys(addresses)) for name, addresses in names.items()},
        {
            f"{label}.{name}": tuple(dict.fromkeys(offers))
            for name in names
            for label, offers in ports.get(name, {}).items()
        },
    )


def _ports(route: Route, whose: Iterable[tuple[str, Addresses]]) -> dict[str, tuple[Offer, ...]]:
    if not route.named_ports:
        return {}
    owners = list(whose)
    return {
        label: tuple((number, name, addresses) for name, addresses in owners for number in numbers)
        for label, numbers in route.named_ports.items()
    }


def _owners(routes: list[Route], at: Network) -> dict[str, str]:
    vips = {address: route.name for route in routes for address in _vips(route, at)}
    tasks = {address: t.name for route in routes for t in route.targets for address in _addresses(t, at)}
    return {address: name for address, name in {**vips, **tasks}.items() if name}


def _vips(route: Route, at: Network) -> Addresses:
    return _both(at, route.vips, route.vips6)


def _addresses(target: Target, at: Network) -> Addresses:
    return _both(at, target.addresses, target.addresses6)


def _both(at: Network, four: Mapping[str, str], six: Mapping[str, str]) -> Addresses:
    """IPv6 as far as this host has it in this network."""
    return tuple(a for a in (four.get(at.id, ""), six.get(at.id, "") if at.subnet6 else "") if a)


def _all(targets: Iterable[Target], at: Network) -> Addresses:
    return tuple(address for t in targets for address in _addresses(t, at))


def _askers(tasks: Iterable[Task], networks: Mapping[str, Network], outward: Collection[str]) -> dict[str, Asker]:
    found = {}
    for task in sorted(tasks, key=lambda t: (t.desired <= TaskState.COMPLETE, t.id)):  # of two, the one that goes on
        spec = task.spec.container_spec
        config = spec.dns_config if spec else None
        here = [networks[a.network_id] for a in task.attachments if a.network_id in networks]
        asked_for = [n for n in here if not n.spec.ingress]
        asker = Asker(
            networks=tuple(a.network_id for a in task.attachments),
            nameservers=tuple(config.nameservers) if config else (),
            outside=not asked_for or any(not n.spec.internal for n in asked_for) or task.id in outward,
        )
        found.update({a.address.partition("/")[0]: asker for a in task.attachments if a.address})
    return found
