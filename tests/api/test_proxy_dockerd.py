"""A real engine behind the API: both docker command lines, with everything that upgrades, streams or hijacks."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from afterswarm.api.app import App
from afterswarm.http.client import Client
from afterswarm.http.errors import ConnectFailed
from afterswarm.http.server import serve_unix
from afterswarm.model.base import Change
from afterswarm.model.service import ContainerSpec, Service, ServiceSpec, TaskSpec
from afterswarm.model.task import Report, Task, TaskState

CLIENTS = [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()]
BUSYBOX = shutil.which("busybox")
ONE = "one" + "0" * 22

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (CLIENTS and shutil.which("dockerd") and BUSYBOX),
        reason="needs root, dockerd, busybox and a docker command line",
    ),
]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine of its own, in a mount and a process namespace, without a network."""
    folder = tmp_path_factory.mktemp("engine")
    sock = str(folder / "engine.sock")
    apart = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    engine = ["dockerd", f"--host=unix://{sock}", "--bridge=none", "--iptables=false"]
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*apart, *engine, *places], stdout=log, stderr=log)
    try:
        asyncio.run(_ready(sock, folder / "log"))
        yield sock
    finally:
        process.kill()  # and with it, by --kill-child, every process of the namespace
        process.wait()


async def _ready(sock: str, log: Path) -> None:
    client = Client.unix(sock)
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    if (await client.request("GET", "/_ping", timeout=5)).status == 200:
                        break
                except ConnectFailed:
                    pass
                await asyncio.sleep(0.2)
        tar = log.parent / "root.tar"
        assert BUSYBOX
        with tarfile.open(tar, "w") as archive:
            archive.add(BUSYBOX, "bin/sh")
            sleep = tarfile.TarInfo("bin/sleep")
            sleep.type, sleep.linkname = tarfile.SYMTYPE, "sh"
            archive.addfile(sleep)
        target = "/images/create?fromSrc=-&repo=box&tag=1"
        reply = await client.request(
            "POST", target, body=tar.read_bytes(), headers=[("Content-Type", "application/x-tar")]
        )
        assert reply.status == 200, reply.message
    except TimeoutError:
        pytest.fail(log.read_text())
    finally:
        client.close()


@pytest.fixture
async def front(host: Any, dockerd: str, tmp_path: Path) -> AsyncIterator[Path]:
    host.engine = Client.unix(dockerd)
    app = App(host)
    async with serve_unix(tmp_path / "front.sock", app), asyncio.TaskGroup() as group:
        following = group.create_task(app.follow(host.cache))
        yield tmp_path / "front.sock"
        following.cancel()
        host.engine.close()


class Docker:
    """One command line, aimed at our socket."""

    def __init__(self, program: str, sock: Path, home: Path) -> None:
        self.program = program
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DOCKER_HOST": f"unix://{sock}",
            "TERM": "xterm",
            "DOCKER_BUILDKIT": "0",
        }

    async def start(self, *command: str, **env: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=self._env | env
        )

    async def __call__(self, *args: str, stdin: bytes = b"", code: int = 0, **env: str) -> str:
        process = await self.start(self.program, *args, **env)
        out = await _finished(process, stdin)
        assert process.returncode == code, (args, out)
        return out

    async def terminal(self, *args: str, typed: bytes) -> str:
        """The same in a terminal of its own, where `typed` is typed."""
        line = " ".join([self.program, *args])
        return await _finished(await self.start("script", "-qec", line, "/dev/null"), typed)


async def _finished(process: asyncio.subprocess.Process, stdin: bytes = b"") -> str:
    try:
        async with asyncio.timeout(60):
            out, _ = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return out.decode()


@pytest.fixture(params=CLIENTS)
def docker(request: pytest.FixtureRequest, front: Path, tmp_path: Path) -> Docker:
    return Docker(request.param, front, tmp_path)


RUN = ("run", "--network=none")


async def test_version_and_info(docker: Docker) -> None:
    version = json.loads(await docker("version", "--format", "{{json .}}"))
    assert version["Server"]["ApiVersion"] == "1.41"
    assert version["Client"]["ApiVersion"] == "1.41"
    info = await docker("info")
    assert "Swarm: active" in info
    assert "Is Manager: true" in info
    assert "ClusterID: cluster00000000000000000x" in info
    assert "Managers: 2" in info
    assert "Storage Driver" in info


async def test_run_with_input_and_output(docker: Docker) -> None:
    """`run -i` hijacks the connection, sends, ends its half, and still gets what comes afterwards."""
    said = await docker(
        *RUN, "-i", "--rm", "box:1", "/bin/sh", "-c", "while read x; do echo got $x; done; echo end", stdin=b"a\nb\n"
    )
    assert said == "got a\ngot b\nend\n"


async def test_much_output(docker: Docker) -> None:
    said = await docker(
        *RUN, "--rm", "box:1", "/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    )
    assert said.splitlines() == [f"line {n}" for n in range(20_000)]


async def test_exit_codes(docker: Docker) -> None:
    await docker(*RUN, "--rm", "box:1", "/bin/sh", "-c", "exit 42", code=42)


async def test_exec_in_a_terminal(docker: Docker) -> None:
    name = (await docker(*RUN, "-d", "box:1", "/bin/sh", "-c", "sleep 600")).strip()
    try:
        said = await docker.terminal("exec", "-it", name, "/bin/sh", typed=b"echo $((40+2)) is-a-tty; exit 7\n")
        assert "42 is-a-tty" in said
        assert (
            await docker("exec", "-i", name, "/bin/sh", "-c", "read x; echo $x$x", stdin=b"twice\n") == "twicetwice\n"
        )
        await docker("exec", name, "/bin/sh", "-c", "exit 3", code=3)
    finally:
        await docker("rm", "-f", name)


async def test_attach_in_a_terminal(docker: Docker) -> None:
    said = await docker.terminal(*RUN, "-it", "--rm", "box:1", "/bin/sh", typed=b"echo $((1+1))x; exit\n")
    assert "2x" in said


async def test_logs_are_followed_until_the_end(docker: Docker) -> None:
    program = "for i in 1 2 3; do echo $i; sleep 1; done"
    name = (await docker(*RUN, "-d", "box:1", "/bin/sh", "-c", program)).strip()
    assert await docker("logs", "-f", name) == "1\n2\n3\n"
    await docker("rm", "-f", name)


async def test_build(docker: Docker, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM box:1\nCOPY big /big\nLABEL a=b\n")
    (context / "big").write_bytes(os.urandom(3_000_000))
    said = await docker("build", "-t", "built:1", str(context))
    assert "Successfully tagged built:1" in said
    assert "b" in await docker("image", "inspect", "-f", "{{.Config.Labels.a}}", "built:1")


async def test_build_by_buildkit(front: Path, tmp_path: Path) -> None:
    """Its session is HTTP/2 inside an upgraded connection, and calls back into the client."""
    docker = Docker("/usr/bin/docker", front, tmp_path)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")
    (context / "big").write_bytes(os.urandom(3_000_000))
    await docker("build", "-t", "kit:1", str(context), DOCKER_BUILDKIT="1")
    assert json.loads(await docker("image", "inspect", "kit:1"))[0]["Size"] == 3_000_000


async def test_images_out_and_in(docker: Docker, tmp_path: Path) -> None:
    await docker("save", "-o", str(tmp_path / "saved.tar"), "box:1")
    assert (tmp_path / "saved.tar").stat().st_size > 500_000
    assert "Loaded image: box:1" in await docker("load", "-i", str(tmp_path / "saved.tar"))


async def test_events_of_both(docker: Docker, host: Any) -> None:
    events = await docker.start(docker.program, "events", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}}")
    assert events.stdout
    try:
        async with asyncio.timeout(30):
            seen: list[str] = []
            while not any(line.startswith("container create") for line in seen):
                name = (await docker("create", "--network=none", "box:1", "/bin/sh")).strip()
                await docker("rm", name)
                try:
                    async with asyncio.timeout(0.5):
                        seen.append((await events.stdout.readline()).decode())
                except TimeoutError:
                    continue
            spec = ServiceSpec(name="web")
            await host.cache.commit([Change(None, Service(id="web", spec=spec))])
            while not any(line.startswith("service create web") for line in seen):
                seen.append((await events.stdout.readline()).decode())
    finally:
        events.kill()
        await events.communicate()


async def test_service_logs(docker: Docker, host: Any) -> None:
    """The command line's own formatter accepts our details."""
    program = "echo out put; echo err >&2"
    name = (await docker(*RUN, "-d", "box:1", "/bin/sh", "-c", program)).strip()
    await docker("wait", name)
    template = TaskSpec(container_spec=ContainerSpec(image="box:1"))
    objects = [
        Service(id="web", spec=ServiceSpec(name="web", task_template=template)),
        Task(id="t" * 25, service_id="web", slot=1, node_id=ONE, spec=template, state=TaskState.ASSIGNED),
        Report(id="t" * 25, node_id=ONE, service_id="web", state=TaskState.COMPLETE, container_id=name),
    ]
    await host.cache.commit([Change(None, o) for o in objects])
    said = (await docker("service", "logs", "web")).splitlines()
    assert sorted(line.split("|")[1].strip() for line in said) == ["err", "out put"]
    assert all(line.startswith("web.1.tttttttttttt@swarm-1 ") for line in said)
    assert "T" in (await docker("service", "logs", "-t", "--no-trunc", "t" * 25)).split()[0]
    assert sorted((await docker("service", "logs", "--raw", "web")).splitlines()) == ["err", "out put"]
    await docker("rm", "-f", name)


async def test_errors_are_the_engines(docker: Docker) -> None:
    assert "No such container: nope" in await docker("inspect", "--type", "container", "nope", code=1)
    assert "No such image: nope" in await docker("image", "inspect", "nope", code=1)
