"""What agents expect of an engine, asked of the simulated one and of a real Docker Engine in namespaces of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from afterswarm.adapters.engine import DockerEngine
from afterswarm.core.host import container_config
from afterswarm.http.client import Client
from afterswarm.model.service import ContainerSpec, Healthcheck, Mount, PortConfig, Privileges, TaskSpec, Ulimit
from afterswarm.model.task import Task
from afterswarm.ports import Engine, EngineError, EngineGone
from afterswarm.sim.clock import LoopClock
from afterswarm.sim.container import Program
from afterswarm.sim.engine import SimEngine

IMAGE = "box:1"
REGISTRY = "127.0.0.1:5000"
LABEL = "com.docker.swarm.task.id"
RUN_FOR_EVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]

HOST = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
ip link set lo up
mkdir -p /run/docker
docker-registry serve {dir}/registry.yml >{dir}/registry.log 2>&1 &
exec dockerd --data-root {dir}/lib --exec-root /run/docker --pidfile /run/docker.pid -H unix://{dir}/e.sock \
  --storage-driver {driver} >{dir}/dockerd.log 2>&1
"""
REGISTRY_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {dir}/registry}}}}
http: {{addr: "127.0.0.1:5000"}}
"""


def docker(socket: Path, *args: str, **options: Any) -> str:
    done = subprocess.run(["docker", "-H", f"unix://{socket}", *args], capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def root_file_system() -> bytes:
    """A container's files: busybox, and sh and sleep as names of it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "tmp"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o777
            tar.add(shutil.which("busybox") or "/bin/busybox", "bin/busybox") if folder == "tmp" else tar.addfile(made)
        for name in ("sh", "sleep", "true"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


@pytest.fixture(scope="module")
def real_engine() -> Iterator[Path]:
    """The socket of a real engine, with a registry beside it; both in a network of their own."""
    missing = [p for p in ("dockerd", "docker", "docker-registry", "busybox", "unshare") if shutil.which(p) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}")
    folder = Path(tempfile.mkdtemp(prefix="asw-"))  # short: the path of a socket has at most 107 characters
    (folder / "registry.yml").write_text(REGISTRY_CONFIG.format(dir=folder))
    script = HOST.format(dir=folder, driver=storage_driver(folder))
    host = subprocess.Popen(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "sh", "-c", script]
    )
    try:
        wait_for(folder, host)
        docker(folder / "e.sock", "import", "-", IMAGE, input=root_file_system())
        docker(folder / "e.sock", "tag", IMAGE, f"{REGISTRY}/{IMAGE}")
        docker(folder / "e.sock", "push", f"{REGISTRY}/{IMAGE}")
        docker(folder / "e.sock", "rmi", f"{REGISTRY}/{IMAGE}")
        yield folder / "e.sock"
    finally:
        host.kill()
        host.wait()
        shutil.rmtree(folder, ignore_errors=True)


def storage_driver(folder: Path) -> str:
    """overlay2 does not stand on overlayfs, which is what containers have for a disk."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True)
    return "vfs" if "overlay" in kind.stdout else "overlay2"


def wait_for(folder: Path, host: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and host.poll() is None:
        done = subprocess.run(["docker", "-H", f"unix://{folder}/e.sock", "version"], capture_output=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.2)
    log = folder / "dockerd.log"
    pytest.fail(f"no engine: {log.read_text()[-3000:] if log.exists() else 'it did not start'}")


@pytest.fixture(params=["sim", pytest.param("real", marks=pytest.mark.real)])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """An engine that has `IMAGE`, without containers; its registry has it too."""
    if request.param == "sim":
        sim = SimEngine(clock=LoopClock(1_700_000_000.0), pull_takes=0.01)
        sim.images.add(IMAGE)
        sim.registry.add(f"{REGISTRY}/{IMAGE}")
        sim.programs[IMAGE] = Program(healthy_after=0.1)
        yield sim
        return
    client = Client.unix(request.getfixturevalue("real_engine"))
    real = DockerEngine(client)
    yield real
    for found in await real.containers(LABEL):
        await real.remove(found["Id"])
    for network in await real.networks("io.afterswarm.network"):
        await real.remove_network(network["Id"])
    client.close()


def a_body(task: str = "t1", command: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"Image": IMAGE, "Cmd": command or RUN_FOR_EVER, "Labels": {LABEL: task, "a": "b"}, **more}


async def until(engine: Engine, container: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (found := await engine.inspect(container))["State"]["Status"] != status:  # noqa: ASYNC110 - not ours to tell
            await asyncio.sleep(0.02)
    return found


async def test_an_engine_says_what_it_is(engine):
    info = await engine.info()
    assert info["NCPU"] > 0
    assert info["MemTotal"] > 0
    assert info["OSType"] == "linux"
    assert info["Swarm"]["LocalNodeState"] == "inactive"


async def test_a_container_from_create_to_remove(engine):
    made = await engine.create("web.1.t1", a_body())
    shown = await engine.inspect(made)
    assert shown["Id"] == made
    assert shown["Name"] == "/web.1.t1"
    assert (shown["State"]["Status"], shown["State"]["Running"]) == ("created", False)
    assert shown["State"]["StartedAt"].startswith("0001-01-01T00:00:00")
    assert shown["Config"]["Labels"][LABEL] == "t1"

    await engine.start("web.1.t1")
    shown = await engine.inspect("web.1.t1")
    assert shown["State"]["Running"]
    assert shown["State"]["Pid"] > 0
    assert shown["State"]["StartedAt"] > "2020"
    await engine.start(made)  # started already is fine

    await engine.stop(made, 5)
    shown = await engine.inspect(made)
    assert (shown["State"]["Status"], shown["State"]["Running"], shown["State"]["Pid"]) == ("exited", False, 0)
    assert shown["State"]["ExitCode"] == 0
    assert shown["State"]["FinishedAt"] >= shown["State"]["StartedAt"]
    await engine.stop(made, 5)  # stopped already is fine

    await engine.remove(made)
    with pytest.raises(EngineError) as gone:
        await engine.inspect(made)
    assert gone.value.status == 404
    assert "No such container" in gone.value.message
    await engine.remove(made)  # absent already is fine


async def test_the_exit_code_of_a_killed_container(engine):
    made = await engine.create("web.1.t1", a_body())
    await engine.start(made)
    await engine.kill(made)
    assert (await until(engine, made, "exited"))["State"]["ExitCode"] == 137


async def test_a_running_container_is_removed_by_force(engine):
    made = await engine.create("web.1.t1", a_body())
    await engine.start(made)
    await engine.remove(made)
    assert await engine.containers(LABEL) == []


async def test_containers_are_found_by_label_whatever_their_state(engine):
    first = await engine.create("web.1.t1", a_body("t1"))
    second = await engine.create("web.2.t2", a_body("t2"))
    await engine.start(second)
    assert {c["Id"] for c in await engine.containers(LABEL)} == {first, second}
    (found,) = await engine.containers(f"{LABEL}=t2")
    assert found["Id"] == second
    assert found["Names"] == ["/web.2.t2"]
    assert found["Labels"][LABEL] == "t2"
    assert found["State"] == "running"
    assert await engine.containers("no.such.label") == []


async def test_an_image_that_is_not_here(engine):
    assert await engine.image("nowhere:1") is None
    with pytest.raises(EngineError, match="No such image: nowhere:1") as refused:
        await engine.create("web.1.t1", a_body() | {"Image": "nowhere:1"})
    assert refused.value.status == 404


async def test_a_name_is_given_once(engine):
    await engine.create("web.1.t1", a_body())
    with pytest.raises(EngineError, match="is already in use by container") as refused:
        await engine.create("web.1.t1", a_body())
    assert refused.value.status == 409


async def test_a_pull_brings_the_image(engine):
    name = f"{REGISTRY}/{IMAGE}"
    assert await engine.image(name) is None
    await engine.pull(name)
    assert await engine.image(name) is not None


async def test_a_pull_that_fails_says_what_the_registry_said(engine):
    with pytest.raises(EngineError, match="manifest unknown"):
        await engine.pull(f"{REGISTRY}/box:nine")


async def test_networks_are_made_listed_by_label_connected_and_removed(engine):
    labels = {"io.afterswarm.network": "n1"}
    config = {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]}
    made = await engine.create_network({"Name": "backend", "Driver": "bridge", "Labels": labels, "IPAM": config})
    (found,) = await engine.networks("io.afterswarm.network=n1")
    assert (found["Id"], found["Name"]) == (made, "backend")
    assert await engine.networks("io.afterswarm.network=n2") == []
    container = await engine.create("web.1.t1", a_body())
    await engine.connect("backend", container, {"IPAMConfig": {"IPv4Address": "10.9.0.7"}})
    shown = await engine.inspect(container)
    assert shown["NetworkSettings"]["Networks"]["backend"]["IPAMConfig"] == {"IPv4Address": "10.9.0.7"}
    await engine.start(container)
    with pytest.raises(EngineError, match="active endpoints"):
        await engine.remove_network("backend")
    await engine.remove(container)
    await engine.remove_network("backend")
    await engine.remove_network("backend")  # absent already is fine
    assert await engine.networks("io.afterswarm.network") == []
    with pytest.raises(EngineError) as refused:
        await engine.connect("backend", "nobody", {})
    assert refused.value.status == 404


async def test_events_tell_the_end_of_a_container_with_its_labels(engine):
    made = await engine.create("web.1.t1", a_body())
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def listen() -> None:
        async for event in engine.events({"type": ["container"], "event": ["die"], "label": [LABEL]}):
            heard.put_nowait(event)

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        await asyncio.sleep(0.3)
        await engine.start(made)
        await engine.kill(made)
        event = await asyncio.wait_for(heard.get(), 10)
        listening.cancel()
    assert (event["Type"], event["Action"]) == ("container", "die")
    assert event["Actor"]["ID"] == made
    assert event["Actor"]["Attributes"][LABEL] == "t1"
    assert event["Actor"]["Attributes"]["exitCode"] == "137"
    assert heard.empty()


async def test_health_is_shown_and_told(engine):
    check = {"Test": ["CMD", "true"], "Interval": 200_000_000, "Timeout": 5_000_000_000, "Retries": 1}
    made = await engine.create("web.1.t1", a_body(Healthcheck=check))
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def listen() -> None:
        async for event in engine.events({"type": ["container"], "event": ["health_status"]}):
            heard.put_nowait(event)

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        await asyncio.sleep(0.3)
        await engine.start(made)
        assert (await engine.inspect(made))["State"]["Health"]["Status"] in ("starting", "healthy")
        assert (await asyncio.wait_for(heard.get(), 20))["Action"] == "health_status: healthy"
        listening.cancel()
    assert (await engine.inspect(made))["State"]["Health"]["Status"] == "healthy"
    assert (await engine.containers(LABEL))[0]["Status"].endswith("(healthy)")


async def test_ports_are_shown_as_published(engine):
    ports = {"80/tcp": [{"HostPort": "8080"}], "81/tcp": [{"HostPort": ""}]}
    body = a_body(ExposedPorts={p: {} for p in ports}, HostConfig={"PortBindings": ports})
    made = await engine.create("web.1.t1", body)
    await engine.start(made)
    shown = (await engine.inspect(made))["NetworkSettings"]["Ports"]
    assert shown["80/tcp"][0]["HostPort"] == "8080"
    assert int(shown["81/tcp"][0]["HostPort"]) > 1024


async def test_an_engine_that_is_not_there_is_gone(engine, tmp_path):
    away: Engine
    if isinstance(engine, SimEngine):
        away = engine
        engine.disconnect()
    else:
        away = DockerEngine(Client.unix(tmp_path / "none.sock"))
    for call in (away.info(), away.containers(LABEL), away.stop("x", 1), away.pull(IMAGE), away.image(IMAGE)):
        with pytest.raises(EngineGone):
            await call
    with pytest.raises(EngineGone):
        await anext(aiter(away.events({})))


async def test_a_program_that_is_not_there_is_an_error_of_the_start(engine):
    if isinstance(engine, SimEngine):
        engine.programs[IMAGE] = Program(start_error='exec: "nothing": executable file not found in $PATH: unknown')
    made = await engine.create("web.1.t1", a_body(command=["nothing"]))
    with pytest.raises(EngineError, match='exec: "nothing": executable file not found'):
        await engine.start(made)
    shown = await engine.inspect(made)
    assert not shown["State"]["Running"]
    assert shown["State"]["Status"] == "created"


async def test_a_stop_that_is_not_heeded_ends_in_sigkill_after_the_grace(engine):
    if isinstance(engine, SimEngine):
        engine.programs[IMAGE] = Program(stop_takes=100)
    made = await engine.create("web.1.t1", a_body(command=["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]))
    await engine.start(made)
    await asyncio.sleep(0.3)
    async with asyncio.timeout(10):
        await engine.stop(made, 1)
    assert (await engine.inspect(made))["State"]["ExitCode"] == 137


@pytest.mark.real
async def test_the_config_of_a_task_is_accepted_by_a_real_engine(real_engine, tmp_path):
    (tmp_path / "file").write_text("secret")
    spec = ContainerSpec(
        image=IMAGE,
        args=["sh", "-c", "sleep 100"],
        hostname="h-{{.Task.Slot}}",
        env=["A={{.Node.Hostname}}"],
        dir="/tmp",
        user="1:1",
        groups=["7"],
        init=False,
        stop_signal="SIGKILL",
        read_only=True,
        healthcheck=Healthcheck(test=["CMD", "true"]),
        hosts=["10.0.0.9 db"],
        mounts=[Mount(source="data", target="/data"), Mount(type="tmpfs", target="/t"), Mount(target="/anonymous")],
        capability_add=["CAP_NET_ADMIN"],
        sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
        ulimits=[Ulimit(name="nofile", hard=2000, soft=1000)],
        privileges=Privileges(no_new_privileges=True),
    )
    task = Task(
        id="t9",
        service_name="web",
        slot=3,
        spec=TaskSpec(container_spec=spec),
        ports=[PortConfig(target_port=80, published_port=8081)],
    )
    body = container_config.body(
        task, container_config.Place(node_id="n", hostname="one"), files={"/run/secrets/p": str(tmp_path / "file")}
    )
    client = Client.unix(real_engine)
    engine = DockerEngine(client)
    made = await engine.create(container_config.name(task), body)
    try:
        await engine.start(made)
        shown = await engine.inspect(made)
        assert shown["Config"]["Hostname"] == "h-3"
        assert "A=one" in shown["Config"]["Env"]
        assert {m["Destination"] for m in shown["Mounts"]} == {"/data", "/t", "/anonymous", "/run/secrets/p"}
        assert (await asyncio.to_thread(docker, real_engine, "exec", made, "busybox", "cat", "/run/secrets/p")) == (
            "secret"
        )
    finally:
        await engine.remove(made)
        with contextlib.suppress(ConnectionError):
            client.close()
    volumes = await asyncio.to_thread(docker, real_engine, "volume", "ls", "-q")
    assert volumes.split() == ["data"]  # the anonymous one went with its container
