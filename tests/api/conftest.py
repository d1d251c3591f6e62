"""A host for the API: a real cache over the store in memory, and an engine that knows networks, on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afterswarm.api.app import App
from afterswarm.api.host import InitRequest, JoinRequest, LocalInfo, Place, Standing
from afterswarm.control.cache import Cache
from afterswarm.control.guests import Guests
from afterswarm.control.keys import Keys
from afterswarm.core.dataplane import vxlan
from afterswarm.http.client import Client
from afterswarm.http.message import Handler, Request, Response
from afterswarm.http.server import serve_unix
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster, JoinTokens
from afterswarm.model.floating import Whereabouts
from afterswarm.model.guest import Said, Wish
from afterswarm.model.network import Network
from afterswarm.model.node import Description, Engine, Leader, Node, NodeReport, NodeSpec, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.model.service import Platform, Resources
from afterswarm.sim.store import SimStore

EPOCH = 1_700_000_000.0
CLIENTS = ("/usr/bin/docker", "/usr/local/bin/docker")


class StillClock:
    """Stands still until it is told to `run`."""

    began: float | None = None

    def run(self) -> None:
        self.began = asyncio.get_running_loop().time()

    def now(self) -> float:
        return EPOCH if self.began is None else EPOCH + asyncio.get_running_loop().time() - self.began

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0 if seconds < 1 else seconds)


class FakeEngine:
    """Networks as the engine keeps them; everything else is empty. Remembers what was asked."""

    def __init__(self) -> None:
        self.networks: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.containers: dict[str, Any] = {}  # name -> body of its creation
        self.connected: list[tuple[str, Any]] = []  # network and body
        self.api = "1.41"
        self.digests: dict[str, str] = {}  # image -> what the registry says of it
        self.more: Handler | None = None  # asked first, if there is one: what it answers with 404 is answered here
        self.add("bridge")

    def add(self, name: str, labels: dict[str, str] | None = None, driver: str = "bridge", **more: Any) -> str:
        key = f"{len(self.networks) + 0xE0:064x}"
        self.networks[key] = {
            "Name": name,
            "Id": key,
            "Created": "2024-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": driver,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Internal": False,
            "Containers": {},
            "Options": {},
            "Labels": labels or {},
        } | more
        return key

    async def __call__(self, request: Request) -> Response:
        self.asked.append((request.method, request.target))
        if self.more and (answer := await self.more(request)).status != 404:
            return answer
        path = re.sub(r"^/v\d\.\d+", "", request.path)
        filters = json.loads(request.arg("filters") or "{}")
        if path == "/_ping":
            return Response(200, [("Api-Version", self.api), ("OSType", "linux")], b"OK")
        if path == "/version":
            return Response.json(
                {"Version": "20.10.24", "ApiVersion": self.api, "MinAPIVersion": "1.12", "Os": "linux"}
            )
        if path == "/info":
            return Response.json({"Name": "one", "ServerVersion": "20.10.24", "OSType": "linux", "Swarm": {}})
        if path == "/volumes":
            return Response.json({"Volumes": [], "Warnings": None})
        if found := re.match(r"/distribution/(.+)/json", path):
            return self._distribution(found[1])
        if path == "/networks":
            labels = filters.get("label", [])
            return Response.json([n for n in self.networks.values() if all(self._has(n, text) for text in labels)])
        if path == "/networks/create":
            return self._made(await request.read())
        if path == "/containers/create":
            return self._create(request.arg("name"), json.loads(await request.read()))
        if found := re.match(r"/containers/([^/]+)/json", path):
            name = found[1]
            known = name in self.containers
            return Response.json({"Id": name, **self.containers[name]}) if known else _no_container(name)
        if (found := re.match(r"/networks/([^/]+)/(connect|disconnect)", path)) and request.method == "POST":
            body = json.loads(await request.read())
            self.connected.append((found[1], body))
            return Response(200) if body["Container"] in self.containers else _no_container(body["Container"])
        if path == "/networks/prune":
            return Response.json({"NetworksDeleted": None})
        if found := re.match(r"/networks/([^/]+)", path):
            return self._network(request, found[1])
        return Response.error(404, "page not found")

    def _create(self, name: str, body: Any) -> Response:
        if name in self.containers:
            return Response.error(409, f'Conflict. The container name "/{name}" is already in use')
        if body.get("Image") == "missing":
            return Response.error(404, "No such image: missing:latest")
        self.containers[name] = body
        return Response.json({"Id": f"{len(self.containers):064x}", "Warnings": []}, 201)

    def _distribution(self, image: str) -> Response:
        digest = self.digests.get(image) or self.digests.get(image.removeprefix("docker.io/library/"))
        if digest is None:
            return Response.error(403, "errors:\ndenied: requested access to the resource is denied")
        platforms = [{"architecture": "amd64", "os": "linux"}]
        return Response.json({"Descriptor": {"digest": digest, "size": 1, "mediaType": "x"}, "Platforms": platforms})

    def _made(self, body: bytes) -> Response:
        try:
            return Response.json({"Id": self.add(json.loads(body)["Name"]), "Warning": ""}, 201)
        except (ValueError, KeyError, TypeError) as error:
            return Response.error(400, f"invalid network: {error!r}")

    def _network(self, request: Request, term: str) -> Response:
        key = next((k for k, n in self.networks.items() if term in (k, n["Name"]) or k.startswith(term)), None)
        if key is None:
            return Response.error(404, f"network {term} not found")
        if request.method == "DELETE":
            del self.networks[key]
            return Response(204)
        return Response.json(self.networks[key]) if request.method == "GET" else Response(200)

    @staticmethod
    def _has(network: dict[str, Any], text: str) -> bool:
        key, _, value = text.partition("=")
        return key in network["Labels"] and (not value or network["Labels"][key] == value)


def _no_container(name: str) -> Response:
    return Response.error(404, f"No such container: {name}")


class FakeHost:
    """Implements `api.host.Host`: node "one" leads, "two" is a manager and "three" a worker."""

    def __init__(self, engine: Client, cache: Cache, clock: StillClock) -> None:
        self.engine = engine
        self.cache = cache
        self.replica: Cache | None = cache
        self.node_id = "one" + "0" * 22
        self.clock = clock
        self.state = LocalInfo(state="active", node_addr="10.77.0.1", control_available=True)
        self.engines: dict[str, Client] = {}  # of other nodes
        self.calls: list[object] = []
        self.stands: Standing | None = None
        self.refusal: Refused | None = None
        self.keys = Keys(lambda: b"k" * 32, self.clock.now)

    def floating(self) -> list[Whereabouts]:
        return [Whereabouts(address="192.0.2.9", here="held", holder="one")]

    def standing(self) -> Standing | None:
        return self.stands

    def local(self) -> LocalInfo:
        return self.state

    def become(self, state: LocalInfo, node_id: str = "") -> None:
        self.state, self.node_id = state, node_id
        self.replica = None

    async def init(self, request: InitRequest) -> str:
        self._called(request)
        self.node_id, self.replica = "one" + "0" * 22, self.cache
        self.state = LocalInfo(state="active", node_addr="10.77.0.1", control_available=True)
        return self.node_id

    async def join(self, request: JoinRequest) -> None:
        self._called(request)

    async def leave(self, *, force: bool) -> None:
        self._called(("leave", force))

    def engine_of(self, node_id: str) -> tuple[Client, str]:
        return self.engines.get(node_id, self.engine), "" if node_id == self.node_id else "/engine"

    async def admit(self, wish: Wish) -> Place:
        """As a host that is plumbed already: an address from the managers, nothing from the kernel."""
        self._called(wish)
        admission = await Guests(self.cache, self.clock).let_in(self.node_id, wish)
        address = admission.guest.attachment.address.partition("/")[0]
        if not admission.guest.id:
            return Place(guest="", network=admission.network.name, endpoint={}, name_server="")
        return Place(
            guest=admission.guest.id,
            network=admission.network.name,
            endpoint={"IPAMConfig": {"IPv4Address": address}, "MacAddress": vxlan.container_mac(address)},
            name_server=admission.network.gateways[self.node_id],
        )

    def made(self, guests: list[str]) -> None:
        self.calls.append(("made", guests))

    async def dismiss(self, guests: list[str]) -> None:
        await Guests(self.cache, self.clock).take(self.node_id, Said(gone=guests))

    def seal(self, object_id: str, data: bytes) -> str:
        return b64encode(f"{object_id}:".encode() + data[::-1]).decode()

    def unseal(self, object_id: str, sealed: str) -> bytes:
        bound, _, data = b64decode(sealed).partition(b":")
        assert bound == object_id.encode()
        return data[::-1]

    async def unlock(self, key: str) -> None:
        self._called(("unlock", key))

    def _called(self, what: object) -> None:
        if self.refusal:
            raise self.refusal
        self.calls.append(what)


class Api:
    """The API as a client sees it, without the connection."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.app = App(host)

    async def __call__(
        self, method: str, target: str, body: object = None, *, headers: list[tuple[str, str]] | None = None
    ) -> tuple[int, Any]:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(method, target, headers or [], data)
        answer = await self.app(request)
        assert isinstance(answer, Response)
        raw = answer.body if isinstance(answer.body, bytes) else b"".join([chunk async for chunk in answer.body])
        return answer.status, json.loads(raw) if raw.strip() else None

    async def ok(self, method: str, target: str, body: object = None) -> Any:
        status, answer = await self(method, target, body)
        assert status < 300, (status, answer)
        return answer

    async def fails(self, method: str, target: str, body: object = None) -> tuple[int, str]:
        status, answer = await self(method, target, body)
        assert status >= 400, (status, answer)
        return status, answer["message"]

    async def write(self, *objects: Obj) -> None:
        """Store these objects as they are, as some other part of the swarm would."""
        for obj in objects:
            snap = self.host.cache.snapshot()
            old = next((o for o in _all(snap) if type(o) is type(obj) and o.id == obj.id), None)
            await self.host.cache.commit([Change(old, obj)])

    def stored(self, cls: type[Obj] | tuple[type[Obj], ...]) -> list[Any]:
        return [o for o in _all(self.host.cache.snapshot()) if isinstance(o, cls)]


def _all(snap: Any) -> list[Obj]:
    fields = (getattr(snap, name) for name in snap.__struct_fields__ if not name.startswith("tasks_by"))
    return [obj for found in fields if isinstance(found, dict) for obj in found.values()]


def members() -> list[Obj]:
    found: list[Obj] = [
        Cluster(id="cluster00000000000000000x", tokens=JoinTokens(worker="SWMTKN-w", manager="SWMTKN-m"))
    ]
    for n, (name, role) in enumerate([("one", Role.MANAGER), ("two", Role.MANAGER), ("three", Role.WORKER)], 1):
        key = name + "0" * (25 - len(name))
        found.append(Node(id=key, spec=NodeSpec(role=role), role=role, state=NodeState.READY))
        description = Description(
            hostname=f"swarm-{n}",
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=2_000_000_000, memory_bytes=1 << 32),
            engine=Engine(engine_version="20.10.24", labels={"disk": "ssd"} if n == 1 else {}),
        )
        found.append(NodeReport(id=key, description=description, address=f"10.77.0.{n}"))
    ingress = Network(id="ingress000000000000000000", subnet="10.0.0.0/24", gateway="10.0.0.1", vni=4096)
    spec = msgspec.structs.replace(ingress.spec, name="ingress", ingress=True, scope="swarm")
    return [*found, msgspec.structs.replace(ingress, spec=spec), Leader(id="leader", node_id="one" + "0" * 22)]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def host(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[FakeHost]:
    store = SimStore(0)
    store.apply([Change(None, msgspec.structs.replace(o, created=EPOCH, updated=EPOCH)) for o in members()], seen=1)
    clock = StillClock()
    cache = Cache(store, clock)
    client = Client.unix(tmp_path / "engine.sock")
    async with serve_unix(tmp_path / "engine.sock", engine), asyncio.TaskGroup() as group:
        following = group.create_task(cache.run())
        await cache.synced.wait()
        yield FakeHost(client, cache, clock)
        following.cancel()
        client.close()


@pytest.fixture
def api(host: FakeHost) -> Api:
    return Api(host)


class CommandLine:
    def __init__(self, program: str, sock: Path, home: Path) -> None:
        self._program = program
        self._env = {"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_HOST": f"unix://{sock}"}

    async def run(self, *args: str, stdin: str = "") -> tuple[int, str]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self._program, *args, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=self._env
        )
        try:
            async with asyncio.timeout(20):
                out, _ = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def __call__(self, *args: str, stdin: str = "") -> str:
        code, out = await self.run(*args, stdin=stdin)
        assert code == 0, (args, out)
        return out.strip()

    async def fails(self, *args: str) -> str:
        code, out = await self.run(*args)
        assert code != 0, (args, out)
        return out.strip()


@pytest.fixture
async def sock(api: Any, tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "docker.sock"
    async with serve_unix(path, api.app):
        yield path


@pytest.fixture
def program(sock: Path, tmp_path: Path) -> Any:
    """`program(path)`: another command line that uses this API."""
    return lambda path: CommandLine(str(path), sock, tmp_path)


@pytest.fixture(params=CLIENTS)
def cli(request: pytest.FixtureRequest, sock: Path, tmp_path: Path) -> CommandLine:
    """Each docker command line."""
    if not Path(request.param).exists():
        pytest.skip(f"there is no {request.param}")
    return CommandLine(request.param, sock, tmp_path)
