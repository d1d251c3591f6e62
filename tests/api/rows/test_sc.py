"""Rows SC: secrets and configs by the docker command lines, with data that is replaced in place."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import docker
import pytest

from afterswarm.model.secret import Payload, Secret
from afterswarm.model.service import Service

QUICK = ("--update-monitor", "100ms", "--rollback-monitor", "100ms", "--restart-delay", "100ms")
STACK = """
version: "3.9"
services:
  web:
    image: nginx:1
    secrets: [pw]
    configs: [{source: conf, target: /etc/app.conf}]
    deploy: {replicas: 3, update_config: {monitor: 100ms, parallelism: 2, order: start-first}}
  other: {image: nginx:1, deploy: {update_config: {monitor: 100ms}}}
secrets: {pw: {file: ./pw}}
configs: {conf: {file: ./conf}}
"""


def seen(folder: Path) -> dict[str, set[str]]:
    """What is in the files of tasks that run, and on which hosts."""
    found: dict[str, set[str]] = {}
    for path in (folder / "hosts").glob("*/secrets/*/*"):
        found.setdefault(path.read_text(), set()).add(path.parts[-4])
    return found


def listed(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()[1:]]


@pytest.mark.row("SC-01")
async def test_sc_01_secret_create(cli: Any, api: Any) -> None:
    key = await cli("secret", "create", "-l", "tier=db", "pw", "-", stdin="hush")
    assert [row[:2] for row in listed(await cli("secret", "ls"))] == [[key, "pw"]]
    assert "secret pw already exists" in await cli.fails("secret", "create", "pw", "/etc/hostname")
    for name in ("-a", "a_", "x" * 65, "ä"):
        assert "invalid name, only 64" in await cli.fails("secret", "create", "--", name, "/etc/hostname")
    assert await cli("secret", "create", "x" * 64, "/etc/hostname")
    status, why = await api.fails("POST", "/secrets/create", {"Name": "empty", "Data": ""})
    assert (status, "must be larger than 0 and less than 512000 bytes" in why) == (400, True)


@pytest.mark.row("SC-01", "SC-06")
async def test_sc_01_sizes(cli: Any, tmp_path: Path) -> None:
    big = tmp_path / "big"
    for kind, least in (("secret", 512_000), ("config", 1_024_000)):
        big.write_bytes(b"x" * least)
        assert f"less than {least} bytes" in await cli.fails(kind, "create", "big", str(big))
        big.write_bytes(b"x" * (least - 1))
        assert await cli(kind, "create", "big", str(big))


@pytest.mark.row("SC-02")
async def test_sc_02_ls_inspect_rm(cli: Any) -> None:
    ids = [await cli("secret", "create", "-l", f"n={n}", f"pw{n}", "-", stdin="hush") for n in (1, 2)]
    for filters, names in (
        (("name=pw",), {"pw1", "pw2"}),
        (("name=pw2",), {"pw2"}),
        (("label=n=1",), {"pw1"}),
        (("label=n",), {"pw1", "pw2"}),
        ((f"id={ids[0][:9]}",), {"pw1"}),
    ):
        flags = [word for f in filters for word in ("-f", f)]
        assert set((await cli("secret", "ls", "--format", "{{.Name}}", *flags)).split()) == names
    for term in ("pw1", ids[0], ids[0][:9]):
        (shown,) = json.loads(await cli("secret", "inspect", term))
        assert (shown["ID"], shown["Spec"]) == (ids[0], {"Name": "pw1", "Labels": {"n": "1"}})
    assert "Name:" in await cli("secret", "inspect", "--pretty", "pw1")
    for name in ("b", "a"):
        await cli("service", "create", "-d", "--name", name, "--secret", "pw1", "nginx:1")
    assert "secret 'pw1' is in use by the following services: a, b" in await cli.fails("secret", "rm", "pw1")
    assert await cli("secret", "rm", "pw2") == "pw2"
    assert "pw2" in await cli.fails("secret", "inspect", "pw2")
    await cli("service", "rm", "a", "b")
    assert await cli("secret", "rm", "pw1") == "pw1"


@pytest.mark.row("UP-08")
@pytest.mark.row("SC-03", differs="new data is accepted: services that use it are updated, and rolled back with it")
async def test_sc_03_new_data_by_stack_deploy(cli: Any, live: Any, api: Any, tmp_path: Path, eventually: Any) -> None:
    for name, text in (("pw", "old secret"), ("conf", "old config"), ("stack.yml", STACK)):
        (tmp_path / name).write_text(text)
    deploy = ("stack", "deploy", "-c", str(tmp_path / "stack.yml"), "s")

    def sees(*texts: str) -> Any:
        async def look() -> bool:
            done = [s.update_status is None or s.update_status.completed_at for s in api.stored(Service)]
            return all(done) and set(seen(tmp_path)) == set(texts) and await running() == 4

        return look

    async def running() -> int:
        return len((await cli("stack", "ps", "-q", "-f", "desired-state=running", "s")).split())

    await cli(*deploy)
    await eventually(sees("old secret", "old config"))
    untouched = await cli("service", "ps", "-q", "s_other")
    await cli(*deploy)
    assert len((await cli("service", "ps", "-q", "s_web")).split()) == 3  # nothing was new
    (tmp_path / "pw").write_text("new secret")
    (tmp_path / "conf").write_text("new config")
    await cli(*deploy)
    await eventually(sees("new secret", "new config"))
    assert "new config" in await cli("config", "inspect", "--pretty", "s_conf")
    assert await cli("service", "inspect", "-f", "{{.UpdateStatus.State}}", "s_web") == "completed"
    assert await cli("service", "ps", "-q", "s_other") == untouched
    assert len((await cli("service", "ps", "-q", "-f", "desired-state=shutdown", "s_web")).split()) >= 3
    assert len(api.stored(Payload)) == 2
    await cli("service", "rollback", "-d", "s_web")
    await eventually(sees("old secret", "old config"))
    assert await cli("service", "inspect", "-f", "{{.UpdateStatus.State}}", "s_web") == "rollback_completed"
    await cli("service", "scale", "-d", "s_web=4", "s_other=0")
    await eventually(sees("old secret", "old config"))
    await cli(*deploy)
    await cli("service", "scale", "-d", "s_web=4", "s_other=0")
    await eventually(sees("new secret", "new config"))
    await cli("service", "update", "-d", "--env-add", "A=1", "s_web")

    async def forgotten() -> bool:
        return not api.stored(Payload)

    await eventually(sees("new secret", "new config"))
    await eventually(forgotten)
    await cli("stack", "rm", "s")
    assert await cli("secret", "ls", "-q") == ""


@pytest.mark.row("UP-04")
@pytest.mark.row("SC-03", differs="new data is accepted: services that use it are updated, and rolled back with it")
async def test_sc_03_data_that_breaks_a_service_is_rolled_back(
    cli: Any, live: Any, api: Any, tmp_path: Path, eventually: Any
) -> None:
    text = STACK.replace("parallelism: 2, order: start-first", "failure_action: rollback, delay: 50ms")
    text = text.replace("deploy: {replicas: 3,", "deploy: {replicas: 3, restart_policy: {condition: none},")
    for name, what in (("pw", "secret"), ("conf", "good"), ("stack.yml", text)):
        (tmp_path / name).write_text(what)
    deploy = ("stack", "deploy", "-c", str(tmp_path / "stack.yml"), "s")
    await cli(*deploy)

    async def good() -> bool:
        state = await cli("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
        return "s_web 3/3" in state and set(seen(tmp_path)) == {"secret", "good"}

    async def new_task_dies() -> bool:
        for agent in live.agents.values():
            for path in (tmp_path / "hosts").glob("*/secrets/*/*"):
                if path.read_text() == "bad":
                    for container in agent.engine.running():
                        if path.parts[-2] in container:
                            agent.engine.exit(container, 1)
        return await cli("service", "inspect", "-f", "{{.UpdateStatus.State}}", "s_web") == "rollback_completed"

    await eventually(good)
    (tmp_path / "conf").write_text("bad")
    await cli(*deploy)
    await eventually(new_task_dies)
    await eventually(good)
    assert "bad" in await cli("config", "inspect", "--pretty", "s_conf")


@pytest.mark.row(
    "SC-03",
    client="docker-py",
    differs="new data is accepted: services that use it are updated, and rolled back with it",
)
async def test_sc_03_labels_roll_nothing_and_versions_are_checked(sock: Path, api: Any, live: Any) -> None:
    def use() -> None:
        client = docker.APIClient(base_url=f"unix://{sock}", version="1.41")
        key = client.create_secret("pw", b"hush")["ID"]
        reference = docker.types.SecretReference(key, "pw")
        template = docker.types.TaskTemplate(docker.types.ContainerSpec("nginx:1", secrets=[reference]))
        service = client.create_service(template, name="web")["ID"]

        def update(body: dict[str, Any], version: int) -> Any:
            url = client._url("/secrets/{0}/update", key)
            return client._post_json(url, body, params={"version": version})

        def stored() -> tuple[int, int]:
            return client.inspect_secret(key)["Version"]["Index"], client.inspect_service(service)["Version"]["Index"]

        secret, before = stored()
        assert update({"Name": "pw", "Labels": {"a": "b"}}, secret).ok
        stale = update({"Name": "pw", "Labels": {}}, secret)
        assert (stale.status_code, "update out of sequence" in stale.text) == (500, True)
        same = {"Name": "pw", "Labels": {"a": "b"}, "Data": b64encode(b"hush").decode()}
        assert update(same, stored()[0]).ok
        assert client.inspect_service(service)["Spec"].get("Labels") == {}
        assert "PreviousSpec" not in client.inspect_service(service)
        new = {"Name": "pw", "Labels": {"a": "b"}, "Data": b64encode(b"new").decode()}
        assert update(new, stored()[0]).ok
        assert stored()[1] > before
        assert "PreviousSpec" in client.inspect_service(service)
        assert update({**new, "Name": "other"}, stored()[0]).status_code == 400
        client.close()

    await asyncio.to_thread(use)


@pytest.mark.row("SC-04", "SC-08")
async def test_sc_04_grants(cli: Any, live: Any, api: Any, tmp_path: Path, eventually: Any) -> None:
    await cli("secret", "create", "pw", "-", stdin="hush")
    await cli("secret", "create", "key", "-", stdin="cert")
    grant = ("--secret", "pw", "--secret", "source=key,target=tls.pem,uid=33,gid=44,mode=0400")
    await cli(
        "service", "create", "-d", *QUICK, "--constraint", "node.hostname==swarm-3", *grant, "--name", "web", "nginx:1"
    )

    async def given() -> bool:
        return seen(tmp_path) == {"hush": {"three" + "0" * 20}, "cert": {"three" + "0" * 20}}

    await eventually(given)
    assert b"hush" not in b"".join(json.dumps(s.sealed).encode() for s in api.stored(Secret))
    (shown,) = json.loads(await cli("service", "inspect", "web"))
    files = {s["SecretName"]: s["File"] for s in shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]}
    assert files == {
        "pw": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 0o444},
        "key": {"Name": "tls.pem", "UID": "33", "GID": "44", "Mode": 0o400},
    }
    (path,) = [p for p in (tmp_path / "hosts").glob("*/secrets/*/*") if p.read_text() == "cert"]
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (33, 44, 0o400)
    (container,) = live.agent("swarm-3").engine.made.values()
    binds = {m["Target"]: m.get("ReadOnly") for m in container.body["HostConfig"]["Mounts"]}
    assert binds == {"/run/secrets/pw": True, "/run/secrets/tls.pem": True}
    await cli("service", "update", "-d", "--secret-rm", "key", "--secret-add", "source=pw,target=again", "web")

    async def taken() -> bool:
        return set(seen(tmp_path)) == {"hush"} and "/run/secrets/again" in str(
            [c.body for c in live.agent("swarm-3").engine.made.values() if c.running]
        )

    await eventually(taken)
    assert "secret not found: nope" in await cli.fails("service", "create", "-d", "--secret", "nope", "nginx:1")
    await cli("service", "rm", "web")

    async def gone() -> bool:
        return not seen(tmp_path)

    await eventually(gone)


@pytest.mark.row("SC-05", differs="kept and shown; no plugin brings its data, so a task that uses it waits and says so")
async def test_sc_05_drivers(cli: Any, live: Any, eventually: Any) -> None:
    await cli("secret", "create", "-d", "vault", "pw")
    assert await cli("secret", "ls", "--format", "{{.Name}} {{.Driver}}") == "pw vault"
    await cli("service", "create", "-d", "--secret", "pw", "--name", "web", "nginx:1")

    async def said() -> bool:
        return "no plugin for secrets of a driver" in await cli("service", "ps", "--no-trunc", "web")

    await eventually(said)


@pytest.mark.row("SC-06")
async def test_sc_06_configs(cli: Any, live: Any, tmp_path: Path, eventually: Any) -> None:
    key = await cli("config", "create", "-l", "a=b", "conf", "-", stdin="a = 1")
    (shown,) = json.loads(await cli("config", "inspect", "conf"))
    assert (shown["ID"], shown["Spec"]["Data"]) == (key, b64encode(b"a = 1").decode())
    assert "a = 1" in await cli("config", "inspect", "--pretty", key[:9])
    assert "config conf already exists" in await cli.fails("config", "create", "conf", "/etc/hostname")
    await cli(
        "service", "create", "-d", *QUICK, "--config", "conf", "--config", "source=conf,target=/etc/app.conf,mode=0440",
        "--name", "web", "nginx:1",
    )  # fmt: skip

    async def mounted() -> bool:
        made = [c for agent in live.agents.values() for c in agent.engine.made.values() if c.running]
        return [{m["Target"] for m in c.body["HostConfig"]["Mounts"]} for c in made] == [{"/conf", "/etc/app.conf"}]

    await eventually(mounted)
    assert set(seen(tmp_path)) == {"a = 1"}
    assert "config 'conf' is in use by the following service: web" in await cli.fails("config", "rm", "conf")
    await cli("service", "update", "-d", "--config-rm", "conf", "web")
    assert await cli("config", "ls", "-q", "-f", "name=co", "-f", "label=a") == key
    assert await cli("config", "rm", "conf") == "conf"
    assert "conf" in await cli.fails("config", "rm", "conf")


@pytest.mark.row("SC-09", differs="hosts run Linux: a service for Windows is accepted, and waits and says why")
async def test_sc_09_windows(cli: Any, live: Any, eventually: Any) -> None:
    await cli("secret", "create", "pw", "-", stdin="hush")
    windows = ("--constraint", "node.platform.os==windows")
    await cli("service", "create", "-d", *windows, "--secret", "source=pw,target=C:\\pw", "--name", "web", "nginx:1")

    async def waits() -> bool:
        return "no suitable node" in await cli("service", "ps", "--no-trunc", "web")

    await eventually(waits)
