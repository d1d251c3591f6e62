"""When a service is well, when it never will be, and what is said meanwhile."""

from __future__ import annotations

import io
from typing import Any

import pytest

from afterswarm.stack.progress import Stage, judge
from afterswarm.stack.voice import Voice

Json = dict[str, Any]


def service(mode: Json | None = None, update: str = "", message: str = "") -> Json:
    found: Json = {"ID": "s", "Spec": {"Name": "web", "Mode": mode or {"Replicated": {"Replicas": 2}}}}
    return {**found, "UpdateStatus": {"State": update, "Message": message}} if update else found


def task(slot: int, state: str, desired: str = "running", err: str = "", at: int = 1) -> Json:
    status = {"State": state, **({"Err": err} if err else {})}
    return {
        "ID": f"{slot}.{at}",
        "ServiceID": "s",
        "Slot": slot,
        "DesiredState": desired,
        "Status": status,
        "CreatedAt": str(at),
    }


RUNS = [task(1, "running"), task(2, "running")]


@pytest.mark.parametrize(
    ("shown", "tasks", "stage", "text"),
    [
        (service(), RUNS, Stage.DONE, "2/2 running"),
        (service(), RUNS[:1], Stage.WAITING, "1/2 running"),
        (service(), [], Stage.WAITING, "0/2 running"),
        (service({"Replicated": {"Replicas": 0}}), [], Stage.DONE, "0/0 running"),
        (service({"Global": {}}), [], Stage.WAITING, "0/0 running"),
        (service({"Global": {}}), RUNS, Stage.DONE, "2/2 running"),
        (service(), [*RUNS, task(3, "running")], Stage.WAITING, "3/2 running"),
        (service(), [*RUNS, task(3, "running", "remove")], Stage.DONE, "2/2 running"),
        (service(), [task(1, "running"), task(2, "complete", "shutdown")], Stage.DONE, "2/2 running"),
        (service(), [task(1, "running"), task(2, "failed", "shutdown", "boom")], Stage.FAILED, "1/2 running (boom)"),
        (service(), [task(1, "running"), task(2, "failed", "running", "boom")], Stage.WAITING, "1/2 running"),
        (
            service(),
            [task(1, "running"), task(2, "failed", "shutdown", "boom"), task(2, "ready", "ready", at=2)],
            Stage.WAITING,
            "1/2 running (boom)",
        ),
        (service(), [task(1, "pending", err="no suitable node")], Stage.WAITING, "0/2 running (no suitable node)"),
        (
            service(),
            [task(1, "pending", err="waiting for db to complete: it failed (x)")],
            Stage.FAILED,
            "0/2 running (waiting for db to complete: it failed (x))",
        ),
        (service(update="updating"), RUNS, Stage.WAITING, "updating, 2/2 running"),
        (service(update="completed"), RUNS, Stage.DONE, "2/2 running"),
        (service(update="paused", message="update paused"), RUNS, Stage.FAILED, "update paused"),
        (service(update="rollback_completed", message="rolled back"), RUNS, Stage.FAILED, "rolled back"),
    ],
)
def test_services(shown: Json, tasks: list[Json], stage: Stage, text: str) -> None:
    current = {t["ID"] for t in tasks if t["DesiredState"] != "remove"}
    look = judge(shown, tasks, current, changed=True)
    assert (look.stage, str(look)) == (stage, f"web: {text}")


def test_an_earlier_rollback_is_no_failure() -> None:
    assert judge(service(update="rollback_completed"), RUNS, {"1.1", "2.1"}, changed=False).stage is Stage.DONE


def test_old_tasks_are_waited_for() -> None:
    tasks = [*RUNS, task(1, "running", at=0)]
    assert judge(service(), tasks, {"1.1", "2.1"}, changed=True).stage is Stage.WAITING


@pytest.mark.parametrize(
    ("states", "stage"),
    [
        (["complete", "complete"], Stage.DONE),
        (["complete", "running"], Stage.WAITING),
        (["complete", "failed"], Stage.FAILED),
    ],
)
def test_jobs(states: list[str], stage: Stage) -> None:
    job = {
        **service({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}),
        "JobStatus": {"JobIteration": {"Index": 3}},
    }
    tasks = [
        task(n, s, "shutdown" if s == "failed" else "complete", "boom") | {"JobIteration": {"Index": 3}}
        for n, s in enumerate(states, 1)
    ]
    before = [task(n, "complete", "complete", at=0) | {"JobIteration": {"Index": 2}} for n in (1, 2)]
    assert judge(job, [*before, *tasks], set(), changed=True).stage is stage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_that_are_new_or_written_over() -> None:
    looks = [judge(service(), RUNS[:n], {"1.1", "2.1"}, changed=True) for n in (0, 0, 2)]
    plain, terminal, quiet = io.StringIO(), Terminal(), io.StringIO()
    for out, still in ((plain, False), (terminal, False), (quiet, True)):
        voice = Voice(out, io.StringIO(), quiet=still)
        for look in looks:
            voice.progress([look])
    assert plain.getvalue() == "…      web: 0/2 running\nok     web: 2/2 running\n"
    assert terminal.getvalue().count("\x1b[1A") == 2
    assert quiet.getvalue() == ""
