"""The label `afterswarm.depends-on`: what it says, what it refuses, and what it holds back until when."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core import dependencies, schedule
from afterswarm.core.admit import service as admit
from afterswarm.core.dependencies import Condition, Dependency
from afterswarm.model.base import Change, Obj
from afterswarm.model.refused import Refused
from afterswarm.model.service import (
    JobStatus,
    ReplicatedJob,
    ReplicatedService,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
)
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.sim.given import applied, nodes, service, swarm, task

WEB = replace(service(), id="web", rev=5)
DB = replace(service(), id="db")
ONCE = replace(service(restart=RestartPolicy(condition="none")), id="db").spec


def named(base: Service, name: str, waits: str = "", stack: str = "") -> Service:
    labels = {dependencies.LABEL: waits, **({dependencies.STACK: stack} if stack else {})}
    return replace(base, spec=replace(base.spec, name=name, labels=labels))


def web(waits: str, stack: str = "") -> list[Obj]:
    made = named(WEB, f"{stack}_web" if stack else "web", waits, stack)
    return [made, *(t for n in (1, 2) for t in task(f"w{n}", made, n, "", TaskState.PENDING))]


def db(state: TaskState = TaskState.RUNNING, name: str = "db", **fields: object) -> list[Obj]:
    made = named(replace(DB, **fields), name)
    return [made, *task("d1", made, state=state)]


def says(*objects: object) -> str:
    """What holds the tasks of web back; "" once they are placed."""
    snap = swarm(nodes("a", "b"), *objects)
    after = applied(snap, schedule.plan(snap, schedule.ALL).changes)
    found = [t for t in after.tasks.values() if t.service_id == "web"]
    assert {t.err for t in found} == {found[0].err}
    assert bool(found[0].err) == (found[0].state == TaskState.PENDING)
    return found[0].err


def test_what_it_says() -> None:
    assert dependencies.parse(" db:healthy, x ,m:completed:optional,") == [
        Dependency("db", Condition.HEALTHY),
        Dependency("x", Condition.STARTED),
        Dependency("m", Condition.COMPLETED, optional=True),
    ]


@pytest.mark.parametrize("bad", ["db:well", ":healthy", "db:healthy:perhaps", "a:healthy:optional:x"])
def test_what_cannot_be_read_is_refused(bad: str) -> None:
    with pytest.raises(Refused, match=r"invalid label afterswarm\.depends-on") as refused:
        dependencies.parse(bad)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("state", "waits", "err"),
    [
        (TaskState.STARTING, "db:healthy", "waiting for db to be healthy"),
        (TaskState.RUNNING, "db:healthy", ""),
        (TaskState.PREPARING, "db", "waiting for db to start"),
        (TaskState.STARTING, "db:started", ""),
        (TaskState.RUNNING, "db:completed", "waiting for db to complete"),
        (TaskState.COMPLETE, "db:completed", ""),
        (TaskState.COMPLETE, "db:healthy", "waiting for db to be healthy"),
    ],
)
def test_conditions(state: TaskState, waits: str, err: str) -> None:
    assert says(web(waits), db(state)) == err


def test_one_that_ended_well_and_stays_so_is_as_healthy_as_it_gets() -> None:
    assert says(web("db:healthy"), db(TaskState.COMPLETE, spec=ONCE)) == ""


def test_all_replicas_of_the_present_version_count() -> None:
    two = replace(DB.spec, mode=ServiceMode(replicated=ReplicatedService(replicas=2)))
    assert says(web("db:healthy"), db(spec=two)) == "waiting for db to be healthy (1 of 2)"
    newer = named(service(image="app:2", spec_version=7), "db")
    old = task("d1", DB)
    assert says(web("db:healthy"), [replace(newer, id="db"), *old]) == "waiting for db to be healthy"


def test_a_job_counts_by_its_present_execution() -> None:
    job = replace(DB.spec, mode=ServiceMode(replicated_job=ReplicatedJob(max_concurrent=1, total_completions=2)))
    again = named(replace(DB, spec=job, job_status=JobStatus(iteration=2, last_execution=0.0)), "db")
    before = task("d1", again, 1, state=TaskState.COMPLETE, job_iteration=1)
    first = task("d2", again, 1, state=TaskState.COMPLETE, job_iteration=2)
    second = task("d3", again, 2, state=TaskState.COMPLETE, job_iteration=2)
    assert says(web("db:completed"), again, before) == "waiting for db to complete (0 of 2)"
    assert says(web("db:completed"), again, before, first) == "waiting for db to complete (1 of 2)"
    assert says(web("db:completed"), again, first, second) == ""


def test_who_is_meant() -> None:
    """The service of the same stack goes before the one with just that name."""
    assert says(web("db:healthy", "shop"), db(TaskState.STARTING, "shop_db")) == "waiting for db to be healthy"
    assert says(web("db:healthy", "shop"), db(name="shop_db")) == ""
    assert says(web("db:healthy", "shop"), db(name="db")) == ""
    assert says(web("gone:healthy")) == "waiting for gone to be healthy: there is no such service"
    assert says(web("gone:healthy:optional")) == ""
    assert says(web("db:healthy:optional"), db(pending_delete=True)) == ""


def test_a_dependency_that_failed_for_good_is_named() -> None:
    made = db(TaskState.FAILED, spec=ONCE)
    reports = [replace(o, err="task: non-zero exit (3)") if isinstance(o, Report) else o for o in made]
    err = "waiting for db to complete: it failed (task: non-zero exit (3))"
    assert says(web("db:completed"), reports) == err
    assert says(web("db:completed"), db(TaskState.FAILED)) == "waiting for db to complete", "another try follows"


def test_who_has_begun_waits_no_more() -> None:
    """A task that heals is placed although its dependency is down; those of a new version wait."""
    running = task("w0", named(WEB, "web", "db:healthy"), 3)
    assert says(web("db:healthy"), [t for t in running if not isinstance(t, Task) or t.slot == 3]) == ""


def test_a_global_service_waits_too() -> None:
    everywhere = named(replace(service(None), id="web"), "web", "db:healthy")
    waiting = task("w1", everywhere, 0, "a", TaskState.PENDING)
    snap = swarm(nodes("a"), [everywhere, *waiting], db(TaskState.STARTING))
    (change,) = schedule.plan(snap, schedule.ALL).changes
    assert isinstance(change.new, Task)
    assert change.new.err == "waiting for db to be healthy"


def test_a_report_of_a_container_under_way_wakes_the_scheduler() -> None:
    _, report = task("d1", DB, state=TaskState.STARTING)
    assert list(schedule.keys_of(Change(None, report))) == [schedule.ALL]


@pytest.mark.parametrize(
    ("others", "waits", "cycle"),
    [
        ([], "web", "web -> web"),
        ([("db", "web:healthy")], "db:healthy", "web -> db -> web"),
        ([("db", "x"), ("x", "y,web"), ("y", "db")], "db", "web -> db -> x -> web"),
    ],
)
def test_services_that_wait_for_each_other_are_refused(others: list[tuple[str, str]], waits: str, cycle: str) -> None:
    there = [replace(named(DB, name, label), id=name) for name, label in others]
    with pytest.raises(Refused, match=f"{cycle} wait for each other") as refused:
        admit.create(swarm(*there), ServiceSpec(**_spec("web", waits)))
    assert refused.value.status == 400


def test_a_chain_is_no_cycle() -> None:
    there = [replace(named(DB, name, label), id=name) for name, label in (("db", "x"), ("x", "y"), ("y", ""))]
    assert admit.create(swarm(*there), ServiceSpec(**_spec("web", "db,x,y,nobody"))).name == "web"


def _spec(name: str, waits: str) -> dict[str, object]:
    return {"name": name, "labels": {dependencies.LABEL: waits}, "task_template": DB.spec.task_template}
