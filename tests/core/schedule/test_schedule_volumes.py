"""A database is never started on the empty disk of another host without being told to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core import schedule
from afterswarm.core.schedule.volumes import local_volumes
from afterswarm.model.base import Obj, Plan
from afterswarm.model.node import Availability, Description, Node, NodeReport, NodeSpec, NodeState
from afterswarm.model.service import (
    ContainerSpec,
    Driver,
    Mount,
    Placement,
    ResourceRequirements,
    Resources,
    Service,
    ServiceSpec,
    TaskSpec,
    VolumeOptions,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.model.volume import Volume

DATA = Mount(source="db-data", target="/var/lib/postgresql")
DB = Service(id="s", spec=ServiceSpec(name="db"))
ANYWHERE = replace(DB, spec=replace(DB.spec, labels={"afterswarm.volumes": "anywhere"}))


def node(number: int, **fields: object) -> list[Obj]:
    made = Node(id=f"n{number}", spec=NodeSpec(), state=NodeState.READY)
    description = Description(hostname=f"swarm-{number}", resources=Resources(nano_cpus=4, memory_bytes=4))
    return [replace(made, **fields), NodeReport(id=made.id, description=description)]


def unavailable(number: int, availability: Availability) -> list[Obj]:
    return node(number, spec=NodeSpec(availability=availability))


def task(slot: int = 1, *mounts: Mount, **fields: object) -> Task:
    spec = TaskSpec(container_spec=ContainerSpec(mounts=list(mounts or (DATA,))))
    return replace(Task(id=f"t{slot}", service_id="s", slot=slot, state=TaskState.PENDING, spec=spec), **fields)


def volume(node_id: str, slot: int = 1, name: str = "db-data") -> Volume:
    return Volume(id=ids.derive("volume", name, "db", slot), name=name, service="db", slot=slot, node_id=node_id)


def plan(*objects: Obj) -> Plan:
    return schedule.plan(Snapshot.of(objects, now=1.0), schedule.ALL)


def placed(planned: Plan) -> dict[str, str]:
    found = [c.new for c in planned.changes if isinstance(c.new, Task) and c.new.state == TaskState.ASSIGNED]
    return {t.id: t.node_id for t in found}


def recorded(planned: Plan) -> dict[tuple[str, int], str]:
    found = [c.new for c in planned.changes if isinstance(c.new, Volume)]
    return {(v.name, v.slot): v.node_id for v in found}


def test_the_first_assignment_says_where_the_data_lies() -> None:
    planned = plan(DB, *node(1), task())
    assert placed(planned) == {"t1": "n1"}
    assert [c.new for c in planned.changes if isinstance(c.new, Volume)] == [volume("n1")]


def test_the_next_task_of_the_slot_goes_where_the_data_is() -> None:
    busy = [replace(task(n), id=f"b{n}", state=TaskState.ASSIGNED, node_id="n2") for n in (7, 8, 9)]
    planned = plan(DB, *node(1), *node(2), *busy, volume("n2"), task())
    assert placed(planned) == {"t1": "n2"}
    assert recorded(planned) == {}


@pytest.mark.parametrize(
    ("home", "waiting", "why"),
    [
        (node(2, state=NodeState.DOWN), task(), "is down"),
        (node(2, state=NodeState.UNKNOWN), task(), "is unknown"),
        (unavailable(2, Availability.DRAIN), task(), "is drained"),
        (unavailable(2, Availability.PAUSE), task(), "is paused"),
        (
            node(2),
            task(spec=replace(task().spec, placement=Placement(constraints=["node.id==n1"]))),
            "does not satisfy the scheduling constraints",
        ),
        (
            node(2),
            task(
                spec=replace(
                    task().spec,
                    resources=ResourceRequirements(reservations=Resources(memory_bytes=5)),
                )
            ),
            "has insufficient resources",
        ),
    ],
)
def test_it_waits_and_says_why(home: list[Obj], waiting: Task, why: str) -> None:
    planned = plan(DB, *node(1), *home, volume("n2"), waiting)
    err = f'no suitable node (volume "db-data" is on node swarm-2, which {why})'
    assert [c.new for c in planned.changes] == [replace(waiting, err=err)]
    assert not plan(DB, *node(1), *home, volume("n2"), replace(waiting, err=err)).changes


def test_two_volumes_on_two_nodes_cannot_be_had_together() -> None:
    wal = Mount(source="wal", target="/wal")
    waiting = task(1, DATA, wal)
    planned = plan(DB, *node(1), *node(2), volume("n1"), volume("n2", name="wal"), waiting)
    words = 'no suitable node (volume "db-data" is on node swarm-1 and volume "wal" is on node swarm-2)'
    assert [c.new.err for c in planned.changes if isinstance(c.new, Task)] == [words]


def test_a_further_volume_of_a_pinned_slot_is_recorded_there_too() -> None:
    wal = Mount(source="wal", target="/wal")
    planned = plan(DB, *node(1), *node(2), volume("n2"), task(1, DATA, wal))
    assert placed(planned) == {"t1": "n2"}
    assert recorded(planned) == {("wal", 1): "n2"}


def test_anywhere_lifts_the_pin_and_moves_the_record() -> None:
    home = node(2, state=NodeState.DOWN)
    planned = plan(ANYWHERE, *node(1), *home, volume("n2"), task())
    assert placed(planned) == {"t1": "n1"}
    assert recorded(planned) == {("db-data", 1): "n1"}
    busy = [replace(task(n), id=f"b{n}", state=TaskState.ASSIGNED, node_id="n2") for n in (7, 8, 9)]
    planned = plan(ANYWHERE, *node(1), *node(2), *busy, volume("n2"), task())
    assert placed(planned) == {"t1": "n2"}, "where its data is, as long as that can be"


def test_a_node_that_was_removed_takes_the_pin_with_it() -> None:
    planned = plan(DB, *node(1), volume("gone"), task())
    assert placed(planned) == {"t1": "n1"}
    assert recorded(planned) == {("db-data", 1): "n1"}


def test_other_slots_keep_away_from_data_that_is_not_theirs() -> None:
    planned = plan(DB, *node(1), *node(2), *node(3), volume("n1"), volume("n2", slot=2), task(1), task(2), task(3))
    assert placed(planned) == {"t1": "n1", "t2": "n2", "t3": "n3"}
    assert recorded(planned) == {("db-data", 3): "n3"}
    first = plan(DB, *node(1), *node(2), task(1), task(2))
    assert set(placed(first).values()) == {"n1", "n2"}


def test_another_service_of_the_same_name_later_finds_its_data() -> None:
    again = replace(DB, id="s2")
    planned = plan(again, *node(1), *node(2), volume("n2"), replace(task(), service_id="s2"))
    assert placed(planned) == {"t1": "n2"}


def test_two_tasks_of_one_slot_never_start_apart() -> None:
    first, second = task(), replace(task(), id="u1")
    planned = plan(DB, *node(1), *node(2), first, second)
    assert placed(planned) == {"t1": "n1"}
    assert planned.wake_at == 1.0
    assert len(recorded(planned)) == 1


@pytest.mark.parametrize(
    ("mount", "names"),
    [
        (DATA, ["db-data"]),
        (replace(DATA, volume_options=VolumeOptions(driver_config=Driver(name="local"))), ["db-data"]),
        (replace(DATA, source="data-{{.Task.Slot}}"), ["data-1"]),
        (replace(DATA, source="data-{{.Node.ID}}"), ["data-{{.Node.ID}}"]),
        (replace(DATA, source=""), []),
        (Mount(type="bind", source="/srv", target="/srv"), []),
        (Mount(type="tmpfs", target="/tmp"), []),
        (replace(DATA, volume_options=VolumeOptions(driver_config=Driver(name="rexray"))), []),
        (
            replace(
                DATA,
                volume_options=VolumeOptions(
                    driver_config=Driver(name="local", options={"type": "nfs", "o": "addr=10.0.0.9,rw"})
                ),
            ),
            [],
        ),
    ],
)
def test_which_mounts_pin(mount: Mount, names: list[str]) -> None:
    assert local_volumes(DB, task(1, mount)) == names


def test_a_global_tasks_volumes_pin_nothing() -> None:
    own = replace(task(), slot=0, node_id="n1")
    planned = plan(DB, *node(1), own)
    assert placed(planned) == {"t1": "n1"}
    assert recorded(planned) == {}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4]), max_size=6), st.data())
def test_a_slot_whose_data_lies_on_a_node_is_only_ever_there(slots: list[int], data: st.DataObject) -> None:
    """Whatever fails and wherever the plan is cut: with a task there is its record, and it never moves by itself."""
    homes: dict[int, str] = {}
    objects: dict[tuple[type[Obj], str], Obj] = {(Service, "s"): DB}
    for step, slot in enumerate(slots):
        for number in (1, 2, 3):
            state = data.draw(st.sampled_from([NodeState.READY, NodeState.READY, NodeState.DOWN]))
            objects |= {(type(o), o.id): o for o in node(number, state=state)}
        objects[Task, f"x{step}"] = replace(task(slot), id=f"x{step}")
        changes = plan(*objects.values()).changes
        for change in changes[: data.draw(st.integers(0, len(changes)))]:
            assert change.new is not None
            objects[type(change.new), change.new.id] = change.new
            if isinstance(change.new, Task) and change.new.state == TaskState.ASSIGNED:
                place = homes.setdefault(change.new.slot, change.new.node_id)
                assert change.new.node_id == place
