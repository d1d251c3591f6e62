"""The next step of a task's container: examples in Docker's words, and properties over every combination."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.host.container import (
    Create,
    Join,
    Known,
    Pull,
    Release,
    Remove,
    Start,
    Stop,
    Wait,
    image,
    is_over,
    turn,
)
from afterswarm.core.host.seen import Seen
from afterswarm.model.service import SECOND, ContainerSpec, TaskSpec
from afterswarm.model.task import Report, Task, TaskState

S = TaskState
NOW = 1000.0


def a_task(desired=S.RUNNING, **spec):
    return Task(
        id="t", service_name="web", slot=1, desired=desired, spec=TaskSpec(container_spec=ContainerSpec(**spec))
    )


def a_report(state=S.ASSIGNED, message=""):
    return Report(id="t", state=state, message=message)


CREATED = Seen(id="c")
RUNNING = Seen(id="c", alive=True, started_at=900.0, pid=7)
EXITED = Seen(id="c", started_at=900.0, finished_at=950.0)
READY_TO_MAKE = Known(pulled=True)


def test_an_image_is_pulled_before_its_container_is_made():
    done = turn(a_task(image="web"), a_report(), Known(), None, NOW)
    assert done.step == Pull("web:latest", unless_here=False)
    assert (done.report.state, done.report.message, done.report.since) == (S.PREPARING, "preparing", NOW)
    assert turn(a_task(image="web"), done.report, READY_TO_MAKE, None, NOW).step == Create()


@pytest.mark.parametrize(
    ("given_image", "pulled"),
    [
        ("web", "web:latest"),
        ("web:2", "web:2"),
        ("10.0.0.1:5000/web", "10.0.0.1:5000/web:latest"),
        ("10.0.0.1:5000/web:2", "10.0.0.1:5000/web:2"),
        ("web:2@sha256:aa", "web:2@sha256:aa"),
    ],
)
def test_the_reference_to_pull(given_image, pulled):
    assert image(a_task(image=given_image)) == pulled


def test_only_a_digest_that_is_here_needs_no_registry():
    assert turn(a_task(image="web:1@sha256:aa"), a_report(), Known(), None, NOW).step == Pull(
        "web:1@sha256:aa", unless_here=True
    )


def test_a_service_may_say_when_to_pull():
    def step(policy):
        task = replace(a_task(image="web:1"), service_labels={"afterswarm.pull-policy": policy})
        return turn(task, a_report(), Known(), None, NOW).step

    assert step("always") == Pull("web:1", unless_here=False)
    assert step("missing") == Pull("web:1", unless_here=True)
    assert step("never") == Create()


def test_an_image_named_by_its_id_is_never_pulled():
    assert turn(a_task(image="sha256:" + "a" * 64), a_report(), Known(), None, NOW).step == Create()


def test_a_pull_that_failed_does_not_matter_when_the_image_is_here():
    known = Known(pulled=True, pull_error="connection refused")
    assert turn(a_task(image="web"), a_report(S.PREPARING), known, None, NOW).step == Create()


def test_an_image_that_is_nowhere_says_what_the_registry_said():
    known = Known(pulled=True, pull_error="manifest unknown", error="No such image: web:2")
    done = turn(a_task(image="web:2"), a_report(S.PREPARING, "preparing"), known, None, NOW)
    assert done.report.state == S.REJECTED
    assert done.report.err == "No such image: web:2 (manifest unknown)"
    assert done.report.message == "preparing"


def test_a_container_waits_ready_until_it_is_to_run():
    done = turn(a_task(S.READY), a_report(S.PREPARING), READY_TO_MAKE, CREATED, NOW)
    assert done.step == Wait()
    assert (done.report.state, done.report.message) == (S.READY, "prepared")
    done = turn(a_task(S.RUNNING), done.report, READY_TO_MAKE, CREATED, NOW)
    assert done.step == Start()
    assert done.report.state == S.STARTING


def test_a_container_runs_for_others_only_when_the_kernel_routes_for_it():
    done = turn(a_task(), a_report(S.STARTING), READY_TO_MAKE, RUNNING, NOW)
    assert done.step == Join(7)
    assert done.report.state == S.STARTING
    done = turn(a_task(), done.report, Known(joined=True), RUNNING, NOW)
    assert (done.step, done.report.state, done.report.message) == (Wait(), S.RUNNING, "started")
    assert (done.report.since, done.report.started) == (900.0, 900.0)
    assert (done.report.pid, done.report.container_id) == (7, "c")


def test_a_health_check_gates_running():
    checked = replace(RUNNING, health="starting")
    done = turn(a_task(), a_report(S.STARTING), Known(joined=True), checked, NOW)
    assert (done.step, done.report.state) == (Wait(), S.STARTING)
    done = turn(a_task(), done.report, Known(joined=True), replace(checked, health="healthy"), NOW)
    assert (done.report.state, done.report.since) == (S.RUNNING, NOW)


@pytest.mark.parametrize("state", [S.STARTING, S.RUNNING])
def test_an_unhealthy_container_is_stopped_and_then_failed(state):
    sick = replace(RUNNING, health="unhealthy")
    done = turn(a_task(stop_grace_period=3 * SECOND), a_report(state, "started"), Known(joined=True), sick, NOW)
    assert done.step == Stop(3.0, "task: unhealthy container")
    assert done.report.state == state
    stopped = replace(EXITED, exit_code=0)
    done = turn(a_task(), done.report, Known(joined=True, why_stopped="task: unhealthy container"), stopped, NOW)
    assert (done.report.state, done.report.err) == (S.FAILED, "task: unhealthy container")


def test_exit_zero_is_complete():
    done = turn(a_task(), a_report(S.RUNNING), Known(joined=True), EXITED, NOW)
    assert (done.report.state, done.report.message, done.report.since) == (S.COMPLETE, "finished", 950.0)
    assert not done.report.err


@pytest.mark.parametrize(
    ("shown", "err"),
    [
        (replace(EXITED, exit_code=1), "task: non-zero exit (1)"),
        (replace(EXITED, exit_code=137, oom_killed=True), "task: non-zero exit (137): out of memory"),
        (replace(EXITED, exit_code=128, error="boom"), "task: non-zero exit (128): boom"),
        (None, "task: container destroyed"),
    ],
)
def test_an_end_that_nobody_asked_for_is_a_failure(shown, err):
    done = turn(a_task(), a_report(S.RUNNING, "started"), Known(joined=True), shown, NOW)
    assert (done.report.state, done.report.err, done.report.message) == (S.FAILED, err, "started")


def test_after_a_reboot_a_task_that_ran_has_failed():
    done = turn(a_task(), a_report(S.ASSIGNED), Known(), replace(EXITED, exit_code=255), NOW)
    assert (done.report.state, done.report.err) == (S.FAILED, "task: non-zero exit (255)")
    assert (done.report.started, done.report.since) == (900.0, 950.0)


def test_a_container_that_cannot_be_started_has_failed():
    known = Known(pulled=True, error="starting container failed: no such file")
    done = turn(a_task(), a_report(S.STARTING, "starting"), known, CREATED, NOW)
    assert (done.report.state, done.report.err) == (S.FAILED, "starting container failed: no such file")


def test_stopped_because_wanted_is_shutdown_whatever_the_exit_code():
    done = turn(a_task(S.SHUTDOWN), a_report(S.RUNNING), Known(joined=True), RUNNING, NOW)
    assert done.step == Stop(10.0)
    assert done.report.state == S.RUNNING
    for code in (0, 143):
        after = turn(a_task(S.SHUTDOWN), done.report, Known(), replace(EXITED, exit_code=code), NOW)
        assert (after.report.state, after.report.message, after.step) == (S.SHUTDOWN, "shutdown", Release())


def test_a_stopped_container_is_kept_until_its_task_is_to_be_removed():
    report = a_report(S.SHUTDOWN)
    assert turn(a_task(S.SHUTDOWN), report, Known(released=True), EXITED, NOW).step == Wait()
    assert turn(a_task(S.REMOVE), report, Known(released=True), EXITED, NOW).step == Remove()
    assert turn(a_task(S.REMOVE), report, Known(released=True), None, NOW).step == Wait()


def test_a_task_that_was_given_up_elsewhere_is_stopped():
    done = turn(replace(a_task(), state=S.ORPHANED), a_report(S.RUNNING), Known(joined=True), RUNNING, NOW)
    assert isinstance(done.step, Stop)


def test_a_job_runs_to_its_end():
    done = turn(a_task(S.COMPLETE), a_report(S.RUNNING), Known(joined=True), RUNNING, NOW)
    assert done.step == Wait()


def test_nothing_is_said_of_an_adopted_container_before_all_is_known():
    adopted = Known(adopted=True)
    done = turn(a_task(), a_report(S.ASSIGNED), adopted, replace(RUNNING, health="healthy"), NOW)
    assert (done.step, done.report.state) == (Join(7), S.ASSIGNED)
    done = turn(a_task(), done.report, replace(adopted, joined=True), replace(RUNNING, health="healthy"), NOW)
    assert (done.report.state, done.report.since) == (S.RUNNING, 900.0)


# ---- every combination -----------------------------------------------------------------------------------------

words = st.sampled_from(["", "some words"])
flags = st.booleans()
tasks = st.builds(
    Task,
    id=st.just("t"),
    state=st.sampled_from(S),
    desired=st.sampled_from(S),
    spec=st.builds(TaskSpec, container_spec=st.none() | st.builds(ContainerSpec, image=st.sampled_from(["", "web"]))),
)
reports = st.builds(Report, id=st.just("t"), state=st.sampled_from(S), err=words, message=words)
knowns = st.builds(
    Known,
    pulled=flags,
    pull_error=words,
    error=words,
    trouble=words,
    adopted=flags,
    joined=flags,
    why_stopped=words,
    released=flags,
)
seens = st.none() | st.builds(
    Seen,
    id=st.just("c"),
    alive=flags,
    started_at=st.sampled_from([0.0, 900.0]),
    finished_at=st.sampled_from([0.0, 950.0]),
    pid=st.integers(0, 9),
    exit_code=st.sampled_from([0, 1, 137]),
    error=words,
    oom_killed=flags,
    health=st.sampled_from(["", "starting", "healthy", "unhealthy"]),
)


@given(tasks, reports, knowns, seens)
@settings(max_examples=2000)
def test_there_is_always_a_step_and_states_only_grow(task, report, known, shown):
    done = turn(task, report, known, shown, NOW)
    assert done.report.state >= report.state
    if is_over(report):
        assert (done.report.state, done.report.err) == (report.state, report.err)


@given(tasks, reports, knowns, seens)
@settings(max_examples=2000)
def test_nothing_is_made_or_started_for_a_task_that_is_to_stop_or_over(task, report, known, shown):
    done = turn(task, report, known, shown, NOW)
    if task.desired >= S.SHUTDOWN or task.state == S.ORPHANED or is_over(report):
        assert isinstance(done.step, Stop | Release | Remove | Wait)
    if shown is not None and shown.alive and (task.desired >= S.SHUTDOWN or is_over(report)):
        assert isinstance(done.step, Stop)


@given(tasks, reports, knowns, seens)
@settings(max_examples=2000)
def test_only_a_stopped_container_of_a_task_to_remove_is_removed(task, report, known, shown):
    if turn(task, report, known, shown, NOW).step == Remove():
        assert task.desired >= S.REMOVE
        assert shown is not None
        assert not shown.alive


@given(tasks, reports, knowns, seens)
@settings(max_examples=2000)
def test_running_is_said_only_of_a_live_healthy_joined_container(task, report, known, shown):
    done = turn(task, report, known, shown, NOW)
    if done.report.state == S.RUNNING != report.state:
        assert shown is not None
        assert shown.alive
        assert shown.health in ("", "healthy")
        assert known.joined


@given(tasks, reports, knowns, seens)
@settings(max_examples=1000)
def test_asking_again_changes_nothing(task, report, known, shown):
    once = turn(task, report, known, shown, NOW)
    again = turn(task, once.report, known, shown, NOW + 1)
    assert again == once


EFFECT = {Pull: {"pulled": True}, Join: {"joined": True}, Release: {"released": True}}


@given(tasks, knowns, seens, st.sampled_from([0, 1]))
@settings(max_examples=1000)
def test_taking_the_steps_one_after_the_other_comes_to_rest(task, known, shown, code):
    """An engine that does what it is told: after a few steps there is nothing to do."""
    report = a_report()
    for _ in range(12):
        done = turn(task, report, known, shown, NOW)
        report = done.report
        match done.step:
            case Wait():
                break
            case Create():
                shown = CREATED
            case Start():
                shown = RUNNING
            case Stop():
                known = replace(known, why_stopped=done.step.why or known.why_stopped)
                shown = replace(shown, alive=False, started_at=shown.started_at or 900.0, exit_code=code, pid=0)
            case Remove():
                shown = None
            case step:
                known = replace(known, **EFFECT[type(step)])
    else:
        pytest.fail(f"still {done.step} after 12 steps")
    if task.desired >= S.SHUTDOWN:
        assert is_over(report)
        assert shown is None or not shown.alive
    if task.desired >= S.REMOVE:
        assert shown is None
