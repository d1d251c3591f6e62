"""Names as containers see them."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.dns.lookup import AAAA, ANY, PTR, SRV, A, Answer, Asker, Book, Record
from afterswarm.core.dns.zone import Zone
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.service import ContainerSpec, DNSConfig, TaskSpec
from afterswarm.model.session import Route, Target
from afterswarm.model.task import Attachment, Task, TaskState


def network(name: str, number: int, *, ingress: bool = False, internal: bool = False) -> Network:
    spec = NetworkSpec(name=name, ingress=ingress, internal=internal)
    return Network(id=name, spec=spec, subnet=f"10.0.{number}.0/24", gateways={"n1": f"10.0.{number}.254"})


NETWORKS = [network("ingress", 0, ingress=True), network("backend", 1), network("monitoring", 2)]


def target(name: str, slot: int, address: str, *, node: str = "n1", ready: bool = True) -> Target:
    task_id = f"{name}{slot}id"
    return Target(
        task_id=task_id,
        node_id=node,
        name=f"{name}.{slot}.{task_id}",
        slot=slot,
        addresses={"backend": f"10.0.1.{address}"},
        ready=ready,
    )


APP = Route(
    service_id="s-app",
    name="clinic_app",
    vips={"backend": "10.0.1.2"},
    aliases={"backend": ["app"]},
    targets=[
        target("clinic_app", 1, "11"),
        target("clinic_app", 2, "12", node="n2"),
        target("clinic_app", 3, "13", ready=False),
    ],
)
EXPORTER = Route(
    service_id="s-exp",
    name="exporter",
    mode="dnsrr",
    targets=[target("exporter", 1, "21"), target("exporter", 2, "22", node="n2")],
)
GRAFANA = Route(service_id="s-gra", name="grafana", vips={"monitoring": "10.0.2.2"})
ROUTES = [APP, EXPORTER, GRAFANA]
TASK = Task(
    id="asker",
    attachments=[
        Attachment(network_id="backend", address="10.0.1.50/24"),
        Attachment(network_id="ingress", address="10.0.0.50/24"),
    ],
)


def zone(*routes: Route, silent: tuple[str, ...] = (), tasks: tuple[Task, ...] = (TASK,)) -> Zone:
    return Zone.of(networks=NETWORKS, routes=routes or ROUTES, tasks=tasks, silent=silent)


def book(of: Zone | None = None) -> Book:
    """As it gets to the resolver."""
    made, said = Book(), msgspec.json.decode(msgspec.json.encode(of or zone()))
    made.take(said["networks"], said["askers"], None)
    return made


def ask(name: str, kind: int = A, *, source: str = "10.0.1.50", of: Zone | None = None) -> Answer | None:
    found = book(of)
    asker = found.asker(source)
    assert asker is not None
    return found.answer(asker, name, kind)


def says(*addresses: str) -> Answer:
    return Answer(tuple(Record(A, address) for address in addresses))


def is_called(*names: str) -> Answer:
    return Answer(tuple(Record(PTR, name) for name in names))


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("clinic_app", ("10.0.1.2",)),
        ("app", ("10.0.1.2",)),
        ("App.", ("10.0.1.2",)),
        ("tasks.clinic_app", ("10.0.1.11", "10.0.1.12")),
        ("tasks.app", ("10.0.1.11", "10.0.1.12")),
        ("exporter", ("10.0.1.21", "10.0.1.22")),
        ("clinic_app.2.clinic_app2id", ("10.0.1.12",)),
        ("clinic_app.2", ("10.0.1.12",)),
        ("clinic_app.3", ("10.0.1.13",)),
    ],
)
def test_names(name: str, addresses: tuple[str, ...]) -> None:
    assert ask(name) == says(*addresses)


def test_hostnames() -> None:
    def named(number: int, *hostnames: str, ready: bool = True) -> Target:
        name, addresses = f"db.{number}.t{number}", {"backend": f"10.0.1.{number}"}
        return Target(task_id=f"t{number}", name=name, hostnames=list(hostnames), addresses=addresses, ready=ready)

    of = zone(
        Route(
            service_id="s",
            name="db",
            vips={"backend": "10.0.1.9"},
            targets=[named(30, "Store", "abc"), named(31, "store", "db"), named(32, "store", "gone", ready=False)],
        )
    )
    assert ask("store", of=of) == says("10.0.1.30", "10.0.1.31")
    assert ask("abc", of=of) == says("10.0.1.30")
    assert ask("db", of=of) == says("10.0.1.9"), "the service's name is the service's"
    assert ask("gone", of=of) is None


def test_a_guest_does_not_take_a_services_name() -> None:
    def one(key: str, address: str, *, guest: bool) -> Route:
        target = Target(task_id=key, name="app", addresses={"backend": address}, ready=guest)
        return Route(service_id=key, name="app", mode="dnsrr", guest=guest, targets=[target])

    of = zone(one("a", "10.0.1.40", guest=True), one("b", "10.0.1.41", guest=False))
    assert ask("tasks.app", of=of) == Answer()


@pytest.mark.parametrize("name", ["grafana", "example.org", "clinic_app.9", "", ".", "tasks.", "clinic"])
def test_names_that_are_not_ours_to_deny(name: str) -> None:
    assert ask(name) is None


def test_networks_do_not_see_each_other() -> None:
    assert ask("grafana", source="10.0.2.77") == says("10.0.2.2")
    assert ask("app", source="10.0.2.77") is None
    assert ask("app", source="10.0.0.77") is None  # the ingress network knows no names


def test_a_task_asks_for_all_its_networks_through_any() -> None:
    assert ask("app", source="10.0.0.50") == says("10.0.1.2")


def test_there_are_no_addresses_of_version_6_and_we_say_so() -> None:
    assert ask("app", AAAA) == Answer()
    assert ask("app", ANY) == says("10.0.1.2")


def test_strangers() -> None:
    assert book().asker("192.0.2.1") is None


def test_who_listens_to_a_silent_host_is_not_told_of_it() -> None:
    deaf = zone(silent=("n2",))
    assert ask("exporter", of=deaf) == says("10.0.1.21")
    assert ask("tasks.exporter", of=deaf) == says("10.0.1.21", "10.0.1.22")
    assert ask("exporter", of=zone(silent=("n1", "n2"))) == says("10.0.1.21", "10.0.1.22")


def test_a_service_with_nobody_ready_keeps_its_name() -> None:
    idle = replace(EXPORTER, targets=[target("exporter", 1, "21", ready=False)])
    assert ask("exporter", of=zone(idle)) == Answer()
    assert ask("clinic_app", of=zone(replace(APP, targets=[]))) == says("10.0.1.2")


def test_a_service_that_is_going_does_not_hide_its_successor() -> None:
    going = replace(
        APP, service_id="s-0", vips={}, aliases={}, targets=[replace(target("clinic_app", 9, "99"), ready=False)]
    )
    going = replace(going, targets=[replace(going.targets[0], draining=True)])
    both = zone(going, APP)
    assert ask("clinic_app", of=both) == says("10.0.1.2")
    assert ask("tasks.clinic_app", of=both) == says("10.0.1.11", "10.0.1.12")
    assert ask("clinic_app", of=zone(going)) is None


def test_of_two_tasks_in_a_slot_the_ready_one_is_meant() -> None:
    old = replace(target("clinic_app", 1, "91", ready=False), task_id="zzz", name="clinic_app.1.zzz")
    for targets in ([old, APP.targets[0]], [APP.targets[0], old]):
        found = zone(replace(APP, targets=targets))
        assert ask("clinic_app.1", of=found) == says("10.0.1.11")
        assert ask("clinic_app.1.zzz", of=found) == says("10.0.1.91")


def test_services_that_share_an_alias_are_all_told() -> None:
    other = Route(service_id="s-z", name="other", vips={"backend": "10.0.1.3"}, aliases={"backend": ["app"]})
    assert ask("app", of=zone(other, APP)) == says("10.0.1.2", "10.0.1.3")


def test_names_of_addresses() -> None:
    assert ask("2.1.0.10.in-addr.arpa", PTR) == is_called("clinic_app.backend")
    assert ask("11.1.0.10.in-addr.arpa.", PTR) == is_called("clinic_app.1.clinic_app1id.backend")
    assert ask("2.1.0.10.in-addr.arpa", A) == Answer()
    assert ask("2.2.0.10.in-addr.arpa", PTR) == Answer(exists=False)  # of a network that the asker is not in
    assert ask("1.2.0.192.in-addr.arpa", PTR) is None
    assert ask("nonsense.in-addr.arpa", PTR) is None


def test_a_service_may_bring_its_own_nameservers() -> None:
    spec = TaskSpec(container_spec=ContainerSpec(dns_config=DNSConfig(nameservers=["9.9.9.9"])))
    assert book(zone(tasks=(replace(TASK, spec=spec),))).asker("10.0.1.50") == Asker(
        ("backend", "ingress"), ("9.9.9.9",)
    )


def test_an_address_belongs_to_the_task_that_goes_on() -> None:
    old = replace(TASK, id="zzz", desired=TaskState.SHUTDOWN, attachments=[TASK.attachments[0]])
    for tasks in ((old, TASK), (TASK, old)):
        assert book(zone(tasks=tasks)).asker("10.0.1.50") == Asker(("backend", "ingress"))


def test_names_of_one_network() -> None:
    assert ask("clinic_app.backend") == says("10.0.1.2")
    assert ask("Tasks.App.Backend.") == says("10.0.1.11", "10.0.1.12")
    assert ask("clinic_app.1.backend") == says("10.0.1.11")
    assert ask("clinic_app.monitoring") is None, "it is not there"
    assert ask("grafana.monitoring") is None, "and neither is the asker"
    dotted = replace(NETWORKS[1], spec=NetworkSpec(name="a.b"))
    assert ask("app.a.b", of=Zone.of(networks=[dotted], routes=ROUTES, tasks=[TASK])) == says("10.0.1.2")


HTTP = {"_http._tcp": [80, 8080], "_dns._udp": [53]}


def offers(*found: tuple[int, str]) -> tuple[Record, ...]:
    return tuple(Record(SRV, name, port=port) for port, name in found)


def test_named_ports_of_a_virtual_address() -> None:
    of = zone(replace(APP, named_ports=HTTP))
    for name in ("clinic_app", "app", "app.backend", "CLINIC_APP"):
        answer = ask(f"_http._tcp.{name}", SRV, of=of)
        assert answer == Answer(
            offers((80, "clinic_app"), (8080, "clinic_app")), (Record(A, "10.0.1.2", "clinic_app"),)
        ), name
    assert ask("_dns._udp.app", A, of=of) == Answer()
    assert ask("_dns._tcp.app", SRV, of=of) == Answer(exists=False)
    assert ask("_dns._tcp.nobody", SRV, of=of) is None
    assert ask("_dns.app", SRV, of=of) is None


def test_named_ports_of_each_task() -> None:
    first, second = (target("exporter", n, f"2{n}", node=f"n{n}") for n in (1, 2))
    both = Answer(
        offers((53, first.name), (53, second.name)),
        (Record(A, "10.0.1.21", first.name), Record(A, "10.0.1.22", second.name)),
    )
    of = zone(replace(EXPORTER, named_ports=HTTP), replace(APP, named_ports=HTTP))
    assert ask("_dns._udp.exporter", SRV, of=of) == both
    assert ask("_dns._udp.tasks.exporter", SRV, of=of) == both
    app = APP.targets[0].name
    assert ask("_dns._udp.clinic_app.1", SRV, of=of) == Answer(offers((53, app)), (Record(A, "10.0.1.11", app),))
    deaf = zone(replace(EXPORTER, named_ports=HTTP), silent=("n2",))
    assert ask("_dns._udp.exporter", SRV, of=deaf) == Answer(both.records[:1], both.extra[:1])


def test_addresses_of_both_versions() -> None:
    """As they come from wherever a zone has them."""
    six = Book()
    names = {"web": ["10.0.1.2", "fd00::2"]}
    section = {"name": "n", "subnets": ["10.0.1.0/24", "fd00::/64"], "names": names, "owners": {"fd00::2": "web"}}
    six.take({"n": section}, {}, None)
    asker = six.asker("fd00::50")
    assert asker == Asker(("n",))
    assert six.answer(asker, "web", AAAA) == Answer((Record(AAAA, "fd00::2"),))
    assert six.answer(asker, "web", A) == says("10.0.1.2")
    reverse = "2" + ".0" * 27 + ".0.0.d.f.ip6.arpa"
    assert six.answer(asker, reverse, PTR) == is_called("web.n")
    assert six.answer(asker, "3" + reverse[1:], PTR) == Answer(exists=False)
    assert six.answer(asker, "3.ip6.arpa", PTR) is None


def test_both_addresses_of_services_and_tasks() -> None:
    route = replace(
        APP,
        vips6={"backend": "fd00:1::2"},
        targets=[replace(t, addresses6={"backend": f"fd00:1::{t.slot}"}) for t in APP.targets],
    )
    of = Zone.of(networks=[replace(n, subnet6="fd00:1::/64") for n in NETWORKS[1:2]], routes=[route], tasks=[TASK])
    assert ask("app", AAAA, of=of) == Answer((Record(AAAA, "fd00:1::2"),))
    assert ask("app", of=of) == says("10.0.1.2")
    found = ask("tasks.app", AAAA, of=of)
    assert found
    assert [r.value for r in found.records] == ["fd00:1::1", "fd00:1::2"]


def test_a_host_without_ipv6_tells_of_no_such_address() -> None:
    dual = replace(NETWORKS[1], subnet6="fd00:1::/64")
    web = replace(APP, vips6={"backend": "fd00:1::2"})
    assert ask("app", AAAA, of=Zone.of(networks=[dual], routes=[web], tasks=[TASK])) == Answer(
        (Record(AAAA, "fd00:1::2"),)
    )
    assert ask("app", AAAA, of=Zone.of(networks=[NETWORKS[1]], routes=[web], tasks=[TASK])) == Answer()


def test_who_is_in_internal_networks_only_asks_nobody_else() -> None:
    inner = network("inner", 3, internal=True)

    def outside(*attached: str, outward: tuple[str, ...] = (), source: str = "10.0.3.50") -> bool:
        numbers = {"ingress": 0, "backend": 1, "inner": 3}
        attachments = [Attachment(network_id=n, address=f"10.0.{numbers[n]}.50/24") for n in attached]
        task = Task(id="t", attachments=attachments)
        asker = book(
            Zone.of(networks=[*NETWORKS, inner], routes=[], tasks=[task] if attached else [], outward=outward)
        ).asker(source)
        assert asker is not None
        return asker.outside

    assert not outside("inner")
    assert not outside("inner", "ingress"), "published ports lead in"
    assert outside("inner", "backend")
    assert outside("inner", outward=("t",))
    assert outside("ingress", source="10.0.0.50")
    assert not outside(source="10.0.3.77"), "whoever that is"


def test_a_book_takes_what_has_changed() -> None:
    found = book()
    asker = found.asker("10.0.1.50")
    assert asker is not None
    found.take({"backend": {"name": "backend", "names": {"new": ["10.0.1.9"]}}}, None, None)
    assert found.answer(asker, "new", A) == says("10.0.1.9")
    assert found.answer(asker, "app", A) is None
    found.take({}, None, ["monitoring"])
    assert found.answer(asker, "new", A) is None
    assert found.asker("10.0.2.77") == Asker(("monitoring",))
    assert found.asker("10.0.1.77") is None


@given(st.randoms(use_true_random=False))
def test_the_order_of_objects_does_not_matter(rng: Random) -> None:
    def mixed(things: list[Route]) -> list[Route]:
        return [replace(r, targets=rng.sample(r.targets, len(r.targets))) for r in rng.sample(things, len(things))]

    networks = rng.sample(NETWORKS, len(NETWORKS))
    assert Zone.of(networks=networks, routes=mixed(ROUTES), tasks=[TASK]) == zone()
