"""A host is told what it needs, and nothing that belongs to others."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.wanted import wanted
from afterswarm.model.base import Obj
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Description, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.secret import Config, Payload, Secret
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    Endpoint,
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    SecretReference,
    Service,
    ServiceSpec,
    TaskSpec,
    VirtualIP,
)
from afterswarm.model.session import Route
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Report, Task, TaskState

NODES = [
    Node(id=i, spec=NodeSpec(role=r), role=r, state=NodeState.READY)
    for i, r in (("n1", Role.MANAGER), ("n2", Role.WORKER))
]
REPORTS = [NodeReport(id=n.id, address=f"10.7.0.{n.id[1]}", description=Description(hostname=n.id)) for n in NODES]
BACK = Network(id="back", spec=NetworkSpec(name="back"), subnet="10.0.1.0/24")
FRONT = Network(id="front", spec=NetworkSpec(name="front"), subnet="10.0.2.0/24")
INGRESS = Network(id="ingress", spec=NetworkSpec(name="ingress", ingress=True), subnet="10.0.0.0/24")
PASSWORD = Secret(id="s1", sealed="x")
OTHER = Secret(id="s2", sealed="y")
CONFIG = Config(id="c1")
TEMPLATE = TaskSpec(
    container_spec=ContainerSpec(
        image="db", secrets=[SecretReference(secret_id="s1")], configs=[ConfigReference(config_id="c1")]
    ),
    networks=[NetworkAttachmentConfig(target="back", aliases=["database"])],
)
DB = Service(
    id="db",
    spec=ServiceSpec(name="db", task_template=TEMPLATE),
    endpoint=Endpoint(virtual_ips=[VirtualIP(network_id="back", addr="10.0.1.2/24")]),
)
WEB = Service(
    id="web",
    spec=ServiceSpec(name="web", task_template=TaskSpec(networks=[NetworkAttachmentConfig(target="front")])),
    endpoint=Endpoint(
        ports=[
            PortConfig(target_port=80, published_port=8080),
            PortConfig(target_port=81, published_port=8081, publish_mode="host"),
        ],
        virtual_ips=[VirtualIP(network_id="front", addr="10.0.2.2/24")],
    ),
)
TASK = Task(
    id="t1",
    service_id="db",
    slot=1,
    node_id="n2",
    spec=TEMPLATE,
    state=TaskState.ASSIGNED,
    attachments=[Attachment(network_id="back", address="10.0.1.7/24")],
)
RUNNING = Report(id="t1", service_id="db", node_id="n2", state=TaskState.RUNNING)
ALL: list[Obj] = [*NODES, *REPORTS, BACK, FRONT, INGRESS, PASSWORD, OTHER, CONFIG, DB, WEB, TASK, RUNNING]


def snap(*changed: Obj) -> Snapshot:
    ids = {(type(o), o.id) for o in changed}
    return Snapshot.of([*(o for o in ALL if (type(o), o.id) not in ids), *changed])


def routes(node_id: str, *changed: Obj) -> dict[str, Route]:
    return {r.name: r for r in wanted(snap(*changed), node_id).routes}


def test_other_names_of_a_container() -> None:
    spec = replace(TEMPLATE, container_spec=ContainerSpec(image="db", hostname="db-{{.Task.Slot}}-{{.Node.Hostname}}"))
    place = [Attachment(network_id="back", address="10.0.1.9/24")]
    task = Task(id="t9", service_id="db", slot=3, node_id="n1", spec=spec, state=TaskState.ASSIGNED, attachments=place)
    report = Report(id="t9", node_id="n1", service_id="db", state=TaskState.RUNNING, container_id="0123456789abcdef")
    there = Snapshot.of([*NODES, *REPORTS, BACK, DB, task, report])
    [route] = wanted(there, "n1").routes
    assert [t.hostnames for t in route.targets] == [["0123456789ab", "db-3-n1"]]


def test_secrets_and_configs_go_only_where_a_task_uses_them() -> None:
    there, elsewhere = wanted(snap(), "n2"), wanted(snap(), "n1")
    assert (there.secrets, there.configs) == ((("s1", 0),), (("c1", 0),))
    assert (elsewhere.secrets, elsewhere.configs) == ((), ())
    newer = wanted(snap(replace(PASSWORD, data_version=1), Payload(id="s1", owner="s1", sealed="x")), "n2")
    assert newer.secrets == (("s1", 0),)
    stopping = wanted(snap(replace(TASK, desired=TaskState.SHUTDOWN)), "n2")
    assert stopping.secrets == ()
    failed = wanted(snap(replace(RUNNING, state=TaskState.FAILED)), "n2")
    assert (failed.secrets, failed.networks) == ((), [INGRESS])
    assert failed.tasks == [TASK]


def test_networks_of_own_tasks_and_the_ingress_one() -> None:
    assert wanted(snap(), "n2").networks == [BACK, INGRESS]
    assert wanted(snap(), "n1").networks == [INGRESS]
    assert wanted(snap(replace(BACK, subnet="")), "n2").networks == [INGRESS]


def test_tasks_are_told_from_the_assignment_until_the_slot_is_given_away() -> None:
    assert wanted(snap(), "n2").tasks == [TASK]
    assert wanted(snap(), "n1").tasks == []
    for state in (TaskState.NEW, TaskState.PENDING, TaskState.ORPHANED):
        assert wanted(snap(replace(TASK, state=state)), "n2").tasks == []


def test_routes_of_shared_networks_and_of_published_ports() -> None:
    assert set(routes("n2")) == {"db", "web"}
    assert set(routes("n1")) == {"web"}
    web = routes("n1")["web"]
    assert [p.published_port for p in web.ports] == [8080]
    db = routes("n2")["db"]
    assert db.vips == {"back": "10.0.1.2"}
    assert db.aliases == {"back": ["database"]}
    assert db.mode == "vip"
    assert db.targets[0].addresses == {"back": "10.0.1.7"}
    assert db.targets[0].name == "db.1.t1"


def test_a_target_is_ready_while_it_runs_and_may_run_on_a_node_that_is_up() -> None:
    def target(*changed: Obj) -> tuple[bool, bool]:
        (found,) = routes("n2", *changed)["db"].targets
        return found.ready, found.draining

    assert target() == (True, False)
    assert target(replace(RUNNING, state=TaskState.STARTING)) == (False, False)
    assert target(replace(TASK, desired=TaskState.SHUTDOWN)) == (False, True)
    assert target(replace(NODES[1], state=NodeState.DOWN)) == (False, False)
    assert target(replace(NODES[1], state=NodeState.UNKNOWN)) == (True, False)
    assert target(replace(DB, pending_delete=True)) == (False, True)
    assert "db" not in routes("n2", replace(RUNNING, state=TaskState.COMPLETE))  # nobody is in its network
    assert "db" not in routes("n2", replace(TASK, state=TaskState.ORPHANED))


def test_a_removed_service_leaves_its_name_ports_and_address_to_others() -> None:
    gone = routes("n1", replace(WEB, pending_delete=True))["web"]
    assert (gone.ports, gone.vips) == ([], {})


def test_round_robin_services_have_no_virtual_address() -> None:
    spec = replace(DB.spec, endpoint_spec=EndpointSpec(mode="dnsrr"))
    route = routes("n2", replace(DB, spec=spec, endpoint=Endpoint()))["db"]
    assert (route.mode, route.vips) == ("dnsrr", {})
    assert route.targets


def test_names_of_ports_are_told_of_every_port() -> None:
    ports = [
        PortConfig(name="http", target_port=80, published_port=8080),
        PortConfig(name="admin", target_port=81, published_port=8081, publish_mode="host"),
    ]
    route = routes("n1", replace(WEB, endpoint=Endpoint(ports=ports)))["web"]
    assert route.named_ports == {"_http._tcp": [80], "_admin._tcp": [81]}


def test_global_tasks_are_named_by_node() -> None:
    (target,) = routes("n2", replace(TASK, slot=0))["db"].targets
    assert target.name == "db.n2.t1"


def test_peers_are_the_nodes_that_said_where_they_are() -> None:
    newcomer = Node(id="n3")
    peers = wanted(snap(newcomer, replace(NODES[1], state=NodeState.DOWN)), "n1").peers
    assert [(p.node_id, p.address, p.data_path, p.manager, p.up) for p in peers] == [
        ("n1", "10.7.0.1", "10.7.0.1", True, True),
        ("n2", "10.7.0.2", "10.7.0.2", False, False),
    ]


def test_the_role_is_a_manager_s_from_the_wish_until_the_store_is_left() -> None:
    def role(wish: Role, now: Role) -> Role:
        return wanted(snap(Node(id="n2", spec=NodeSpec(role=wish), role=now)), "n2").role

    w, m = Role.WORKER, Role.MANAGER
    assert [role(w, w), role(m, w), role(m, m), role(w, m)] == [w, m, m, m]
    assert wanted(snap(), "nobody").role == w
