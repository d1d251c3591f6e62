"""What to do next about one task's container, and what to say of it: asked again after every step and every event.

The states that an agent reports, in order, and what moves a task on:

    ASSIGNED -> PREPARING      accepted: image and container are being made
    PREPARING -> READY         the container is there, and no more than READY is desired
    … -> STARTING              desired RUNNING; stays there until the health check, if any, has passed
    STARTING -> RUNNING        the container runs, and the host's kernel routes for it
    … -> COMPLETE, FAILED      it ended by itself, or was stopped for being unhealthy
    before STARTING -> REJECTED  it cannot be prepared
    … -> SHUTDOWN              stopped because that is desired

Words are Docker's (`docker service ps` shows them). Talking to the engine is left to `agent.runner`.
"""

from __future__ import annotations

import re

import msgspec
from msgspec.structs import replace

from afterswarm.core.host import container_config
from afterswarm.core.host.seen import Seen
from afterswarm.core.options.table import PULL_POLICY
from afterswarm.model.task import Report, Task, TaskState

UNHEALTHY = "task: unhealthy container"
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}$")


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner remembers of its own acts, because the engine does not show it."""

    pulled: bool = False  # a pull was tried
    pull_error: str = ""
    error: str = ""  # why preparing or starting failed, for good
    trouble: str = ""  # why the last step is being tried again
    adopted: bool = False  # the container ran before this agent did
    joined: bool = False  # the kernel routes for the container
    why_stopped: str = ""  # it was stopped for this reason, not because that was desired
    released: bool = False  # network and files were given back


class Pull(msgspec.Struct, frozen=True):
    image: str
    unless_here: bool  # the reference has a digest: an image that is here is the right one


class Create(msgspec.Struct, frozen=True):
    pass


class Start(msgspec.Struct, frozen=True):
    pass


class Join(msgspec.Struct, frozen=True):
    """Make the host's kernel route for the container's process."""

    pid: int


class Stop(msgspec.Struct, frozen=True):
    grace: float  # seconds
    why: str = ""


class Release(msgspec.Struct, frozen=True):
    """Give back what a stopped container does not need: routing and files."""


class Remove(msgspec.Struct, frozen=True):
    """Remove the container with its anonymous volumes."""


class Wait(msgspec.Struct, frozen=True):
    """Until the engine or the task says something new."""


Step = Pull | Create | Start | Join | Stop | Release | Remove | Wait


class Turn(msgspec.Struct, frozen=True):
    """What to report now, and the step to take after that."""

    step: Step
    report: Report


def turn(task: Task, report: Report, known: Known, shown: Seen | None, now: float) -> Turn:
    """The next step of `task`. `report` is the last one, `shown` its container (`None`: there is none)."""
    if shown is not None and (known.joined or not shown.alive):  # a process is not worth a report of its own
        report = _facts(report, shown)
    if is_over(report):
        return _clean_up(task, report, known, shown)
    report = replace(report, err=known.trouble)
    if shown is not None and shown.alive:
        return _alive(task, report, known, shown, now)
    ended = _ended(task, report, known, shown, now)
    if is_over(ended):
        return _clean_up(task, ended, known, shown)
    if shown is None:
        step = Create() if known.pulled or _IMAGE_ID.match(image(task)) else _pull(task)
        return Turn(step, _to(report, TaskState.PREPARING, "preparing", now))
    if task.desired <= TaskState.READY:
        return Turn(Wait(), _to(report, TaskState.READY, "prepared", now))
    return Turn(Start(), _to(report, TaskState.STARTING, "starting", now))


def is_over(report: Report) -> bool:
    return report.state >= TaskState.COMPLETE


def must_stop(task: Task) -> bool:
    """COMPLETE is what jobs are to reach: that is no reason to stop one."""
    return task.desired >= TaskState.SHUTDOWN or task.state == TaskState.ORPHANED


def image(task: Task) -> str:
    """The image to pull: without a tag or digest the engine would pull every tag there is."""
    named = container_config.spec_of(task).image
    return named if "@" in named or ":" in named.rpartition("/")[2] or not named else f"{named}:latest"


def _pull(task: Task) -> Pull | Create:
    policy = task.service_labels.get(PULL_POLICY)
    if policy == "never":
        return Create()
    return Pull(image(task), unless_here="@" in image(task) or policy == "missing")


def _alive(task: Task, report: Report, known: Known, shown: Seen, now: float) -> Turn:
    if must_stop(task):
        return Turn(Stop(container_config.grace(task)), report)
    if shown.health == "unhealthy" or known.why_stopped:
        return Turn(Stop(container_config.grace(task), known.why_stopped or UNHEALTHY), report)
    if not known.joined:
        # Nothing is said of an adopted container until all is known: RUNNING was reported before.
        said = report if known.adopted else _to(report, TaskState.STARTING, "starting", now)
        return Turn(Join(shown.pid), said)
    if shown.health == "starting":
        return Turn(Wait(), _to(report, TaskState.STARTING, "starting", now))
    if report.state < TaskState.RUNNING:
        since = shown.started_at if shown.started_at and (known.adopted or not shown.health) else now
        report = replace(_to(report, TaskState.RUNNING, "started", since), started=since)
    return Turn(Wait(), report)


def _ended(task: Task, report: Report, known: Known, shown: Seen | None, now: float) -> Report:
    """The last report of a task whose container has no process, or `report` if there is more to come."""
    when = (shown.finished_at if shown else 0.0) or now
    if known.why_stopped:
        return _fail(report, known.why_stopped, when)
    if must_stop(task):
        return _to(report, TaskState.SHUTDOWN, "shutdown", now)
    if known.error:
        return _fail(report, _with_cause(known), now)
    if shown is None:
        lost = report.state >= TaskState.STARTING
        return _fail(report, "task: container destroyed", now) if lost else report
    if not shown.ran:
        return report
    if report.state < TaskState.STARTING:  # it was started by an earlier life of this agent
        report = replace(report, state=TaskState.STARTING, started=shown.started_at)
    if shown.exit_code == 0:
        return _to(report, TaskState.COMPLETE, "finished", when)
    cause = shown.error or ("out of memory" if shown.oom_killed else "")
    words = f"task: non-zero exit ({shown.exit_code})" + (f": {cause}" if cause else "")
    return _fail(report, words, when)


def _fail(report: Report, err: str, when: float) -> Report:
    """FAILED, or REJECTED if it was never started. The message stays: it says how far the task had come."""
    state = TaskState.REJECTED if report.state < TaskState.STARTING else TaskState.FAILED
    return replace(_to(report, state, report.message, when), err=err)


def _with_cause(known: Known) -> str:
    """That an image is not here is the engine's word; why it could not be pulled is the registry's."""
    missing = known.error.lower().startswith("no such image")
    return f"{known.error} ({known.pull_error})" if missing and known.pull_error else known.error


def _clean_up(task: Task, report: Report, known: Known, shown: Seen | None) -> Turn:
    """The container of a task that is over stays, for its logs, until the task is to be removed."""
    if shown is not None and shown.alive:
        return Turn(Stop(container_config.grace(task)), report)
    if not known.released:
        return Turn(Release(), report)
    if task.desired >= TaskState.REMOVE and shown is not None:
        return Turn(Remove(), report)
    return Turn(Wait(), report)


def _to(report: Report, state: TaskState, message: str, when: float) -> Report:
    """States only grow: a state that was passed is not entered again."""
    if state <= report.state:
        return report
    report = replace(report, state=state, message=message, since=when)
    return replace(report, err="") if is_over(report) else report


def _facts(report: Report, shown: Seen) -> Report:
    return replace(
        report,
        container_id=shown.id,
        pid=shown.pid,
        exit_code=shown.exit_code,
        ports=list(shown.ports) if shown.alive else report.ports,
    )
