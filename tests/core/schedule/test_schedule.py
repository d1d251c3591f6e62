"""Which node gets a task, and what a task that gets none says."""

from __future__ import annotations

from collections import Counter
from math import inf
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core import schedule
from afterswarm.core.schedule.plan import BATCH, CONFIRMED_MESSAGE
from afterswarm.model.base import Change, Obj, Plan
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Availability, Description, Engine, Node, NodeReport, NodeSpec, NodeState, Plugin
from afterswarm.model.service import (
    ContainerSpec,
    Driver,
    GenericResource,
    Mount,
    Placement,
    PlacementPreference,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    Service,
    ServiceSpec,
    Spread,
    TaskSpec,
    VolumeOptions,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, PortStatus, Report, Task, TaskState

NOW = 10_000.0
CPU = 10**9
MIB = 2**20
DEFAULT = Resources(nano_cpus=4 * CPU, memory_bytes=4096 * MIB)


def node(node_id: str, *, labels: dict[str, str] | None = None, **fields: object) -> list[Obj]:
    """A node that is ready, and what it says of itself."""
    description = Description(
        hostname=f"host-{node_id}",
        platform=Platform(os="linux", architecture="x86_64"),
        resources=fields.pop("resources", DEFAULT),
        engine=Engine(plugins=fields.pop("plugins", [])),
    )
    spec = NodeSpec(labels=labels or {}, availability=fields.pop("availability", Availability.ACTIVE))
    made = replace(Node(id=node_id, spec=spec, state=NodeState.READY), **fields)
    return [made, NodeReport(id=node_id, description=description)]


def nodes(*node_ids: str) -> list[Obj]:
    return [obj for node_id in node_ids for obj in node(node_id)]


def service(service_id: str = "web") -> Service:
    return Service(id=service_id, spec=ServiceSpec(name=service_id))


def task(task_id: str = "t1", **fields: object) -> Task:
    spec = {f: fields.pop(f) for f in ("placement", "resources", "container_spec", "log_driver") if f in fields}
    base = Task(id=task_id, service_id="web", slot=1, state=TaskState.PENDING, spec=TaskSpec(**spec))
    return replace(base, **fields)


def pending(count: int, **fields: object) -> list[Task]:
    return [task(f"t{n:04}", slot=n + 1, **fields) for n in range(count)]


def reserving(cpus: float = 0, mib: int = 0, **generic: int) -> ResourceRequirements:
    kinds = [GenericResource(discrete_resource_spec={"Kind": k, "Value": v}) for k, v in generic.items()]
    wants = Resources(nano_cpus=int(cpus * CPU), memory_bytes=mib * MIB, generic_resources=kinds)
    return ResourceRequirements(reservations=wants)


def plan(*objects: Obj) -> Plan:
    return schedule.plan(Snapshot.of([service(), *objects], now=NOW), schedule.ALL)


def placed(planned: Plan) -> dict[str, str]:
    """Task id -> node id of the tasks that were assigned."""
    found = [c.new for c in planned.changes if isinstance(c.new, Task) and c.new.state == TaskState.ASSIGNED]
    return {t.id: t.node_id for t in found}


def words(planned: Plan, task_id: str = "t1") -> str:
    return next(c.new.err for c in planned.changes if isinstance(c.new, Task) and c.new.id == task_id)


# ---- assignment ------------------------------------------------------------------------------------------------


def test_an_assignment() -> None:
    waiting = task(err="no suitable node")
    planned = plan(*nodes("a"), waiting)
    assigned = replace(
        waiting,
        node_id="a",
        state=TaskState.ASSIGNED,
        since=NOW,
        message="scheduler assigned task to node",
        err="",
    )
    assert planned.changes == [Change(waiting, assigned)]
    assert planned.reads == ("node/a",), "a node that is drained meanwhile refuses the commit"
    assert planned.why == "placed 1 task"
    assert planned.wake_at == inf


@pytest.mark.parametrize(
    "other",
    [
        task(state=TaskState.NEW),
        task(state=TaskState.ASSIGNED, node_id="a"),
        task(desired=TaskState.SHUTDOWN),
        task(desired=TaskState.REMOVE),
        task(service_id="gone"),
    ],
)
def test_only_waiting_tasks_that_are_wanted_are_placed(other: Task) -> None:
    assert not plan(*nodes("a"), other).changes


def test_a_task_that_is_only_prepared_is_placed_too() -> None:
    assert placed(plan(*nodes("a"), task(desired=TaskState.READY))) == {"t1": "a"}


def test_a_global_task_stays_on_its_node_which_must_be_able() -> None:
    own = task("t1", slot=0, node_id="b")
    planned = plan(*nodes("a", "b"), own)
    assert placed(planned) == {"t1": "b"}
    assert planned.changes[0].new.message == CONFIRMED_MESSAGE
    tight = task("t1", slot=0, node_id="b", resources=reserving(cpus=5))
    assert words(plan(*nodes("a", "b"), tight)) == "no suitable node (insufficient resources on 1 node)"


def test_many_are_placed_in_parts() -> None:
    planned = plan(*nodes("a"), *pending(BATCH + 1))
    assert len(planned.changes) == BATCH
    assert planned.wake_at == NOW


# ---- filters ---------------------------------------------------------------------------------------------------

IMAGE = Placement(platforms=[Platform(os="linux", architecture="arm64")])
VOLUME = Mount(source="v", target="/v", volume_options=VolumeOptions(driver_config=Driver(name="convoy")))
PLUGINS = [Plugin(type="Volume", name="local"), Plugin(type="Log", name="json-file")]
HTTP = PortConfig(target_port=80, published_port=80, publish_mode="host")
WHY = [
    (node("a", state=NodeState.DOWN), task(), "1 node not available for new tasks"),
    (node("a", state=NodeState.UNKNOWN), task(), "1 node not available for new tasks"),
    (node("a", availability=Availability.PAUSE), task(), "1 node not available for new tasks"),
    (node("a", availability=Availability.DRAIN), task(), "1 node not available for new tasks"),
    (node("a"), task(resources=reserving(cpus=4.5)), "insufficient resources on 1 node"),
    (node("a"), task(resources=reserving(mib=5000)), "insufficient resources on 1 node"),
    (node("a"), task(resources=reserving(gpu=1)), "insufficient resources on 1 node"),
    (
        node("a", plugins=PLUGINS),
        task(container_spec=ContainerSpec(mounts=[VOLUME])),
        "missing plugin on 1 node",
    ),
    (node("a", plugins=PLUGINS), task(log_driver=Driver(name="gelf")), "missing plugin on 1 node"),
    (
        node("a"),
        task(placement=Placement(constraints=["node.labels.ssd==yes"])),
        "scheduling constraints not satisfied on 1 node",
    ),
    (node("a"), task(placement=IMAGE), "unsupported platform on 1 node"),
    (
        [*node("a"), task("other", state=TaskState.ASSIGNED, node_id="a", slot=2, ports=[HTTP])],
        task(ports=[HTTP]),
        "host-mode port already in use on 1 node",
    ),
    (
        [*node("a"), task("other", state=TaskState.ASSIGNED, node_id="a", slot=2)],
        task(placement=Placement(max_replicas=1)),
        "max replicas per node limit exceed",
    ),
]


SEALED = Network(id="sealed", spec=NetworkSpec(name="sealed", options={"encrypted": ""}))
INSIDE = [Attachment(network_id="sealed", address="10.0.0.7/24")]
WHY.append(([*node("a"), SEALED], task(attachments=INSIDE), "no WireGuard for encrypted networks on 1 node"))


@pytest.mark.parametrize(("there", "waiting", "why"), WHY, ids=[why for _, _, why in WHY])
def test_why_a_node_cannot(there: list[Obj], waiting: Task, why: str) -> None:
    planned = plan(*there, waiting)
    assert planned.changes == [Change(waiting, replace(waiting, err=f"no suitable node ({why})"))]
    assert not plan(*there, planned.changes[0].new).changes, "it is said once"


@pytest.mark.parametrize(
    ("there", "waiting"),
    [
        (node("a"), task(resources=reserving(cpus=4, mib=4096))),
        (node("a"), task(placement=Placement(platforms=[Platform(os="linux", architecture="amd64")]))),
        (node("a"), task(placement=Placement(platforms=[Platform(os="windows"), Platform()]))),
        (node("a"), task(log_driver=Driver(name="gelf"))),  # the node does not say which drivers it has
        (node("a", plugins=PLUGINS), task(log_driver=Driver(name="json-file"))),
        ([*node("a"), task("other", state=TaskState.ASSIGNED, node_id="a", slot=2)], task(ports=[HTTP])),
        (
            [*node("a"), task("other", state=TaskState.ASSIGNED, node_id="a", slot=2)],
            task(placement=Placement(max_replicas=2)),
        ),
    ],
)
def test_a_node_that_can(there: list[Obj], waiting: Task) -> None:
    assert placed(plan(*there, waiting)) == {"t1": "a"}


def test_what_is_encrypted_goes_where_that_can_be() -> None:
    able, said = node("b")
    there = [*node("a"), able, replace(said, wireguard="key"), SEALED]
    assert placed(plan(*there, task(attachments=INSIDE))) == {"t1": "b"}


def test_the_reasons_of_all_nodes_make_one_sentence() -> None:
    there = [
        *node("a", labels={"ssd": "yes"}, resources=Resources()),
        *node("b", labels={"ssd": "yes"}, resources=Resources()),
        *node("c", state=NodeState.DOWN),
        *node("d"),
    ]
    waiting = task(placement=Placement(constraints=["node.labels.ssd==yes"]), resources=reserving(cpus=1))
    assert words(plan(*there, waiting)) == (
        "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks; "
        "scheduling constraints not satisfied on 1 node)"
    )
    assert words(plan(waiting)) == "no suitable node"


def test_reservations_count_until_the_container_has_stopped() -> None:
    first = task("first", slot=2, state=TaskState.ASSIGNED, node_id="a", resources=reserving(cpus=3))
    waiting = task(resources=reserving(cpus=2))
    for still_there in (first, replace(first, desired=TaskState.SHUTDOWN)):
        assert placed(plan(*nodes("a"), still_there, waiting)) == {}
    stopped = Report(id="first", state=TaskState.SHUTDOWN)
    assert placed(plan(*nodes("a"), replace(first, desired=TaskState.SHUTDOWN), stopped, waiting)) == {"t1": "a"}


def test_what_stops_in_a_slot_makes_room_for_its_successor() -> None:
    """It has stopped before the successor is started; otherwise a full node could never be updated."""
    first = task("first", slot=1, state=TaskState.ASSIGNED, node_id="a", resources=reserving(cpus=3), ports=[HTTP])
    successor = task(resources=reserving(cpus=3), ports=[HTTP], desired=TaskState.READY)
    assert placed(plan(*nodes("a"), replace(first, desired=TaskState.SHUTDOWN), successor)) == {"t1": "a"}
    assert placed(plan(*nodes("a"), first, successor)) == {"t1": "a"}, "it will be told to stop first"
    started = replace(successor, desired=TaskState.RUNNING)
    assert placed(plan(*nodes("a"), first, started)) == {}, "start-first: both run at once"


def test_room_that_was_given_in_this_plan_is_gone() -> None:
    planned = plan(*nodes("a", "b"), *pending(5, resources=reserving(cpus=2)))
    assert Counter(placed(planned).values()) == {"a": 2, "b": 2}
    assert words(planned, "t0004") == "no suitable node (insufficient resources on 2 nodes)"


def test_host_ports_drawn_by_an_engine_count() -> None:
    other = task("other", slot=2, state=TaskState.ASSIGNED, node_id="a", ports=[replace(HTTP, published_port=0)])
    report = Report(id="other", state=TaskState.RUNNING, ports=[PortStatus(published_port=80, target_port=80)])
    assert placed(plan(*nodes("a"), other, report, task(ports=[HTTP]))) == {}
    assert placed(plan(*nodes("a"), other, task(ports=[HTTP]))) == {"t1": "a"}


def test_named_and_counted_resources() -> None:
    named = [GenericResource(named_resource_spec={"Kind": "gpu", "Value": v}) for v in ("uuid-1", "uuid-2")]
    counted = GenericResource(discrete_resource_spec={"Kind": "ssd", "Value": 3})
    there = node("a", resources=replace(DEFAULT, generic_resources=[*named, counted]))
    planned = plan(*there, *pending(3, resources=reserving(gpu=1, ssd=1)))
    given = [c.new.generic_resources for c in planned.changes if c.new.state == TaskState.ASSIGNED]
    one_ssd = GenericResource(discrete_resource_spec={"Kind": "ssd", "Value": 1})
    assert given == [[named[0], one_ssd], [named[1], one_ssd]]
    assert "insufficient resources" in words(planned, "t0002")
    running = [c.new for c in planned.changes if c.new.state == TaskState.ASSIGNED]
    assert placed(plan(*there, *running, task("x", slot=9, resources=reserving(ssd=1)))) == {"x": "a"}
    assert placed(plan(*there, *running, task("x", slot=9, resources=reserving(ssd=2)))) == {}
    assert placed(plan(*there, running[0], task("x", slot=9, resources=reserving(gpu=1)))) == {"x": "a"}


def test_a_name_that_is_asked_for_and_one_that_a_predecessor_gives_back() -> None:
    named = [GenericResource(named_resource_spec={"Kind": "gpu", "Value": v}) for v in ("uuid-1", "uuid-2")]
    there = node("a", resources=replace(DEFAULT, generic_resources=named))
    second = ResourceRequirements(reservations=Resources(generic_resources=[named[1]]))
    [change] = plan(*there, task(resources=second)).changes
    assert change.new.generic_resources == [named[1]]
    holder = replace(change.new, id="holder", slot=7)
    assert placed(plan(*there, holder, task(resources=second))) == {}
    both = task("old", resources=reserving(gpu=2), state=TaskState.ASSIGNED, node_id="a", generic_resources=named)
    successor = task("new", resources=reserving(gpu=2), desired=TaskState.READY)
    assert placed(plan(*there, both, successor)) == {"new": "a"}
    assert placed(plan(*there, both, replace(successor, slot=2))) == {}


# ---- spread ----------------------------------------------------------------------------------------------------


def running(task_id: str, on: str, **fields: object) -> Task:
    return task(task_id, node_id=on, **{"slot": 100, "state": TaskState.ASSIGNED, **fields})


def test_fewest_of_this_service_then_fewest_in_total_then_most_room_then_lowest_id() -> None:
    assert placed(plan(*nodes("a", "b"), task())) == {"t1": "a"}
    small = node("a", resources=Resources(nano_cpus=2 * CPU, memory_bytes=1024 * MIB))
    half = running("x", "a", service_id="x", resources=reserving(cpus=1))
    half_too = running("y", "b", service_id="x", resources=reserving(cpus=1))
    assert placed(plan(*small, *nodes("b"), half, half_too, task())) == {"t1": "b"}, "the larger share is free"
    more = running("z", "b", service_id="x")
    assert placed(plan(*small, *nodes("b"), half, half_too, more, task())) == {"t1": "a"}, "fewer tasks"
    own = running("w", "a")
    assert placed(plan(*small, *nodes("b"), half, half_too, more, own, task())) == {"t1": "b"}, "fewer of this service"


def test_an_update_leaves_a_service_as_spread_as_it_was() -> None:
    there = [running(f"r{n}", on, slot=n + 1) for n, on in enumerate("aabbcc")]
    for waiting in (task(slot=5), task(slot=5, desired=TaskState.READY)):
        assert placed(plan(*nodes("a", "b", "c"), *there, waiting)) == {"t1": "c"}


def test_preferences_are_branches_in_their_order() -> None:
    there = [
        *node("a", labels={"zone": "1", "rack": "1"}),
        *node("b", labels={"zone": "1", "rack": "1"}),
        *node("c", labels={"zone": "1", "rack": "2"}),
        *node("d", labels={"zone": "2"}),
        *node("e"),
    ]
    wants = [PlacementPreference(spread=Spread(spread_descriptor=f"node.labels.{name}")) for name in ("zone", "rack")]
    planned = plan(*there, *pending(12, placement=Placement(preferences=wants)))
    assert Counter(placed(planned).values()) == {"a": 1, "b": 1, "c": 2, "d": 4, "e": 4}


def test_a_node_where_this_version_keeps_failing_is_the_last_choice() -> None:
    failures = [running(f"f{n}", "a", desired=TaskState.SHUTDOWN) for n in range(5)]
    reports = [Report(id=f.id, state=TaskState.FAILED, since=NOW - 10) for f in failures]
    busy = [running(f"b{n}", "b") for n in range(3)]
    assert placed(plan(*nodes("a", "b"), *busy, *failures, *reports, task())) == {"t1": "b"}
    assert placed(plan(*nodes("a"), *failures, *reports, task())) == {"t1": "a"}, "better than none"
    for spared in (
        [*failures, *reports[:4]],
        [*failures, *(replace(r, since=NOW - 301) for r in reports)],
        [*(replace(f, spec_version=7) for f in failures), *reports],
    ):
        assert placed(plan(*nodes("a", "b"), *busy, *spared, task())) == {"t1": "a"}


def test_failures_count_though_history_forgets_their_tasks() -> None:
    tried = task("t5", restarts=[NOW - n for n in (90, 70, 40, 20, 5)], failed_on=["a"] * 5)
    assert placed(plan(*nodes("a", "b"), running("b1", "b"), tried)) == {"t5": "b"}
    completed = replace(tried, failed_on=["a", "a", "a", "a", ""])
    assert placed(plan(*nodes("a", "b"), running("b1", "b"), completed)) == {"t5": "a"}
    long_ago = replace(tried, restarts=[NOW - n for n in (301, 70, 40, 20, 5)])
    assert placed(plan(*nodes("a", "b"), running("b1", "b"), long_ago)) == {"t5": "a"}


# ---- properties ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(0, 60))
def test_identical_nodes_differ_by_one_task_at_most(count: int, tasks: int) -> None:
    counts = Counter({f"n{n}": 0 for n in range(count)})
    counts.update(placed(plan(*nodes(*counts), *pending(tasks))).values())
    assert sum(counts.values()) == tasks
    assert max(counts.values()) - min(counts.values()) <= 1


@st.composite
def clusters(draw: st.DrawFn) -> list[Obj]:
    objects: list[Obj] = []
    for n in range(draw(st.integers(0, 4))):
        objects += node(
            f"n{n}",
            labels={"zone": draw(st.sampled_from("xyz"))},
            state=draw(st.sampled_from([NodeState.READY, NodeState.READY, NodeState.DOWN])),
            availability=draw(st.sampled_from([Availability.ACTIVE, Availability.ACTIVE, Availability.PAUSE])),
        )
    for n in range(draw(st.integers(0, 12))):
        zone = draw(st.sampled_from(["", "x", "y"]))
        spread = PlacementPreference(spread=Spread(spread_descriptor="node.labels.zone"))
        service_id = draw(st.sampled_from(["web", "other"]))
        on = draw(st.sampled_from(["", "", "n0", "n1"]))
        objects.append(
            task(
                f"t{n}",
                service_id=service_id,
                slot=n + 1,
                spec_version=n,
                node_id=on,
                state=draw(st.sampled_from([TaskState.PENDING, TaskState.PENDING, TaskState.ASSIGNED]))
                if on
                else TaskState.PENDING,
                desired=draw(st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.RUNNING])),
                resources=reserving(cpus=draw(st.sampled_from([0, 1, 3]))),
                ports=[HTTP] if draw(st.booleans()) else [],
                placement=Placement(
                    constraints=[f"node.labels.zone=={zone}"] if zone else [],
                    preferences=[spread] if draw(st.booleans()) else [],
                    max_replicas=draw(st.sampled_from([0, 1, 3])),
                ),
            )
        )
    return [service("other"), *objects]


def fits(before: list[Obj], changes: list[Change]) -> None:
    """No assignment of the plan breaks a rule, nor do they together."""
    objects = {(type(o), o.id): o for o in before}
    objects |= {(type(c.new), c.new.id): c.new for c in changes if c.new}
    snap = Snapshot.of(objects.values(), now=NOW)
    for change in changes:
        new = change.new
        assert isinstance(new, Task)
        if new.state != TaskState.ASSIGNED:
            continue
        here = [t for t in snap.tasks_on(new.node_id) if t.state == TaskState.ASSIGNED]
        at = snap.nodes[new.node_id]
        assert at.state == NodeState.READY
        assert at.spec.availability == Availability.ACTIVE
        for text in new.spec.placement.constraints:
            assert text.endswith(at.spec.labels["zone"])
        if new.spec.resources.reservations.nano_cpus:
            assert sum(t.spec.resources.reservations.nano_cpus for t in here) <= 4 * CPU
        if new.ports:
            assert sum(bool(t.ports) for t in here) == 1
        if most := new.spec.placement.max_replicas:
            older = [c.new for c in changes[changes.index(change) + 1 :]]
            assert sum(t.service_id == new.service_id and t not in older for t in here) <= most


@settings(max_examples=200, deadline=None)
@given(clusters(), st.data())
def test_filters_hold_for_every_prefix_and_a_second_round_finds_nothing(
    objects: list[Obj], data: st.DataObject
) -> None:
    planned = plan(*objects)
    fits([service(), *objects], planned.changes)
    cut = planned.changes[: data.draw(st.integers(0, len(planned.changes)))]
    fits([service(), *objects], cut)
    after = {(type(o), o.id): o for o in objects} | {(type(c.new), c.new.id): c.new for c in cut if c.new}
    again = plan(*after.values())
    fits(list(after.values()), again.changes)
    full = after | {(type(c.new), c.new.id): c.new for c in again.changes if c.new}
    assert not plan(*full.values()).changes
    known = {o.id for o in objects if isinstance(o, Node)}
    for obj in full.values():
        if isinstance(obj, Task) and obj.state == TaskState.PENDING and (not obj.node_id or obj.node_id in known):
            assert obj.err.startswith("no suitable node")


@settings(max_examples=50, deadline=None)
@given(clusters(), st.data())
def test_the_order_of_objects_does_not_matter(objects: list[Obj], data: st.DataObject) -> None:
    assert plan(*objects) == plan(*data.draw(st.permutations(objects)))


def test_a_thousand_tasks_on_a_hundred_nodes() -> None:
    """In four parts of a plan, well under a second of processor time together."""
    there = nodes(*(f"n{n:02}" for n in range(100)))
    waiting = {t.id: t for t in pending(1000, resources=reserving(cpus=0.1, mib=64))}
    started = process_time()
    for _ in range(6):
        planned = plan(*there, *waiting.values())
        waiting |= {c.new.id: c.new for c in planned.changes}
    assert process_time() - started < 2.0
    assert set(Counter(t.node_id for t in waiting.values()).values()) == {10}


# ---- keys ------------------------------------------------------------------------------------------------------


def test_keys() -> None:
    for obj in (*nodes("a"), service(), task(), Report(id="t1", state=TaskState.FAILED)):
        assert list(schedule.keys_of(Change(None, obj))) == [schedule.ALL]
    assert list(schedule.keys_of(Change(None, Report(id="t1", state=TaskState.PREPARING)))) == []
