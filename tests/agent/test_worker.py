"""The worker of one host on a simulated engine, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from afterswarm.agent.containers.files import Files
from afterswarm.agent.containers.worker import Worker
from afterswarm.model.node import Description
from afterswarm.model.service import (
    SECOND,
    ContainerSpec,
    Healthcheck,
    Platform,
    PortConfig,
    SecretReference,
    TaskSpec,
)
from afterswarm.model.session import PullAuth, SecretData, Wanted
from afterswarm.model.task import Attachment, Report, Task, TaskState
from afterswarm.ports import EngineError, Json
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.container import Program
from afterswarm.sim.engine import SimEngine

pytestmark = pytest.mark.looptime

S = TaskState
CHECK = Healthcheck(test=["CMD", "true"])
EPOCH = 1_700_000_000.0


class WiredNetwork:
    """Implements `HostNetwork`: one engine network per attachment, and a record of what was asked."""

    def __init__(self) -> None:
        self.joined: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []
        self.failure = ""
        self.draining = 0.0  # seconds
        self.surprise: Exception | None = None

    async def prepare(self, task: Task) -> list[tuple[str, Json]]:
        self.asked.append(("prepare", task.id))
        if self.failure:
            raise EngineError(500, self.failure)
        if self.surprise:
            raise self.surprise
        return [(a.network_id, {"IPAMConfig": {"IPv4Address": a.address}}) for a in task.attachments]

    def dns(self, task: Task) -> list[str]:
        return ["10.0.1.2"] if task.attachments else []

    async def started(self, task: Task, pid: int) -> None:
        self.asked.append(("started", task.id))
        await asyncio.sleep(0.05)
        self.joined[task.id] = pid

    async def drain(self, task: Task) -> None:
        self.asked.append(("drain", task.id))
        await asyncio.sleep(self.draining)

    async def stopped(self, task_id: str) -> None:
        self.asked.append(("stopped", task_id))
        self.joined.pop(task_id, None)


class Host:
    """An engine, a network and a disk; daemons come and go (`daemon`)."""

    def __init__(self, run_dir: Path) -> None:
        self.clock = LoopClock(EPOCH)
        self.engine = SimEngine(clock=self.clock)
        self.engine.registry |= {"web:latest", "db:1"}
        self.engine.images |= {"web"}
        self.network = WiredNetwork()
        self.run_dir = run_dir
        self.said: list[Report] = []
        self.worker: Worker
        self.rev = 0
        self.prefer_offline = False

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Worker]:
        self.worker = Worker(
            engine=self.engine,
            network=self.network,
            clock=self.clock,
            node_id="n1",
            hostname="swarm-1",
            run_dir=self.run_dir,
            report=self.said.append,
            files=Files(self.run_dir, mount=lambda _: None),
            prefer_offline=self.prefer_offline,
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.worker.run())
            yield self.worker
            running.cancel()

    def want(self, *tasks: Task, secrets: list[SecretData] | None = None, auths: list[PullAuth] | None = None) -> None:
        self.rev += 1
        self.worker.want(Wanted(rev=self.rev, tasks=list(tasks), secrets=secrets, auths=auths))

    def states(self, task: Task) -> list[TaskState]:
        """The states that were said of a task, each once."""
        return list(dict.fromkeys(r.state for r in self.said if r.id == task.id))

    def last(self, task: Task) -> Report:
        return next(r for r in reversed(self.said) if r.id == task.id)

    def asked(self, what: str) -> list[str]:
        return [of for call, of in self.engine.calls if call == what]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def a_task(name: str = "t1", *, image: str = "web", desired: TaskState = S.RUNNING, **spec: object) -> Task:
    container = ContainerSpec(image=image, **spec)  # type: ignore[arg-type]
    return Task(
        id=name, service_id="s1", service_name="web", slot=1, desired=desired, spec=TaskSpec(container_spec=container)
    )


async def test_a_task_goes_all_the_way_and_its_states_are_said_in_order(host):
    task = a_task(image="db:1")
    async with host.daemon() as worker:
        host.want(task)
        await asyncio.sleep(3)
        assert host.states(task) == [S.PREPARING, S.STARTING, S.RUNNING]
        report = host.last(task)
        assert (report.node_id, report.service_id, report.message, report.err) == ("n1", "s1", "started", "")
        assert report.pid == host.network.joined["t1"] > 0
        assert worker.reports() == [report]
        assert host.engine.running() == ["web.1.t1"]
        assert host.asked("pull") == ["db:1"]


async def test_running_is_said_only_after_the_health_check_and_within_a_moment_of_it(host):
    host.engine.programs["web"] = Program(healthy_after=20)
    task = a_task(healthcheck=CHECK)
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(20)
        assert host.states(task)[-1] == S.STARTING
        assert host.network.joined  # it can reach others while it becomes healthy
        await asyncio.sleep(1.5)
        assert host.states(task)[-1] == S.RUNNING


async def test_an_unhealthy_container_is_stopped_and_failed(host):
    host.engine.programs["web"] = Program(unhealthy_after=30)
    task = a_task(healthcheck=CHECK)
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(40)
        assert host.states(task) == [S.PREPARING, S.STARTING, S.RUNNING, S.FAILED]
        assert host.last(task).err == "task: unhealthy container"
        assert host.engine.running() == []
        assert host.asked("remove") == []  # its logs are of interest


async def test_a_container_is_told_to_end_only_once_it_is_drained(host):
    host.network.draining = 4
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        host.want(replace(task, desired=S.SHUTDOWN))
        await asyncio.sleep(3.9)
        assert host.network.asked[-1] == ("drain", "t1")
        assert host.engine.running() == ["web.1.t1"]
        await asyncio.sleep(1)
        assert host.engine.running() == []
        assert host.last(task).state == S.SHUTDOWN


async def test_what_does_not_work_is_not_drained(host):
    """One that is unhealthy, one that never became healthy, and one that the swarm knows no more."""
    host.network.draining = 1000
    host.engine.programs["web"] = Program(unhealthy_after=30)
    host.engine.programs["db:1"] = Program(healthy_after=1000)
    sick, late, lost = a_task(healthcheck=CHECK), a_task("t2", image="db:1", healthcheck=CHECK), a_task("t3")
    async with host.daemon():
        host.want(sick, late, lost)
        await asyncio.sleep(20)
        host.want(sick, replace(late, desired=S.SHUTDOWN))
        await asyncio.sleep(30)
        assert host.engine.running() == []
        assert not [of for call, of in host.network.asked if call == "drain"]


async def test_a_container_that_ends_is_noticed_by_event(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        host.engine.exit("web.1.t1", 3)
        await asyncio.sleep(0.2)
        assert host.last(task).state == S.FAILED
        assert (host.last(task).err, host.last(task).exit_code) == ("task: non-zero exit (3)", 3)


async def test_a_missed_event_is_made_up_for(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(13)
        for queue in host.engine._listeners:
            host.engine._listeners.remove(queue)
        host.engine.exit("web.1.t1", 0)
        await asyncio.sleep(0.2)
        assert host.last(task).state == S.RUNNING
        await asyncio.sleep(10)
        assert host.last(task).state == S.COMPLETE
        host.engine._listeners.append(queue)


async def test_ready_waits_for_running(host):
    task = a_task(desired=S.READY)
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(5)
        assert host.states(task) == [S.PREPARING, S.READY]
        assert host.asked("start") == []
        host.want(replace(task, desired=S.RUNNING))
        await asyncio.sleep(0.5)
        assert host.states(task)[-1] == S.RUNNING


async def test_an_image_that_is_nowhere_is_rejected_with_the_registrys_words(host):
    task = a_task(image="nowhere:1")
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        report = host.last(task)
        assert report.state == S.REJECTED
        assert report.err.startswith("No such image: nowhere:1 (manifest for nowhere:1 not found")


async def test_what_the_network_refuses_is_said(host):
    host.network.failure = "Pool overlaps with other one on this address space"
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        assert (host.last(task).state, host.last(task).err) == (S.REJECTED, host.network.failure)


async def test_a_program_that_cannot_be_started_has_failed(host):
    host.engine.programs["web"] = Program(start_error='exec: "x": executable file not found in $PATH: unknown')
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        assert host.last(task).state == S.FAILED
        assert host.last(task).err.startswith("starting container failed: exec")


async def test_shutdown_keeps_the_container_and_removal_does_not(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        host.want(replace(task, desired=S.SHUTDOWN))
        await asyncio.sleep(1)
        assert (host.last(task).state, host.last(task).message) == (S.SHUTDOWN, "shutdown")
        assert host.engine.running() == []
        assert len(host.engine.made) == 1
        assert host.network.joined == {}
        host.want(replace(task, desired=S.REMOVE))
        await asyncio.sleep(1)
        assert host.engine.made == {}
        host.want()
        await asyncio.wait_for(host.worker.emptied(), 1)
        assert host.worker.reports() == []


async def test_a_task_that_is_no_longer_wanted_goes_without_a_word(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        said = len(host.said)
        host.want()
        await asyncio.wait_for(host.worker.emptied(), 30)
        assert host.engine.made == {}
        assert len(host.said) == said


async def test_a_host_without_containers_has_nothing_to_wait_for(host):
    async with host.daemon():
        host.want()
        await asyncio.sleep(1)
        host.want()
        await asyncio.wait_for(host.worker.emptied(), 1)


async def test_the_grace_of_one_container_holds_up_no_other(host):
    host.engine.programs["web"] = Program(stop_takes=1000)
    slow, other = a_task("slow", stop_grace_period=60 * SECOND), a_task("other", image="db:1")
    async with host.daemon():
        host.want(slow)
        await asyncio.sleep(3)
        host.want(replace(slow, desired=S.SHUTDOWN), other)
        await asyncio.sleep(5)
        assert host.states(other)[-1] == S.RUNNING
        assert host.states(slow)[-1] == S.RUNNING
        await asyncio.sleep(58)
        assert (host.last(slow).state, host.last(slow).exit_code) == (S.SHUTDOWN, 137)


async def test_one_image_is_pulled_once_for_all_that_wait_for_it(host):
    tasks = [a_task(f"t{n}", image="db:1") for n in range(5)]
    async with host.daemon():
        host.want(*tasks)
        await asyncio.sleep(5)
        assert host.asked("pull") == ["db:1"]
        assert len(host.engine.running()) == 5


async def test_a_host_that_prefers_what_it_has_pulls_only_what_it_has_not(host):
    host.prefer_offline = True
    host.engine.images.add("here:1")
    async with host.daemon():
        host.want(a_task(image="here:1"), a_task("t2", image="db:1"))
        await asyncio.sleep(3)
        assert host.asked("pull") == ["db:1"]
        assert len(host.engine.running()) == 2


async def test_what_templates_say_of_the_host_is_what_its_engine_says(host):
    platform = Platform(architecture="x86_64", os="linux")
    async with host.daemon() as worker:
        worker.here(Description(hostname="its-name", platform=platform))
        host.want(a_task(hostname="{{.Node.Hostname}}-{{.Node.Platform.OS}}"))
        await asyncio.sleep(3)
        (made,) = host.engine.made.values()
        assert made.body["Hostname"] == "its-name-linux"


async def test_a_private_image_is_pulled_with_what_came_with_its_service_and_not_with_anothers(host):
    host.engine.private = {"db:1": "for s1"}
    ours, theirs = a_task(image="db:1"), replace(a_task("t2", image="db:1"), service_id="s2", service_name="other")
    async with host.daemon():
        host.want(theirs)
        await asyncio.sleep(2)
        assert host.last(theirs).state == S.REJECTED
        assert host.last(theirs).err == (
            "No such image: db:1 (Head https://registry/v2/db:1: no basic auth credentials)"
        )
        host.want(ours, theirs, auths=[PullAuth(service_id="s1", auth="for s1")])
        await asyncio.sleep(2)
        assert host.last(ours).state == S.RUNNING
        assert host.asked("pull") == ["db:1", "db:1"]


async def test_a_task_can_be_stopped_while_its_image_is_on_the_way(host):
    host.engine.pull_takes = 600
    task = a_task(image="db:1")
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        host.want(replace(task, desired=S.SHUTDOWN))
        await asyncio.sleep(1)
        assert host.states(task) == [S.PREPARING, S.SHUTDOWN]
        await asyncio.sleep(700)
        assert host.asked("create") == []


async def test_a_digest_that_is_here_is_not_asked_of_the_registry(host):
    pinned = "web@sha256:" + "a" * 64
    host.engine.images.add(pinned)
    task = a_task(image=pinned)
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        assert host.last(task).state == S.RUNNING
        assert host.asked("pull") == []


async def test_containers_outlive_the_daemon_and_are_adopted(host):
    task = a_task(healthcheck=CHECK)
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
    started = host.last(task)
    host.network.joined.clear()
    host.said.clear()
    await asyncio.sleep(60)
    async with host.daemon():
        await asyncio.sleep(30)  # no manager yet: hands off
        assert host.engine.running() == ["web.1.t1"]
        host.want(task)
        await asyncio.sleep(2)
        assert host.states(task) == [S.RUNNING]
        assert host.last(task).container_id == started.container_id
        assert host.last(task).since == pytest.approx(started.since, abs=2)
        assert host.network.joined
        assert len(host.asked("create")) == len(host.asked("start")) == 1


async def test_a_daemon_that_died_between_create_and_start_goes_on_from_there(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        while not host.engine.made:  # noqa: ASYNC110 - the moment between two calls
            await asyncio.sleep(0.001)
    assert host.engine.running() == []
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        assert host.states(task)[-1] == S.RUNNING
        assert len(host.asked("create")) == 1


async def test_after_a_power_cut_what_ran_has_failed_and_strays_are_removed(host):
    task, stray = a_task("t1"), a_task("t2")
    async with host.daemon():
        host.want(task, stray)
        await asyncio.sleep(3)
        host.engine.crash()
    host.engine.boot()
    host.said.clear()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        assert host.states(task) == [S.FAILED]
        assert host.last(task).err == "task: non-zero exit (255)"
        assert [c.name for c in host.engine.made.values()] == ["web.1.t1"]
        assert host.states(stray) == []


async def test_a_host_that_returns_stops_what_runs_elsewhere_by_now(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
    async with host.daemon():
        host.want()
        await asyncio.wait_for(host.worker.emptied(), 30)
        assert host.engine.made == {}


async def test_an_engine_that_is_away_for_a_while_changes_no_state(host):
    task, late = a_task("t1"), a_task("t2")
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        host.engine.disconnect()
        host.want(task, late)
        await asyncio.sleep(60)
        assert host.states(task)[-1] == S.RUNNING
        host.engine.boot()
        await asyncio.sleep(5)
        assert host.states(task)[-1] == S.RUNNING
        assert host.last(task).err == ""
        assert host.states(late)[-1] == S.RUNNING
        assert len(host.asked("create")) == 2


async def test_an_engine_that_loses_its_containers_fails_their_tasks(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        host.engine.crash()
        await asyncio.sleep(5)
        host.engine.boot()
        await asyncio.sleep(5)
        assert host.last(task).state == S.FAILED


async def test_a_container_removed_by_hand_is_noticed(host):
    task = a_task()
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        await host.engine.remove("web.1.t1")
        await asyncio.sleep(0.5)
        assert (host.last(task).state, host.last(task).err) == (S.FAILED, "task: container destroyed")


async def test_secrets_are_there_before_the_container_and_gone_after_it(host):
    task = a_task(secrets=[SecretReference(secret_id="x", secret_name="password")])
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        assert host.last(task).state == S.PREPARING
        assert host.last(task).err == "waiting for secret password"
        host.want(task, secrets=[SecretData(id="x", name="password", data=b"sesame")])
        await asyncio.sleep(3)
        assert (host.last(task).state, host.last(task).err) == (S.RUNNING, "")
        (mount,) = next(iter(host.engine.made.values())).body["HostConfig"]["Mounts"]
        assert mount["Target"] == "/run/secrets/password"
        assert Path(mount["Source"]).read_bytes() == b"sesame"
        host.want(replace(task, desired=S.SHUTDOWN))
        await asyncio.sleep(3)
        assert list(host.run_dir.rglob("*")) == [host.run_dir / "secrets"]


async def test_networks_beyond_the_first_are_connected_before_the_start(host):
    for name in ("backend", "ingress"):
        await host.engine.create_network({"Name": name})
    attachments = [
        Attachment(network_id="backend", address="10.0.1.7/24"),
        Attachment(network_id="ingress", address="10.0.0.7/24"),
    ]
    task = replace(a_task(), attachments=attachments)
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        (made,) = host.engine.made.values()
        assert list(made.networks) == ["backend", "ingress"]
        calls = [call for call, _ in host.engine.calls]
        assert calls.index("create") < calls.index("connect") < calls.index("start")


async def test_ports_in_host_mode_are_reported_as_published(host):
    task = replace(a_task(), ports=[PortConfig(target_port=80, publish_mode="host")])
    async with host.daemon():
        host.want(task)
        await asyncio.sleep(3)
        (port,) = host.last(task).ports
        assert (port.target_port, port.publish_mode) == (80, "host")
        assert port.published_port > 0


async def test_a_surprise_in_one_task_is_logged_and_tried_again_and_the_others_go_on(host, caplog):
    first, second = a_task("t1"), a_task("t2")
    async with host.daemon():
        host.network.surprise = OSError("netlink is upset")
        host.want(first)
        await asyncio.sleep(1)
        assert host.last(first).err == "netlink is upset"
        host.network.surprise = None
        host.want(first, second)
        await asyncio.sleep(1)
        assert host.states(second)[-1] == S.RUNNING
        await asyncio.sleep(30)
        assert (host.last(first).state, host.last(first).err) == (S.RUNNING, "")
    assert [r.levelno for r in caplog.records if "unexpected" in r.message] == [logging.ERROR]
