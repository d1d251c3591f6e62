"""The resolver as a process, on the loopback: asked over real sockets, with an upstream of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSRecord

from afterswarm.agent.names import answers, names
from afterswarm.agent.names.names import Names
from afterswarm.agent.names.nameservers import of_host
from afterswarm.agent.names.server import Server
from afterswarm.core.dns.lookup import Asker, Book
from afterswarm.core.dns.zone import Zone
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.repair import DNS, Difference
from afterswarm.model.service import ContainerSpec, DNSConfig, TaskSpec
from afterswarm.model.session import Route, Target
from afterswarm.model.task import Attachment, Task
from afterswarm.sim.clock import LoopClock

GATEWAY, CONTAINER, STRANGER = "127.0.1.254", "127.0.1.50", "127.0.9.9"
SERVER, SPARE, MUTE, BAD = "127.0.7.1", "127.0.7.2", "127.0.7.3", "127.0.7.4"
TASK = Task(id="t", attachments=[Attachment(network_id="n", address=f"{CONTAINER}/24")])


def zone(*, many: int = 2, nameservers: tuple[str, ...] = (SERVER,), internal: bool = False, web: int = 200) -> Zone:
    spec = NetworkSpec(name="n", internal=internal)
    network = Network(id="n", spec=spec, subnet="127.0.1.0/24", gateways={"n1": GATEWAY})
    targets = [
        Target(task_id=f"t{i}", node_id="n1", name=f"db.{i}.t{i}", slot=i, addresses={"n": f"127.0.1.{i}"}, ready=True)
        for i in range(1, many + 1)
    ]
    routes = [
        Route(service_id="s1", name="web", vips={"n": f"127.0.1.{web}"}, named_ports={"_http._tcp": [80]}),
        Route(service_id="s2", name="db", mode="dnsrr", targets=targets, named_ports={"_sql._tcp": [5432]}),
    ]
    spec_ = TaskSpec(container_spec=ContainerSpec(dns_config=DNSConfig(nameservers=list(nameservers))))
    return Zone.of(networks=[network], routes=routes, tasks=[Task(id="t", attachments=TASK.attachments, spec=spec_)])


class Upstream(asyncio.DatagramProtocol):
    """Answers everything with one address, or a failure, or nothing; counts."""

    def __init__(self, address: str = "", rcode: int = 0) -> None:
        self.address = address
        self.rcode = rcode
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def answer(self, data: bytes) -> bytes:
        question = DNSRecord.parse(data)
        self.asked.append(str(question.q.qname))
        reply = question.reply()
        reply.header.rcode = self.rcode
        if self.address:
            reply.add_answer(RR(question.q.qname, QTYPE.A, rdata=A(self.address), ttl=60))
        return bytes(reply.pack())

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.answer(data)
        if self.address or self.rcode:
            self.transport.sendto(reply, addr)  # type: ignore[attr-defined]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = self.answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        writer.write(len(reply).to_bytes(2) + reply)
        await writer.drain()
        writer.close()


class Place:
    """A daemon's half of the resolver, and its surroundings."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.port = free_port()
        self.upstream_port = free_port()
        self.servers = {
            SERVER: Upstream("192.0.2.7"),
            SPARE: Upstream("192.0.2.9"),
            MUTE: Upstream(),
            BAD: Upstream(rcode=RCODE.SERVFAIL),
        }

    def names(self) -> Names:
        return Names(clock=LoopClock(), run_dir=self.run, port=self.port, upstream_port=self.upstream_port)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Names]:
        """One life of it."""
        async with asyncio.TaskGroup() as group:
            made = self.names()
            running = group.create_task(made.run())
            yield made
            running.cancel()

    async def ask(self, name: str, kind: str = "A", *, source: str = CONTAINER, edns: int = 0) -> DNSRecord:
        question = DNSRecord.question(name, kind)
        if edns:
            question.add_ar(EDNS0(udp_len=edns))
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            out.bind((source, 0))
            out.connect((GATEWAY, self.port))
            await loop.sock_sendall(out, question.pack())
            async with asyncio.timeout(10):
                reply = DNSRecord.parse(await loop.sock_recv(out, 65535))
        assert reply.header.id == question.header.id
        return reply

    def pids(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self.run / "names.sock").encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def values(reply: DNSRecord) -> list[str]:
    return [str(answer.rdata) for answer in reply.rr]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    loop = asyncio.get_running_loop()
    open_: list[asyncio.DatagramTransport | asyncio.Server] = []
    for address, server in made.servers.items():
        local = (address, made.upstream_port)
        open_.append((await loop.create_datagram_endpoint(lambda server=server: server, local_addr=local))[0])
        open_.append(await asyncio.start_server(server.serve, *local))
    yield made
    await made.names().clear()
    for each in open_:
        each.close()
    for _ in range(100):
        if not made.pids():
            break
        await asyncio.sleep(0.05)
    assert made.pids() == []


@pytest.fixture
async def daemon(place: Place) -> AsyncIterator[Names]:
    async with place.daemon() as made:
        await made.tell(zone(), [GATEWAY])
        yield made


@pytest.mark.usefixtures("daemon")
async def test_a_service_and_its_time_to_live(place: Place) -> None:
    reply = await place.ask("web")
    assert values(reply) == ["127.0.1.200"]
    assert [answer.ttl for answer in reply.rr] == [0]
    assert reply.header.aa
    assert reply.header.ra
    assert values(await place.ask("WEB.")) == ["127.0.1.200"]
    assert values(await place.ask("web.n")) == ["127.0.1.200"]


@pytest.mark.usefixtures("daemon")
async def test_the_names_of_many_take_turns(place: Place) -> None:
    answers = [values(await place.ask("db")) for _ in range(4)]
    assert all(sorted(a) == ["127.0.1.1", "127.0.1.2"] for a in answers)
    assert len({tuple(a) for a in answers}) == 2


@pytest.mark.usefixtures("daemon")
async def test_where_a_port_is(place: Place) -> None:
    reply = await place.ask("_sql._tcp.db", "SRV")
    assert sorted(values(reply)) == ["0 1 5432 db.1.t1.", "0 1 5432 db.2.t2."]
    assert {str(r.rname): str(r.rdata) for r in reply.ar} == {"db.1.t1.": "127.0.1.1", "db.2.t2.": "127.0.1.2"}
    assert {r.ttl for r in (*reply.rr, *reply.ar)} == {0}
    assert values(await place.ask("_http._tcp.web", "SRV")) == ["0 1 80 web."]
    assert (await place.ask("_http._udp.web", "SRV")).header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT"])
@pytest.mark.usefixtures("daemon")
async def test_a_name_without_such_a_record_is_no_error(place: Place, kind: str) -> None:
    reply = await place.ask("web", kind)
    assert reply.header.rcode == RCODE.NOERROR
    assert reply.rr == []
    assert place.servers[SERVER].asked == []


@pytest.mark.usefixtures("daemon")
async def test_addresses_have_names(place: Place) -> None:
    assert values(await place.ask("200.1.0.127.in-addr.arpa", "PTR")) == ["web.n."]
    assert (await place.ask("9.1.0.127.in-addr.arpa", "PTR")).header.rcode == RCODE.NXDOMAIN


@pytest.mark.usefixtures("daemon")
async def test_other_names_are_passed_on(place: Place) -> None:
    assert values(await place.ask("example.org")) == ["192.0.2.7"]
    assert place.servers[SERVER].asked == ["example.org."]


@pytest.mark.parametrize("first", [MUTE, BAD, "127.0.7.99", "nonsense"])
async def test_the_next_server_is_asked_when_one_does_not_help(place: Place, daemon: Names, first: str) -> None:
    await daemon.tell(zone(nameservers=(first, SPARE)), [GATEWAY])
    assert values(await place.ask("example.org")) == ["192.0.2.9"]


@pytest.mark.parametrize("servers", [("127.0.7.99",), (GATEWAY,), (BAD,)])
async def test_nobody_who_knows_is_an_honest_failure(place: Place, daemon: Names, servers: tuple[str, ...]) -> None:
    """One that refuses, ourselves, whom we must not ask, and one that is in trouble."""
    await daemon.tell(zone(nameservers=servers), [GATEWAY])
    assert (await place.ask("example.org")).header.rcode == RCODE.SERVFAIL


async def test_from_an_internal_network_nothing_is_passed_on(place: Place, daemon: Names) -> None:
    await daemon.tell(zone(internal=True), [GATEWAY])
    assert (await place.ask("secret.example.org")).header.rcode == RCODE.SERVFAIL
    assert (await place.ask("secret.example.org", source="127.0.1.77")).header.rcode == RCODE.SERVFAIL
    assert values(await place.ask("web")) == ["127.0.1.200"]
    assert all(server.asked == [] for server in place.servers.values())


@pytest.mark.usefixtures("daemon")
async def test_strangers_are_refused(place: Place) -> None:
    assert (await place.ask("web", source=STRANGER)).header.rcode == RCODE.REFUSED
    assert (await place.ask("example.org", source=STRANGER)).header.rcode == RCODE.REFUSED
    assert place.servers[SERVER].asked == []


async def test_long_answers_are_cut_and_whole_by_tcp(place: Place, daemon: Names) -> None:
    await daemon.tell(zone(many=60), [GATEWAY])
    cut = await place.ask("db")
    assert cut.header.tc
    assert 20 < len(values(cut)) < 60, "who does not ask by TCP has enough"
    whole = await place.ask("db", edns=4096)
    assert len(values(whole)) == 60
    assert [r.rtype for r in whole.ar] == [QTYPE.OPT]
    ports = await place.ask("_sql._tcp.db", "SRV")
    assert ports.header.tc
    assert len(ports.pack()) <= 512
    reader, writer = await asyncio.open_connection(GATEWAY, place.port, local_addr=(CONTAINER, 0))
    asked = ["db", "example.org", *["db"] * 500]
    questions = [DNSRecord.question(name).pack() for name in asked]
    writer.write(b"".join(len(q).to_bytes(2) + q for q in questions))  # one connection, many questions
    for name in asked:
        reply = DNSRecord.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        assert len(values(reply)) == (60 if name == "db" else 1)
    writer.close()
    await writer.wait_closed()


async def test_a_guest_is_answered_once_its_rules_are_there(place: Place, daemon: Names) -> None:
    daemon.hold(frozenset({CONTAINER}))
    await daemon.tell(zone(web=201), [GATEWAY])
    asking = asyncio.ensure_future(place.ask("web"))
    assert values(await place.ask("web", source="127.0.1.51")) == ["127.0.1.201"], "others are not held up"
    await daemon.tell(zone(web=202), [GATEWAY])
    assert not asking.done()
    daemon.hold(frozenset())
    assert values(await asking) == ["127.0.1.202"]
    daemon.hold(frozenset({CONTAINER}))
    await daemon.tell(zone(web=203), [GATEWAY])
    assert values(await place.ask("web")) == ["127.0.1.203"], "not for ever"


async def test_it_listens_where_it_is_wanted(place: Place, daemon: Names) -> None:
    other = "127.0.1.253"
    await daemon.tell(zone(), [GATEWAY, other, "10.99.99.99"])  # that one is on no interface yet
    listening = sockets(place.port)
    assert listening == {GATEWAY, other, "10.99.99.99"}
    await daemon.tell(zone(), [other])
    assert sockets(place.port) == {other}


def sockets(port: int) -> set[str]:
    """Addresses on which somebody takes datagrams for this port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    places = [line.split()[1].split(":") for line in lines]
    return {socket.inet_ntoa(bytes.fromhex(a)[::-1]) for a, p in places if int(p, 16) == port}


async def test_an_address_that_is_taken_is_said_once_and_tried_again(
    place: Place, daemon: Names, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.1.252", place.port))
        for _ in range(3):
            await daemon.tell(zone(), [GATEWAY, "127.0.1.252"])
        said = [r.message for r in caplog.records if "127.0.1.252" in r.message]
        assert said == [f"names cannot be answered on 127.0.1.252 port {place.port}: [Errno 98] Address already in use"]
    await daemon.tell(zone(), [GATEWAY, "127.0.1.252"])
    assert sockets(place.port) == {GATEWAY, "127.0.1.252"}


# ---- lives of daemons ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def asking(place: Place) -> AsyncIterator[list[str]]:
    """A client that asks all the time, and yields what it was answered."""
    answered: list[str] = []

    async def ask() -> None:
        while True:
            answered.append(" ".join(values(await place.ask("web"))))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask())
        yield answered
        before = len(answered)
        while len(answered) < before + 5:  # the last of them, too  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()


async def test_names_outlive_the_daemon_and_the_next_one_goes_on(place: Place) -> None:
    async with place.daemon() as first:
        await first.tell(zone(), [GATEWAY])
        pids = place.pids()
        assert len(pids) == 1
        answered: list[str]
        async with asking(place) as answered:
            pass
    async with asking(place) as answered:  # nobody is there
        await asyncio.sleep(0.1)
    assert set(answered) == {"127.0.1.200"}
    async with asking(place) as answered, place.daemon() as second:
        await asyncio.sleep(0.1)  # it has heard of nothing yet
        await second.tell(zone(web=201), [GATEWAY])
        assert values(await place.ask("web")) == ["127.0.1.201"]
    assert set(answered) == {"127.0.1.200", "127.0.1.201"}
    assert place.pids() == pids, "the same process"


async def test_another_version_takes_over_without_a_gap(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.daemon() as first:
        await first.tell(zone(nameservers=(MUTE, SPARE)), [GATEWAY, "127.0.1.253"])
    old = place.pids()
    monkeypatch.setattr(names, "version", lambda: "another")
    slow = asyncio.ensure_future(place.ask("example.org"))
    while not place.servers[MUTE].asked:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    async with asking(place) as answered, place.daemon() as second:
        await second.tell(zone(), [GATEWAY, "127.0.1.253"])
        assert len(answered) > 0
    assert set(answered) == {"127.0.1.200"}
    assert values(await slow) == ["192.0.2.9"], "what the old one had begun, it finishes"
    new = [pid for pid in place.pids() if pid not in old]
    assert len(new) == 1
    assert sockets(place.port) == {GATEWAY, "127.0.1.253"}


@pytest.mark.parametrize("step", ["begun", "ended"])
async def test_a_daemon_may_die_while_it_replaces_the_resolver(place: Place, step: str) -> None:
    async with place.daemon() as first:
        await first.tell(zone(), [GATEWAY])
        [old] = place.pids()
    path, new = place.run / "names.sock", place.run / "names.new"
    if step == "begun":  # the new one is there, and knows nothing yet
        unused = place.names()
        begun = await unused._begin(new)
        begun.close()
    else:  # the old one was told to end, and the new one does not have its name yet
        path.rename(new)
    async with asking(place) as answered, place.daemon() as second:
        await second.tell(zone(), [GATEWAY])
    assert set(answered) == {"127.0.1.200"}
    assert path.is_socket()
    if step == "ended":
        assert place.pids() == [old]


async def test_one_that_was_killed_is_replaced_and_that_is_said(
    place: Place, daemon: Names, caplog: pytest.LogCaptureFixture
) -> None:
    [pid] = place.pids()
    repairs: list[Difference] = []
    daemon.repaired = repairs.extend
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        if place.pids() not in ([], [pid]):
            break
        await asyncio.sleep(0.05)
    await daemon.tell(zone(), [GATEWAY])
    assert repairs == [(DNS, "the resolver had ended: it said nothing")]
    assert values(await place.ask("web")) == ["127.0.1.200"]
    assert [r.message for r in caplog.records] == ["the resolver has ended: it said nothing"]


async def test_one_that_hangs_is_replaced(place: Place, daemon: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PATIENCE", 0.2)
    [pid] = place.pids()
    os.kill(pid, signal.SIGSTOP)
    await daemon.tell(zone(web=201), [GATEWAY])
    for _ in range(100):
        if place.pids() not in ([], [pid]):
            break
        await asyncio.sleep(0.05)
    monkeypatch.setattr(names, "PATIENCE", 5.0)
    await daemon.tell(zone(web=201), [GATEWAY])
    assert values(await place.ask("web")) == ["127.0.1.201"]


@pytest.mark.usefixtures("daemon")
async def test_it_has_no_rights_and_is_small(place: Place) -> None:
    [pid] = place.pids()
    await place.ask("example.org")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    if os.geteuid() == 0:
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].strip() == ""
        assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {f"{0:016x}"}
    assert int(status["VmRSS"].split()[0]) < 15_000
    assert (place.run / "names.sock").stat().st_mode & 0o777 == 0o600
    assert os.getsid(pid) == pid, "a session of its own"


# ---- noise ---------------------------------------------------------------------------------------------------------


def test_noise_is_not_answered() -> None:
    question = DNSRecord.question("web")
    for noise in (
        b"",
        b"noise",
        question.reply().pack(),
        question.pack()[:-3],
        b"\0\0\0\0\0\1" + b"\0" * 6 + b"\x05ab",
    ):
        assert answers.read(noise) is None
    assert answers.read(question.pack()) is not None
    strange = answers.read(DNSRecord.question("a" * 60 + "." + "b" * 60).pack())
    assert strange is not None
    assert answers.known(Book(), Asker(("n",)), strange, 0, stream=False) is None


def test_a_fault_of_ours_costs_one_answer_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_args: object, **_how: object) -> bytes:
        raise KeyError("nobody thought of that")

    said: list[bytes] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = Server(ours, path="", version="")
        with monkeypatch.context() as patch:
            patch.setattr(answers, "known", fail)
            for _ in range(100):
                server._asked(DNSRecord.question("web").pack(), CONTAINER, stream=False, reply=said.append)
        server._asked(DNSRecord.question("web").pack(), CONTAINER, stream=False, reply=said.append)
        server._selector.close()
    assert said[:100] == [b""] * 100
    assert DNSRecord.parse(said[100]).header.rcode == RCODE.REFUSED
    assert capsys.readouterr().err.count("KeyError: 'nobody") == 20, "what is written down has an end"


@contextmanager
def written(path: Path, text: str) -> Iterator[str]:
    path.write_text(text)
    yield str(path)


def test_the_hosts_nameservers(tmp_path: Path) -> None:
    with written(
        tmp_path / "resolv.conf", "# x\nsearch a\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\n"
    ) as p:
        assert of_host(p) == ["192.0.2.1", "fe80::1%eth0"]
    assert of_host(str(tmp_path / "none")) == []
