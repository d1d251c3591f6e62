"""The manager's end of a session, in virtual time over a pipe: what it tells, what it writes, and when it is quiet."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.control import seal
from afterswarm.control.board import Board
from afterswarm.control.cache import Cache
from afterswarm.control.dispatch import Dispatcher
from afterswarm.core import payloads
from afterswarm.core.wanted import wanted
from afterswarm.http.message import Peer, Request, Response
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Description, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.secret import Config, ConfigSpec, Payload, Secret, SecretSpec, payload_id
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    Endpoint,
    NetworkAttachmentConfig,
    PortConfig,
    SecretReference,
    Service,
    ServiceSpec,
    TaskSpec,
    VirtualIP,
)
from afterswarm.model.session import EPOCH, SEEN, SILENCE, Down, Hello, Reports, ToAgent, Up, Wanted, Welcome
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Report, Task, TaskState
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.pipe import Pipe, pipes
from afterswarm.sim.store import SimStore

pytestmark = pytest.mark.looptime(end=36000)

KEY = bytes(32)
SPEC = TaskSpec(
    container_spec=ContainerSpec(
        image="x", secrets=[SecretReference(secret_id="s")], configs=[ConfigReference(config_id="c")]
    ),
    networks=[NetworkAttachmentConfig(target="net")],
)
WEB = Service(
    id="web",
    spec=ServiceSpec(name="web", task_template=SPEC),
    endpoint=Endpoint(
        ports=[PortConfig(target_port=80, published_port=80)],
        virtual_ips=[VirtualIP(network_id="net", addr="10.0.1.2/24")],
    ),
)
QUIET = Service(id="quiet", spec=ServiceSpec(name="quiet"), endpoint=Endpoint())

INGRESS = Network(id="i", spec=NetworkSpec(ingress=True), subnet="10.0.0.0/24")


def task(task_id: str, node_id: str, **fields: Any) -> Task:
    attachments = [Attachment(network_id="net", address=f"10.0.1.{7 + len(task_id)}/24")]
    return Task(
        **{"id": task_id, "service_id": "web", "slot": 1, "node_id": node_id, "spec": SPEC}
        | {"state": TaskState.ASSIGNED, "attachments": attachments}
        | fields
    )


BASE: list[Obj] = [
    Cluster(id="swarm", beat_key=seal.seal(KEY, "swarm/beat-key", b"beat")),
    *(Node(id=i, state=NodeState.READY) for i in ("n1", "n2")),
    Network(id="net", spec=NetworkSpec(name="net"), subnet="10.0.1.0/24"),
    Secret(id="s", spec=SecretSpec(name="password"), sealed=seal.seal(KEY, "s", b"pa55")),
    Config(id="c", spec=ConfigSpec(name="conf", data=base64.b64encode(b"a=b").decode())),
    WEB,
    QUIET,
    task("t1", "n1"),
]


def test_each_node_gets_the_keys_of_its_own_pairs() -> None:
    board = Board(lambda object_id, sealed: seal.unseal(KEY, object_id, sealed))
    reports = [NodeReport(id=n, address=f"10.0.0.{n[1]}") for n in ("n1", "n2", "n3")]
    snap = Snapshot.of([*BASE, Node(id="n3"), *reports])
    board.take(snap, [Change(None, report) for report in reports])
    board.refresh(snap)
    found = {n: msgspec.json.decode(board.sections(snap, n)["beat_keys"], type=dict[str, bytes]) for n in snap.nodes}
    assert {n: set(keys) for n, keys in found.items()} == {
        "n1": {"n2", "n3"}, "n2": {"n1", "n3"}, "n3": {"n1", "n2"},
    }  # fmt: skip
    assert found["n1"]["n2"] == found["n2"]["n1"]
    assert len({key for keys in found.values() for key in keys.values()}) == 3


class Agent:
    """The other end: says `Up` all the time, keeps what it hears, puts the sections together."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.heard: list[Wanted | Welcome | Down] = []
        self.state = Wanted()
        self.wanted: list[Wanted] = []
        self.over = asyncio.Event()
        self.silent = False

    async def say(self, message: Hello | Reports | Up) -> None:
        await self.pipe.write(msgspec.json.encode(message) + b"\n")

    async def hear(self) -> None:
        while line := await self.pipe.readline():
            message = msgspec.json.decode(line, type=ToAgent)
            self.heard.append(message)
            if isinstance(message, Wanted):
                self.wanted.append(message)
                news = {f: v for f in message.__struct_fields__ if (v := getattr(message, f)) is not None}
                self.state = replace(self.state, **news)
        self.over.set()

    async def beat(self) -> None:
        while not self.pipe.closed and not self.over.is_set():
            if not self.silent:
                await self.say(Up())
            await asyncio.sleep(0.3)


class Swarm:
    def __init__(self, objects: list[Obj]) -> None:
        self.store = SimStore(3, latency=0.01)
        self.store.apply([Change(None, o) for o in objects], seen=self.store.rev)
        self.client = self.store.client("m")
        self.clock = LoopClock(1000.0)
        self.cache = Cache(self.client, self.clock)
        self.dispatcher = Dispatcher(self.cache, "m1", lambda i, text: seal.unseal(KEY, i, text), self.clock)
        self.group = asyncio.TaskGroup()

    @property
    def snap(self):
        return self.cache.snapshot()

    async def request(self, node_id: str, seen: int = 0, epoch: float = 0.0):
        subject = ((("commonName", node_id),), (("organizationalUnitName", "swarm-worker"),))
        peer = Peer(address="10.0.0.1", certificate={"subject": subject})
        headers = [(SEEN, str(seen)), (EPOCH, str(epoch))]
        return await self.dispatcher.session(Request("POST", "/session", headers, peer=peer))

    @asynccontextmanager
    async def agent(self, node_id: str, seen: int = 0) -> AsyncIterator[Agent]:
        answer = await self.request(node_id, seen)
        assert answer.status == 101
        ours, theirs = pipes()
        agent = Agent(ours)

        async def serve() -> None:
            await answer.run(theirs)
            theirs.close()

        async with asyncio.TaskGroup() as group:
            for run in (serve(), agent.hear(), agent.beat()):
                group.create_task(run)
            await agent.say(Hello(address="10.0.0.1", description=Description(hostname=node_id)))
            await asyncio.sleep(0.2)
            yield agent
            ours.close()

    async def write(self, *objects: Obj) -> None:
        """As if another manager had written, then time to take it in."""
        self.apply(*objects)
        await asyncio.sleep(0.1)

    def apply(self, *objects: Obj) -> None:
        changes = []
        for obj in objects:
            old = next((o for o in self.store.objects.values() if type(o) is type(obj) and o.id == obj.id), None)
            changes.append(Change(old, obj))
        self.store.apply(changes, seen=self.store.rev)

    async def delete(self, kind: str, object_id: str) -> None:
        self.store.apply([Change(self.store.objects[kind, object_id], None)], seen=self.store.rev)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def swarm(*more: Obj) -> AsyncIterator[Swarm]:
    made = Swarm([*BASE, *more])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.cache.run()), group.create_task(made.dispatcher.run())]
        await asyncio.sleep(0.2)
        yield made
        for one in tasks:
            one.cancel()


async def test_a_session_begins_with_everything_in_clear() -> None:
    async with swarm() as s, s.agent("n1") as agent:
        assert isinstance(agent.heard[0], Welcome)
        first = agent.wanted[0]
        assert [t.id for t in first.tasks] == ["t1"]
        assert [(d.name, d.data) for d in first.secrets] == [("password", b"pa55")]
        assert [(d.name, d.data) for d in first.configs] == [("conf", b"a=b")]
        assert first.role == Role.WORKER
        assert first.beat_keys == {}  # nobody has said where he is
        assert [r.name for r in first.routes] == ["web"]
        async with s.agent("n2") as other:
            assert (other.state.tasks, other.state.secrets, other.state.configs) == ([], [], [])
            assert [r.name for r in other.state.routes] == ["web"]


async def test_what_is_sent_is_what_is_wanted_whatever_happens() -> None:
    async with swarm() as s, s.agent("n1") as one, s.agent("n2") as two:
        for step in (
            [task("t22", "n2"), replace(QUIET, spec=replace(QUIET.spec, task_template=SPEC))],
            [Report(id="t22", service_id="web", node_id="n2", state=TaskState.RUNNING)],
            [
                Node(id="n2", state=NodeState.DOWN),
                Network(id="i", spec=NetworkSpec(ingress=True), subnet="10.0.0.0/24"),
            ],
            [Node(id="n2", state=NodeState.READY), replace(WEB, endpoint=replace(WEB.endpoint, ports=[]))],
            [task("t1", "n1", desired=TaskState.SHUTDOWN), Node(id="n3")],
            [Report(id="t1", service_id="web", node_id="n1", state=TaskState.SHUTDOWN)],
            [replace(WEB, pending_delete=True)],
        ):
            await s.write(*step)
            for agent, node_id in ((one, "n1"), (two, "n2")):
                parts = wanted(s.snap, node_id)
                state = agent.state
                assert state.role == parts.role
                assert state.tasks == parts.tasks
                assert [d.id for d in state.secrets] == [payload_id(*used) for used in parts.secrets]
                assert [d.id for d in state.configs] == [payload_id(*used) for used in parts.configs]
                assert state.networks == parts.networks
                assert state.routes == parts.routes
                assert state.peers == parts.peers
        await s.delete("task", "t22")
        assert two.state.tasks == []


async def test_only_what_changed_is_sent_and_only_to_whom_it_concerns() -> None:
    async with swarm() as s, s.agent("n1") as one, s.agent("n2") as two:
        before = len(one.wanted), len(two.wanted)
        await s.write(replace(QUIET, spec=replace(QUIET.spec, labels={"a": "b"})))
        await s.write(replace(s.snap.tasks["t1"], message="seen"))
        assert (len(one.wanted), len(two.wanted)) == (before[0] + 1, before[1])
        last = one.wanted[-1]
        assert last.tasks is not None
        assert (last.routes, last.peers, last.secrets, last.networks) == (None, None, None, None)


async def test_changes_that_come_together_are_sent_together() -> None:
    async with swarm() as s, s.agent("n1") as one:
        before = len(one.wanted)
        for i in range(2, 12):
            s.apply(task(f"x{i}", "n1", slot=i))
        await asyncio.sleep(0.3)
        assert len(one.state.tasks) == 11
        assert len(one.wanted) - before <= 6


async def test_what_nodes_and_tasks_report_is_written_once() -> None:
    async with swarm() as s, s.agent("n1") as one:
        said = s.snap.node_reports["n1"]
        assert (said.description.hostname, said.address, said.session_with) == ("n1", "10.0.0.1", "m1")
        running = Report(id="t1", node_id="somebody else", state=TaskState.RUNNING, since=5.0)
        await one.say(Reports(reports=[running, Report(id="unknown", state=TaskState.RUNNING)]))
        await asyncio.sleep(0.2)
        stored = s.snap.reports["t1"]
        assert (stored.state, stored.node_id, stored.service_id) == (TaskState.RUNNING, "n1", "web")
        assert set(s.snap.reports) == {"t1"}
        rev = s.store.rev
        await one.say(Reports(reports=[replace(running, since=9.0), replace(running, state=TaskState.STARTING)]))
        await one.say(Hello(address="10.0.0.1", description=Description(hostname="n1")))
        await asyncio.sleep(0.2)
        assert s.store.rev == rev


async def test_nobody_speaks_for_the_tasks_of_another_node() -> None:
    async with swarm() as s, s.agent("n2") as two:
        await two.say(Reports(reports=[Report(id="t1", node_id="n1", state=TaskState.FAILED)]))
        await asyncio.sleep(0.2)
        assert not s.snap.reports


async def test_while_the_store_is_gone_nothing_new_is_sent_and_reports_wait() -> None:
    async with swarm() as s, s.agent("n1") as one:
        s.client.cut()
        await one.say(Reports(reports=[Report(id="t1", state=TaskState.STARTING)]))
        await asyncio.sleep(1)
        await one.say(Reports(reports=[Report(id="t1", state=TaskState.RUNNING)]))
        before = len(one.wanted)
        await asyncio.sleep(2)
        assert not one.over.is_set()
        assert len(one.wanted) == before
        await asyncio.sleep(20)
        s.client.heal()
        await asyncio.sleep(10)
        assert s.snap.reports["t1"].state == TaskState.RUNNING


async def test_a_manager_that_does_not_see_the_store_sends_agents_to_others() -> None:
    """Its own agent too: how else would it hear that it was made a worker?"""
    async with swarm() as s, s.agent("n1") as one:
        s.client.cut()
        await asyncio.sleep(10)
        assert one.over.is_set()
        assert (await s.request("n1")).status == 503
        s.client.heal()
        await asyncio.sleep(5)
        async with s.agent("n1") as again:
            assert again.wanted


async def test_two_managers_write_reports_without_harm() -> None:
    """The node's session moved; the first manager still has something to write."""
    async with swarm() as s, s.agent("n1") as one:
        s.client.latency = 0.5
        await one.say(Reports(reports=[Report(id="t1", state=TaskState.STARTING)]))
        await asyncio.sleep(0.03)
        s.apply(Report(id="t1", service_id="web", node_id="n1", state=TaskState.RUNNING))
        await asyncio.sleep(10)
        assert s.snap.reports["t1"].state == TaskState.RUNNING


async def test_a_report_does_not_outlive_its_task() -> None:
    async with swarm() as s, s.agent("n1") as one:
        s.client.latency = 0.5
        await one.say(Reports(reports=[Report(id="t1", state=TaskState.STARTING)]))
        await asyncio.sleep(0.03)
        await s.delete("task", "t1")
        await asyncio.sleep(10)
        assert not s.snap.tasks
        assert not s.snap.reports


async def test_silence_ends_a_session() -> None:
    async with swarm() as s, s.agent("n1") as one:
        await asyncio.sleep(10)
        assert not one.over.is_set()
        assert s.dispatcher.connected == {"n1"}
        one.silent = True
        await asyncio.sleep(SILENCE + 0.5)
        assert one.over.is_set()
        assert s.dispatcher.connected == set()


@pytest.mark.parametrize("line", [b'{"type":"Nonsense"}', b'{"type":"Hello","address":"\xa3"}', b'{"a":' * 100_000])
async def test_nonsense_ends_a_session_and_nothing_else(line: bytes) -> None:
    async with swarm() as s, s.agent("n1") as one, s.agent("n2") as two:
        await one.pipe.write(line + b"\n")
        await asyncio.sleep(5)
        assert one.over.is_set()
        assert not two.over.is_set()


async def test_beats_come_in_time() -> None:
    async with swarm() as s, s.agent("n1") as one:
        before = len(one.heard)
        await asyncio.sleep(30)
        assert 95 <= len(one.heard) - before <= 105


async def test_a_removed_node_is_told_so() -> None:
    async with swarm() as s, s.agent("n2") as two:
        await s.delete("node", "n2")
        await asyncio.sleep(1)
        assert two.over.is_set()
        assert (await s.request("n2")).status == 410


async def test_a_manager_that_knows_nothing_yet_takes_no_session() -> None:
    """To an agent, "you have no tasks" and "I do not know" must not look the same."""
    made = Swarm(BASE)
    answer = await made.request("n1")
    assert isinstance(answer, Response)
    assert answer.status == 503
    assert (await made.dispatcher.session(Request("POST", "/session"))).status == 403


async def test_a_manager_that_is_to_be_a_worker_sends_its_agents_to_others() -> None:
    going = Node(id="m1", role=Role.MANAGER, state=NodeState.READY)
    async with swarm() as s, s.agent("n1") as agent:
        await s.write(going)
        await asyncio.sleep(1)
        assert not agent.over.is_set()  # there is no other one
        await s.write(Node(id="m2", spec=NodeSpec(role=Role.MANAGER), role=Role.MANAGER, state=NodeState.READY))
        await asyncio.sleep(1)
        assert agent.over.is_set()
        assert (await s.request("n1")).status == 503


async def test_what_was_seen_of_an_earlier_epoch_does_not_count() -> None:
    async with swarm() as s:
        await s.write(replace(s.snap.cluster, epoch=50.0))
        async with s.agent("n1", seen=s.snap.rev + 1000) as agent:
            assert isinstance(agent.heard[0], Welcome)
            assert agent.heard[0].epoch == 50.0
            assert agent.wanted
        assert (await s.request("n1", epoch=51.0)).status == 503


async def test_an_agent_is_told_nothing_older_than_it_has_seen() -> None:
    async with swarm() as s:
        rev = s.snap.rev
        async with s.agent("n1", seen=rev + 3) as one:  # what it says of itself is one revision
            await asyncio.sleep(5)
            assert not one.wanted
            assert not one.over.is_set()
            await s.write(task("x2", "n1"))
            assert not one.wanted
            await s.write(task("x3", "n1"))
            assert one.wanted[0].rev >= rev + 3


async def test_a_host_learns_that_it_has_everything_whenever_the_last_change_comes() -> None:
    """A task that ends waits for that: the last change of all may come while earlier ones are being gathered."""
    async with swarm() as s, s.agent("n1") as one:
        for step in range(20):
            first = asyncio.create_task(s.write(replace(QUIET, spec=replace(QUIET.spec, labels={"x": f"{step}"}))))
            await asyncio.sleep(step * 0.002)
            await s.write(
                replace(WEB, endpoint=replace(WEB.endpoint, ports=[]), spec=replace(WEB.spec, labels={"y": f"{step}"}))
            )
            await first
            await asyncio.sleep(1)
            last = [m.basis for m in one.heard if not isinstance(m, Welcome)][-1]
            assert last == s.snap.rev, f"the second change came {step * 2} ms after the first"


async def test_a_secret_that_cannot_be_opened_stops_nothing_else() -> None:
    async with swarm() as s, s.agent("n1") as one:
        await s.write(Secret(id="s", spec=SecretSpec(name="password"), sealed="broken"))
        assert one.state.secrets == []
        assert [t.id for t in one.state.tasks] == ["t1"]


async def test_what_a_registry_is_told_goes_to_hosts_with_a_task_of_the_service_and_anew_when_it_changes() -> None:
    async with swarm() as s, s.agent("n1") as one, s.agent("n2") as two:
        for words in ("first", "second"):
            await s.write(replace(s.snap.services["web"], pull_auth=seal.seal(KEY, "web", words.encode())))
            assert [(a.service_id, a.auth) for a in one.state.auths] == [("web", words)]
        assert two.state.auths == []
        await s.write(replace(s.snap.services["web"], pull_auth="broken"))
        assert one.state.auths == []
        await s.write(replace(s.snap.services["web"], pull_auth=seal.seal(KEY, "web", b"third")))
        await s.write(Report(id="t1", service_id="web", node_id="n1", state=TaskState.FAILED))
        assert one.state.auths == []


async def test_each_host_gets_the_versions_that_its_tasks_use() -> None:
    async with swarm() as s, s.agent("n1") as one:
        assert [(d.id, d.data) for d in one.state.secrets] == [("s", b"pa55")]
        sealed = seal.seal(KEY, payload_id("s", 1), b"new")
        await s.write(
            Payload(id="s", owner="s", sealed=seal.seal(KEY, "s", b"pa55")),
            Secret(id="s", spec=SecretSpec(name="password"), data_version=1, sealed=sealed),
        )
        assert [(d.id, d.data) for d in one.state.secrets] == [("s", b"pa55")]
        task = s.snap.tasks["t1"]
        spec = ServiceSpec(name="web", task_template=task.spec)
        await s.write(replace(task, spec=payloads.at(spec, {"s": 1}).task_template))
        assert [(d.id, d.data) for d in one.state.secrets] == [("s.1", b"new")]
