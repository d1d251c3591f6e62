"""What the engine really has of a service's options: containers as `docker inspect` and their own processes show them.

A manager and a worker. Services are made together and waited for together.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import form
from hosts import BUSYBOX, CLIENTS, DockerFailed, Host, until

from afterswarm.cli.main import main
from afterswarm.lab.hosts import GATEWAY

EACH = pytest.mark.parametrize("client", CLIENTS)
PRIVATE = f"{GATEWAY}:5001"
HTPASSWD = "ann:$2b$05$6Xyvrm2HEonT4mtpgExcWufD2UZ0ww6IKXqQTqzzmUAghF04Q4H4W\n"  # sesame
ON = {n: ("--constraint", f"node.hostname==swarm-{n}") for n in (1, 2)}
SLOT = "{{.Task.Slot}}"
STAY = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


@pytest.fixture(scope="module")
def pair(hosts: list[Host]) -> Iterator[list[Host]]:
    """swarm-1 manages, swarm-2 works."""
    form(hosts[:2], managers=1)
    yield hosts[:2]
    services = hosts[0].docker("service", "ls", "-q").split()
    if services:
        hosts[0].docker("service", "rm", *services)


def create(host: Host, name: str, *flags: str, image: str = BUSYBOX, command: tuple[str, ...] = STAY) -> None:
    host.docker("service", "create", "-d", "-q", "--name", name, *flags, image, *command)


def running(host: Host, name: str, count: int = 1) -> None:
    def there() -> bool:
        assert not (why := said(host, name).strip()), why
        return len(host.running(name)) == count

    until(f"{name} runs", there, 30)


def inspected(host: Host, name: str) -> dict[str, Any]:
    """The service's one container on this host, in the engine's own words."""
    found = host.docker("ps", "-q", "--filter", f"name=^{name}\\.", engine=True).split()
    assert len(found) == 1, found
    shown: dict[str, Any] = json.loads(host.docker("inspect", *found, engine=True))[0]
    return shown


def within(host: Host, name: str, *argv: str) -> str:
    (found,) = host.docker("ps", "-q", "--filter", f"name=^{name}\\.", engine=True).split()
    return host.docker("exec", found, *argv, engine=True)


def privileged(host: Host, name: str) -> bool:
    found = host.docker("ps", "-aq", "--filter", f"name=^{name}\\.", engine=True).split()
    return "true" in [host.docker("inspect", "-f", "{{.HostConfig.Privileged}}", c, engine=True) for c in found]


def said(host: Host, name: str) -> str:
    """Why its tasks do not run."""
    return host.docker("service", "ps", "--no-trunc", "--format", "{{.Error}}", name)


@pytest.mark.row(
    "SV-03", "SV-08", "SV-09", "SV-10", "SV-11", "SV-12", "SV-13", "SV-14", "SV-15", "SV-16", "SV-17", "SV-18",
    "SV-19", "SV-20", "SV-21", "SV-25", "SV-29", "VO-01", "VO-02", "VO-03", "VO-04", "HC-01",
    client="docker on real hosts",
)  # fmt: skip
@EACH
def test_sv_03_to_25_what_was_asked_for_is_what_the_container_has(pair: list[Host], client: str) -> None:
    host = pair[0].with_client(client)
    name = f"full-{client.replace('.', '')}"
    create(
        host, name, *ON[1],
        "--container-label", "a=b", "--container-label", "com.docker.swarm.service.name=mine",
        "--env", "WHO={{.Service.Name}}", "--workdir", "/tmp", "--user", "1000:1000", "--group", "44",
        "--hostname", "h-{{.Task.Slot}}", "--tty", "--init", "--stop-signal", "SIGINT", "--stop-grace-period", "3s",
        "--read-only", "--host", "db:10.1.2.3", "--dns", "10.1.1.1", "--dns-search", "example.org",
        "--dns-option", "ndots:2", "--cap-add", "net_admin", "--cap-drop", "CAP_MKNOD",
        "--sysctl", "net.core.somaxconn=77", "--ulimit", "nofile=100:200", "--log-driver", "json-file",
        "--log-opt", "max-size=1m", "--limit-memory", "32m", "--limit-cpu", "0.5", "--limit-pids", "50",
        "--mount", f"type=volume,src={name}-{SLOT},dst=/data,volume-nocopy,volume-label=x={SLOT}",
        "--mount", "type=bind,src=/etc,dst=/outside,readonly,bind-propagation=private",
        "--mount", "type=tmpfs,dst=/scratch,tmpfs-size=1048576,tmpfs-mode=0700",
        "--health-cmd", "true", "--health-interval", "1s", "--health-timeout", "2s", "--health-retries", "3",
        "--health-start-period", "4s",
    )  # fmt: skip
    running(host, name)
    shown = inspected(pair[0], name)
    config, engines = shown["Config"], shown["HostConfig"]
    task = config["Labels"]["com.docker.swarm.task.id"]
    assert shown["Name"] == f"/{name}.1.{task}"
    assert config["Labels"]["com.docker.swarm.service.name"] == name, "the swarm's own labels win"
    assert config["Labels"]["com.docker.swarm.task.name"] == f"{name}.1.{task}"
    assert config["Labels"]["a"] == "b"
    assert (config["Hostname"], config["User"], config["WorkingDir"]) == ("h-1", "1000:1000", "/tmp")
    assert (config["Tty"], config["StopSignal"], config["StopTimeout"]) == (True, "SIGINT", 3)
    assert f"WHO={name}" in config["Env"]
    assert config["Cmd"] == list(STAY)
    second = 1_000_000_000
    health = {"Interval": second, "Timeout": 2 * second, "Retries": 3, "StartPeriod": 4 * second}
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], **health}
    assert shown["State"]["Health"]["Status"] == "healthy"
    expected = {
        "Init": True,
        "ReadonlyRootfs": True,
        "ExtraHosts": ["db:10.1.2.3"],
        "Dns": ["10.1.1.1"],
        "DnsSearch": ["example.org"],
        "DnsOptions": ["ndots:2"],
        "GroupAdd": ["44"],
        "CapAdd": ["CAP_NET_ADMIN"],
        "CapDrop": ["CAP_MKNOD"],
        "Sysctls": {"net.core.somaxconn": "77"},
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Memory": 32 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 50,
    }
    assert {key: engines[key] for key in expected} == expected
    mounts = {m["Destination"]: m for m in shown["Mounts"]}
    assert mounts["/data"]["Name"] == f"{name}-1"
    assert (mounts["/outside"]["RW"], mounts["/outside"]["Propagation"]) == (False, "private")
    volume = json.loads(pair[0].docker("volume", "inspect", f"{name}-1", engine=True))[0]
    assert volume["Labels"] == {"x": "1"}
    assert "size=1024k,mode=700" in within(pair[0], name, "grep", "/scratch", "/proc/mounts")
    assert within(pair[0], name, "id", "-G").split() == ["1000", "44"]
    assert within(pair[0], name, "cat", "/proc/sys/net/core/somaxconn") == "77"
    assert "docker-init" in within(pair[0], name, "cat", "/proc/1/cmdline")
    host.docker("service", "rm", name)


@pytest.mark.row("SV-28", "VO-06", "SC-07", client="docker on real hosts")
@EACH
def test_sv_28_vo_06_sc_07_templates_are_carried_out_where_the_task_is(
    pair: list[Host], client: str, tmp_path: Path
) -> None:
    host = pair[0].with_client(client)
    name = f"tpl-{client.replace('.', '')}"
    (tmp_path / "word").write_text("sesame")
    (tmp_path / "conf").write_text(
        '{{if eq .Node.Platform.OS "linux"}}{{.Node.Hostname}}{{end}} {{env "MODE"}} {{secret "word"}} {{.Task.Name}}'
    )
    host.docker("secret", "create", f"{name}-word", str(tmp_path / "word"))
    host.docker("config", "create", "--template-driver", "golang", f"{name}-conf", str(tmp_path / "conf"))
    create(
        host, name, "--mode", "global", "--label", "tier=gold",
        "--hostname", "{{.Node.Hostname}}-x", "--env", 'MODE={{index .Service.Labels "tier"}}',
        "--mount", f"type=volume,src={name}-{{{{.Node.Hostname}}}},dst=/data",
        "--secret", f"source={name}-word,target=word", "--config", f"source={name}-conf,target=/conf",
    )  # fmt: skip
    running(host, name, 2)
    for place in pair:
        shown = inspected(place, name)
        assert shown["Config"]["Hostname"] == f"{place.name}-x"
        assert [m["Name"] for m in shown["Mounts"] if m["Type"] == "volume"] == [f"{name}-{place.name}"]
        assert within(place, name, "cat", "/conf") == f"{place.name} gold sesame {shown['Name'][1:]}"
    host.docker("service", "rm", name)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[str]:
    """A registry that wants to know who asks: an image in it."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}\n"
        f"http: {{addr: '{PRIVATE}'}}\nauth: {{htpasswd: {{realm: lab, path: {tmp_path}/htpasswd}}}}\n"
    )
    program = shutil.which("docker-registry")
    assert program
    registry = subprocess.Popen([program, "serve", str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until("the registry answers", lambda: asked(f"http://{PRIVATE}/v2/") == 401, 10)
        yield f"{PRIVATE}/private:1"
    finally:
        registry.terminate()
        registry.wait(10)


def asked(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.row("SV-05", "SV-06", client="docker on real hosts")
def test_sv_05_06_a_private_image_is_pulled_by_those_who_were_given_the_password(
    pair: list[Host], private: str, tmp_path: Path
) -> None:
    first, second = pair
    login = tmp_path / "docker"
    login.mkdir()
    auths = {"auths": {PRIVATE: {"auth": b64encode(b"ann:sesame").decode()}}}
    (login / "config.json").write_text(json.dumps(auths))
    first.docker("tag", BUSYBOX, private, engine=True)
    first.docker("--config", str(login), "push", private, engine=True)
    first.docker("rmi", private, engine=True)
    once = ("--restart-condition", "none", *ON[2])
    create(first, "stranger", *once, image=private)
    for client in CLIENTS:
        host = first.with_client(client)
        flags = ("--name", f"friend-{client[:2]}", *once, "--with-registry-auth")
        host.docker("--config", str(login), "service", "create", "-d", "-q", *flags, private, *STAY)
        stored = host.json("service", "inspect", f"friend-{client[:2]}")[0]["Spec"]["TaskTemplate"]["ContainerSpec"]
        assert stored["Image"].startswith(f"{private}@sha256:"), "the command line has pinned it, by way of us"
    until("a stranger is refused", lambda: "no basic auth credentials" in said(first, "stranger"), 20)
    for client in CLIENTS:
        running(first, f"friend-{client[:2]}")
    first.docker("service", "update", "-d", "-q", "--env-add", "A=1", "--force", "friend-20")
    until("it is updated", lambda: "A=1" in (inspected(second, "friend-20")["Config"]["Env"] or []), 30)
    first.docker("service", "rm", "stranger", *(f"friend-{client[:2]}" for client in CLIENTS))


@pytest.mark.row("SV-23", client="docker on real hosts")
def test_options_that_services_lack_are_labels(pair: list[Host], capsys: pytest.CaptureFixture[str]) -> None:
    first = pair[0]
    devices = ("--label", "afterswarm.devices=/dev/null:/dev/nothing:r")
    with pytest.raises(DockerFailed, match="`afterswarm policy allow devices` on a manager"):
        create(first, "refused", *devices)
    policy = ["policy", "--listen", str(first.place.socket)]
    assert main([*policy, "allow", "privileged", "devices", "host-namespaces"]) == 0
    plain = ("shm-size=3m", "ipc=shareable", "oom-score-adj=321", "group-add=44", "cpu-shares=99", "domainname=x.org",
             "security-opt=no-new-privileges:true", "memory-swappiness=7", "cpuset-cpus=0")  # fmt: skip
    create(first, "powerful", *ON[1], "--label", "afterswarm.privileged=true")
    create(first, "watching", *ON[1], "--label", "afterswarm.pid=host")
    create(first, "options", *ON[1], *devices, *(w for p in plain for w in ("--label", f"afterswarm.{p}")))
    running(first, "watching")
    running(first, "options")
    until("made as asked", lambda: privileged(first, "powerful"), 20)  # not every machine can start one
    assert "dockerd" in within(first, "watching", "sh", "-c", "cat /proc/[0-9]*/comm; true")
    host = inspected(first, "options")["HostConfig"]
    assert (host["ShmSize"], host["IpcMode"], host["CpuShares"]) == (3 << 20, "shareable", 99)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert within(first, "options", "cat", "/proc/1/oom_score_adj") == "321"
    assert within(first, "options", "stat", "-c", "%F", "/dev/nothing") == "character special file"
    assert main([*policy, "forbid", "privileged", "devices", "host-namespaces"]) == 0
    capsys.readouterr()
    first.docker("service", "rm", "powerful", "watching", "options")


@pytest.mark.row("NW-12", client="docker on real hosts")
def test_nw_12_a_port_of_the_host_that_nobody_chose_is_told(pair: list[Host]) -> None:
    first = pair[0]
    create(first, "drawn", "--mode", "global", "-p", "mode=host,target=80", "-p", "mode=host,target=53,protocol=udp",
           command=("sh", "-c", "echo hello > /www/index.html; exec httpd -f -h /www -p 80"))  # fmt: skip
    running(first, "drawn", 2)
    for task in first.docker("service", "ps", "-q", "drawn").split():
        shown = first.json("inspect", "--type", "task", task)[0]
        ports = {(p["Protocol"], p["TargetPort"]): p for p in shown["Status"]["PortStatus"]["Ports"]}
        assert set(ports) == {("tcp", 80), ("udp", 53)}
        assert all(p["PublishMode"] == "host" and p["PublishedPort"] >= 1024 for p in ports.values())
        node = first.json("node", "inspect", shown["NodeID"])[0]["Status"]["Addr"]
        url = f"http://{node}:{ports['tcp', 80]['PublishedPort']}/"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"hello\n"
    assert f"*:{ports['tcp', 80]['PublishedPort']}->80/tcp" in first.docker("service", "ps", "drawn")
    first.docker("service", "rm", "drawn")


@pytest.mark.row("VO-05", client="docker on real hosts")
@pytest.mark.row(
    "CV-02",
    client="docker on real hosts",
    differs="there are no CSI plugins: a task with a cluster volume waits and says so",
)
def test_vo_05_cv_02_what_cannot_be_is_said_by_the_task(pair: list[Host]) -> None:
    first = pair[0]
    once = ("--restart-condition", "none", *ON[1])
    create(first, "nowhere", *once, "--mount", "type=bind,src=/not/there,dst=/x")
    create(first, "strange", *once, "--cap-add", "CAP_NONSENSE")
    create(first, "pipe", *once, "--mount", "type=npipe,src=x,dst=/x")
    create(first, "cluster", "--mount", "type=cluster,src=group:fast,dst=/x")
    until("no bind", lambda: "bind source path does not exist: /not/there" in said(first, "nowhere"), 20)
    until("no capability", lambda: "CAP_NONSENSE" in said(first, "strange"), 20)
    until("no pipe", lambda: "npipe" in said(first, "pipe"), 20)
    words = "no suitable node (no CSI plugin for cluster volumes on 2 nodes)"
    until("no plugin", lambda: words in said(first, "cluster"), 20)
    first.docker("service", "rm", "nowhere", "strange", "pipe", "cluster")
