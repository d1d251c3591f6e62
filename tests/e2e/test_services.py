"""Services and stacks on real engines, by the docker command line alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import BUSYBOX, CLIENTS, Host, until

NOTHING = BUSYBOX.replace("busybox", "nothing")  # an image that the registry does not have
LOOP = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
QUICK = ("--update-monitor", "1s", "--rollback-monitor", "1s")
STACK = f"""
version: "3.9"
services:
  web:
    image: {BUSYBOX}
    command:
      - sh
      - -c
      - "trap 'exit 0' TERM; echo I have; cat /run/secrets/word /etc/motd; while :; do sleep 0.1; done"
    secrets: [word]
    configs: [{{source: motd, target: /etc/motd}}]
    networks: [front]
    deploy: {{replicas: 3, update_config: {{monitor: 1s}}}}
  agent:
    image: {BUSYBOX}
    command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    deploy: {{mode: global, update_config: {{monitor: 1s}}}}
networks: {{front: {{}}}}
secrets: {{word: {{file: ./word}}}}
configs: {{motd: {{file: ./motd}}}}
"""


@pytest.fixture
def first(swarm: list[Host]) -> Iterator[Host]:
    """A manager of a swarm without services."""
    yield swarm[0]
    services = swarm[0].docker("service", "ls", "-q").split()
    if services:
        swarm[0].docker("service", "rm", *services)
    for kind in ("secret", "config"):
        found = swarm[0].docker(kind, "ls", "-q").split()
        if found:
            swarm[0].docker(kind, "rm", *found)


def create(host: Host, name: str, *flags: str, image: str = BUSYBOX, command: tuple[str, ...] = LOOP) -> None:
    host.docker("service", "create", "-d", "-q", "--name", name, *QUICK, *flags, image, *command)


def running(host: Host, name: str, count: int, within: float = 30) -> list[tuple[str, str]]:
    """Wait until exactly so many tasks of the service run; (task name, node) of each."""
    until(f"{count} tasks of {name} run", lambda: len(host.running(name)) == count, within)
    return host.running(name)


def errors(host: Host, name: str) -> list[str]:
    shown = host.docker("service", "ps", "--no-trunc", "--format", "{{.Error}}", name)
    return [line.strip('"') for line in shown.splitlines() if line]


def states(host: Host, name: str) -> Counter[str]:
    """How many tasks of the service, past ones included, are in which state."""
    shown = host.docker("service", "ps", "--format", "{{.CurrentState}}", name)
    return Counter(line.split()[0] for line in shown.splitlines())


def container(swarm: list[Host], service: str) -> tuple[Host, str]:
    """The one running container of a service, and the host that it is on."""
    found = [(h, c) for h in swarm for c in h.docker("ps", "-q", "--filter", f"name={service}.").split()]
    assert len(found) == 1, found
    return found[0]


def update_status(host: Host, name: str) -> dict[str, str]:
    found: dict[str, str] = host.json("service", "inspect", name)[0].get("UpdateStatus", {})
    return found


def gone(swarm: list[Host], *names: str) -> bool:
    """Whether no container of these services is left anywhere."""
    return not any(h.docker("ps", "-aq", "--filter", f"name={n}.") for h in swarm for n in names)


# ---- stacks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stack_comes_goes_and_comes_again_at_once(
    swarm: list[Host], first: Host, client: str, tmp_path: Path
) -> None:
    first = first.with_client(client)
    compose = tmp_path / "stack.yml"
    compose.write_text(STACK)
    (tmp_path / "word").write_text("sesame\n")
    (tmp_path / "motd").write_text("welcome\n")
    deploy = ("stack", "deploy", "-c", str(compose), "st")

    def complete() -> bool:
        return first.replicas("st_web") == "3/3" and first.replicas("st_agent") == "3/3"

    said = first.docker(*deploy).splitlines()
    for line in ("network st_front", "secret st_word", "config st_motd", "service st_web", "service st_agent"):
        assert f"Creating {line}" in said
    until("all of it runs", complete, within=30)
    assert first.docker("stack", "ls", "--format", "{{.Name}} {{.Services}}") == "st 2"
    shown = first.docker("stack", "services", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}", "st")
    assert sorted(shown.splitlines()) == [f"st_agent global 3/3 {BUSYBOX}", f"st_web replicated 3/3 {BUSYBOX}"]
    tasks = first.docker("stack", "ps", "--format", "{{.Name}} {{.Node}} {{.DesiredState}}", "st").splitlines()
    assert sorted(t for t in tasks if t.startswith("st_web")) == [
        f"st_web.{slot} {node} Running" for slot, node in sorted((n[-1], h) for n, h in first.running("st_web"))
    ]
    assert sorted(t.split()[1] for t in tasks if t.startswith("st_agent")) == ["swarm-1", "swarm-2", "swarm-3"]
    until("all have said it", lambda: said_by_all(first, ("I have", "sesame", "welcome")))

    before = set(first.docker("stack", "ps", "-q", "st").split())
    again = [first.docker("stack", "rm", "st"), first.docker(*deploy)]
    assert "Removing service st_web" in again[0]
    assert "Creating service st_web" in again[1]
    until("all of it runs again", complete, within=30)
    now = first.docker("stack", "ps", "--format", "{{.ID}} {{.DesiredState}}", "st").splitlines()
    assert not before & {line.split()[0] for line in now}
    assert [line.split()[1] for line in now] == ["Running"] * 6, "nothing failed on the way"

    assert "Creating" not in first.docker(*deploy), "the same file again is an update"
    first.docker("stack", "rm", "st")
    assert first.docker("stack", "ls", "-q" if client == "none" else "--format", "{{.Name}}") == ""
    until("nothing is left", lambda: (
        gone(swarm, "st_web", "st_agent") and not any("st_" in h.docker("network", "ls") for h in swarm)
    ))  # fmt: skip


def said_by_all(host: Host, words: tuple[str, ...]) -> bool:
    """Whether the logs of `st_web` hold these lines once for each of its tasks."""
    lines = host.docker("service", "logs", "st_web").splitlines()
    by_task: dict[str, list[str]] = {}
    for line in lines:
        task, _, text = line.partition("|")
        by_task.setdefault(task.strip(), []).append(text.strip())
    nodes = {task.partition("@")[2] for task in by_task}
    return nodes == {"swarm-1", "swarm-2", "swarm-3"} and all(tuple(said) == words for said in by_task.values())


# ---- create, scale, inspect, remove ----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("mode", ["replicated", "global"])
def test_the_command_line_waits_until_a_service_runs(first: Host, client: str, mode: str) -> None:
    first = first.with_client(client)
    flags = ("--mode", "global") if mode == "global" else ("--replicas", "3")
    said = first.docker("service", "create", "--name", "web", *QUICK, *flags, BUSYBOX, *LOOP).splitlines()
    assert "overall progress: 3 out of 3 tasks" in said
    assert said[-1] in ("verify: Service converged", f"verify: Service {said[0]} converged")
    assert first.replicas("web") == "3/3"
    assert first.docker("service", "ls", "-q") == said[0][:12]
    assert first.docker("service", "rm", "web") == "web"
    words = "Error: No such service: web", "Error response from daemon: service web not found"
    assert first.fails("service", "rm", "web") == words[client != "20.10"]


def test_scale(swarm: list[Host], first: Host) -> None:
    create(first, "web")
    create(first, "everywhere", "--mode", "global")
    running(first, "web", 1)
    said = first.docker("service", "scale", "web=6")
    assert "web scaled to 6" in said
    assert Counter(node for _, node in first.running("web")) == {h.name: 2 for h in swarm}
    first.docker("service", "scale", "-d", "web=2")
    running(first, "web", 2)
    until("the other containers are gone", lambda: sum(
        len(h.docker("ps", "-q", "--filter", "name=web.").split()) for h in swarm
    ) == 2)  # fmt: skip
    first.docker("service", "scale", "-d", "web=0")
    until("none is left", lambda: first.replicas("web") == "0/0" and gone(swarm, "web"))
    words = "everywhere: scale can only be used with replicated or replicated-job mode"
    assert first.fails("service", "scale", "everywhere=2") == words


@pytest.mark.parametrize("client", CLIENTS)
def test_inspect(first: Host, client: str) -> None:
    first = first.with_client(client)
    create(first, "web", "--label", "tier=front", "--replicas", "2", "--update-delay", "3s", "--limit-memory", "32m",
           "--constraint", "node.role==manager", "--env", "A=1")  # fmt: skip
    running(first, "web", 2)
    found = first.json("service", "inspect", "web")[0]
    assert found["Spec"]["Labels"] == {"tier": "front"}
    assert found["Spec"]["Mode"] == {"Replicated": {"Replicas": 2}}
    assert found["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]
    assert found["Spec"]["TaskTemplate"]["Placement"]["Constraints"] == ["node.role==manager"]
    assert found["Spec"]["UpdateConfig"]["Delay"] == 3_000_000_000
    assert found["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith(f"{BUSYBOX}@sha256:")
    pretty = first.docker("service", "inspect", "--pretty", "web").splitlines()
    for line in (
        "Name:\t\tweb", " tier=front", "Service Mode:\tReplicated", " Replicas:\t2",
        " Constraints:\t[node.role==manager]", " Delay:\t\t3s", " Env:\t\tA=1 ", "  Memory:\t32MiB",
    ):  # fmt: skip
        assert line in pretty, line


def test_what_is_refused(first: Host) -> None:
    create(first, "web", "-p", "8085:80")
    clash = first.fails("service", "create", "-d", "-q", "--name", "web2", "-p", "8085:81", BUSYBOX)
    assert "port '8085' is already in use by service 'web'" in clash
    taken = first.fails("service", "create", "-d", "-q", "--name", "web", BUSYBOX)
    assert "name conflicts with an existing object: service web already exists" in taken
    assert first.fails("service", "create", "-d", "--secret", "none", BUSYBOX) == "secret not found: none"
    little = first.fails("service", "create", "-d", "-q", "--limit-memory", "1m", BUSYBOX)
    assert "invalid memory value 1048576: Must be at least 4MiB" in little
    assert first.docker("service", "ls", "--format", "{{.Name}}") == "web"


# ---- where tasks go, and why not -------------------------------------------------------------------------------------


def test_why_tasks_wait_or_fail(swarm: list[Host], first: Host) -> None:
    create(first, "noimage", "--restart-delay", "30s", image=NOTHING)
    create(first, "nowhere", "--constraint", "node.hostname==nowhere")
    create(first, "toolarge", "--reserve-memory", "900g")
    create(first, "oneeach", "--replicas", "4", "--replicas-max-per-node", "1")
    create(first, "nocommand", "--restart-condition", "none", command=("/bin/nothing",))
    create(first, "fails", "--restart-condition", "none", command=("sh", "-c", "exit 7"))
    running(first, "oneeach", 3)
    missing = f"No such image: {NOTHING}"
    until("the missing image is said", lambda: any(e.startswith(missing) for e in errors(first, "noimage")))
    assert set(states(first, "noimage")) <= {"Rejected", "Ready", "Preparing", "Assigned", "Pending"}
    assert errors(first, "nowhere") == ["no suitable node (scheduling constraints not satisfied on 3 nodes)"]
    assert errors(first, "toolarge") == ["no suitable node (insufficient resources on 3 nodes)"]
    assert errors(first, "oneeach") == ["no suitable node (max replicas per node limit exceed)"]
    assert first.replicas("oneeach") == "3/4 (max 1 per node)"
    until("the missing command is said", lambda: any("/bin/nothing" in e for e in errors(first, "nocommand")))
    until("the exit code is said", lambda: errors(first, "fails") == ["task: non-zero exit (7)"])
    first.docker("node", "update", "--label-add", "place=nowhere", "swarm-3")
    first.docker("service", "update", "-d", "-q", "--constraint-rm", "node.hostname==nowhere",
                 "--constraint-add", "node.labels.place==nowhere", "nowhere")  # fmt: skip
    assert [node for _, node in running(first, "nowhere", 1)] == ["swarm-3"]
    first.docker("node", "update", "--label-rm", "place", "swarm-3")
    until(
        "a label that goes takes the task along", lambda: not swarm[2].docker("ps", "-q", "--filter", "name=nowhere.")
    )


def test_constraints_and_preferences(swarm: list[Host], first: Host) -> None:
    for host, zone in zip(swarm, ("a", "b", "b"), strict=True):
        first.docker("node", "update", "--label-add", f"zone={zone}", host.name)
    create(first, "pinned", "--replicas", "3", "--constraint", "node.hostname==swarm-2")
    create(first, "zoned", "--replicas", "3", "--constraint", "node.labels.zone!=a")
    create(first, "spread", "--replicas", "4", "--placement-pref", "spread=node.labels.zone")
    assert {node for _, node in running(first, "pinned", 3)} == {"swarm-2"}
    assert {node for _, node in running(first, "zoned", 3)} == {"swarm-2", "swarm-3"}
    assert Counter(node for _, node in running(first, "spread", 4))["swarm-1"] == 2, "as many in zone a as in zone b"
    for host in swarm:
        first.docker("node", "update", "--label-rm", "zone", host.name)


# ---- what a container gets -------------------------------------------------------------------------------------------


def test_everything_that_a_container_can_be_given(swarm: list[Host], first: Host) -> None:
    create(
        first, "box",
        "--limit-cpu", "0.5", "--limit-memory", "64m", "--limit-pids", "50", "--reserve-cpu", "0.1",
        "--user", "1000:1000", "--workdir", "/tmp", "--env", "COLOUR=red", "--env", "SLOT={{.Task.Slot}}",
        "--hostname", "box-{{.Task.Slot}}", "--label", "of=service", "--container-label", "of=container",
        "--stop-signal", "SIGUSR1", "--stop-grace-period", "3s", "--host", "printer:10.1.2.3", "--init",
        "--mount", "type=volume,source=boxes,target=/data", "--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m",
        "--mount", "type=bind,source=/etc,target=/hostetc,readonly", "--entrypoint", "sh", "--cap-drop", "CHOWN",
        "--publish", "mode=host,published=9090,target=90",
        command=("-c", "trap 'exit 0' USR1; echo started in $PWD; while :; do sleep 0.1; done"),
    )  # fmt: skip
    running(first, "box", 1)
    host, box = container(swarm, "box")
    found: dict[str, Any] = host.json("inspect", box)[0]
    config, limits = found["Config"], found["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"], limits["PidsLimit"]) == (500_000_000, 64 << 20, 50)
    assert (config["StopSignal"], config["StopTimeout"], config["Entrypoint"]) == ("SIGUSR1", 3, ["sh"])
    assert config["Labels"]["of"] == "container"
    task, service = config["Labels"]["com.docker.swarm.task.id"], first.json("service", "inspect", "box")[0]["ID"]
    assert config["Labels"]["com.docker.swarm.service.id"] == service
    assert found["Name"] == f"/box.1.{task}"

    def inside(*argv: str) -> str:
        return host.docker("exec", box, *argv)

    ways = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"  # control groups v2, v1
    assert str(64 << 20) in inside("sh", "-c", f"cat {' '.join(ways)} 2>/dev/null; true").splitlines()
    assert inside("id") == "uid=1000 gid=1000 groups=1000"
    assert {"COLOUR=red", "SLOT=1", "HOSTNAME=box-1"} <= set(inside("env").splitlines())
    assert inside("hostname") == "box-1"
    assert "10.1.2.3\tprinter" in inside("cat", "/etc/hosts")
    assert inside("cat", "/hostetc/hostname") == host.name
    mounts = {line.split()[1]: line.split() for line in inside("cat", "/proc/mounts").splitlines()}
    assert mounts["/scratch"][2] == "tmpfs"
    assert "size=1024k" in mounts["/scratch"][3]
    assert mounts["/hostetc"][3].split(",")[0] == "ro"
    assert host.docker("volume", "ls", "-q", "--filter", "name=boxes") == "boxes"
    assert first.docker("service", "logs", "--raw", "box") == "started in /tmp"
    assert "*:9090->90/tcp" in first.docker("service", "ps", "box")
    first.docker("service", "rm", "box")
    until("it has ended", lambda: gone(swarm, "box"))
    host.docker("volume", "rm", "boxes")


def test_ports_in_host_mode_answer_on_the_task_s_host_only(swarm: list[Host], first: Host) -> None:
    serve = ("sh", "-c", "trap 'exit 0' TERM; echo here > /www/index.html; httpd -f -p 80 -h /www & wait")
    create(first, "web", "--constraint", "node.hostname==swarm-2", "-p", "mode=host,published=8090,target=80",
           command=serve)  # fmt: skip
    running(first, "web", 1)

    def get(host: Host) -> str:
        ask = f"import urllib.request as r; print(r.urlopen('http://{host.address}:8090/', timeout=2).read().decode())"
        return first.run(sys.executable, "-c", ask)

    until("its host answers", lambda: get(swarm[1]) == "here")
    for host in (swarm[0], swarm[2]):
        with pytest.raises(AssertionError, match="refused"):
            get(host)
    create(first, "second", "--constraint", "node.hostname==swarm-2", "-p", "mode=host,published=8090,target=80",
           command=serve)  # fmt: skip
    until("the second waits", lambda: errors(first, "second") == [
        "no suitable node (scheduling constraints not satisfied on 2 nodes; host-mode port already in use on 1 node)"
    ])  # fmt: skip


def test_volumes_stay(swarm: list[Host], first: Host) -> None:
    create(first, "db", "--mount", "type=volume,source=kept,target=/data",
           command=("sh", "-c", "trap 'exit 0' TERM; date >> /data/starts; while :; do sleep 0.1; done"))  # fmt: skip
    before = running(first, "db", 1)
    first.docker("service", "update", "--force", "-q", "db")
    assert running(first, "db", 1) == before, "a local volume keeps its task on its host"
    host, box = container(swarm, "db")
    assert len(host.docker("exec", box, "cat", "/data/starts").splitlines()) == 2
    first.docker("service", "rm", "db")
    until("it has ended", lambda: gone(swarm, "db"))
    assert [h.name for h in swarm if h.docker("volume", "ls", "-q", "--filter", "name=kept")] == [host.name]
    host.docker("volume", "rm", "kept")


def test_stop_signal_and_grace(swarm: list[Host], first: Host) -> None:
    create(first, "polite", "--stop-signal", "SIGUSR1", "--mount", "type=volume,source=letters,target=/data",
           command=("sh", "-c", "trap 'echo bye > /data/letter; exit' USR1; while :; do sleep 0.1; done"))  # fmt: skip
    create(first, "deaf", "--stop-grace-period", "1s",
           command=("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"))  # fmt: skip
    running(first, "polite", 1)
    running(first, "deaf", 1)
    host, _ = container(swarm, "polite")
    began = time.monotonic()
    first.docker("service", "rm", "polite", "deaf")
    until("both have ended", lambda: gone(swarm, "polite", "deaf"), within=8)  # Docker's default grace is 10 s
    assert time.monotonic() - began > 0.9
    read = host.docker("run", "--rm", "-v", "letters:/data", BUSYBOX, "cat", "/data/letter")
    assert read == "bye"
    host.docker("volume", "rm", "letters")


def test_secrets_and_configs(swarm: list[Host], first: Host, tmp_path: Path) -> None:
    word = tmp_path / "word"
    word.write_text("open-sesame-4711")
    (tmp_path / "motd").write_text("welcome")
    first.docker("secret", "create", "word", str(word))
    first.docker("config", "create", "motd", str(tmp_path / "motd"))
    create(first, "vault", "--constraint", "node.hostname==swarm-2", "--secret", "word",
           "--secret", "source=word,target=other,uid=1000,gid=1001,mode=0400",
           "--config", "source=motd,target=/etc/motd,mode=0440", "--config", "motd")  # fmt: skip
    running(first, "vault", 1)
    host, box = container(swarm, "vault")
    assert host.name == "swarm-2"
    for path, data, rights in (
        ("/run/secrets/word", "open-sesame-4711", "444 0 0"),
        ("/run/secrets/other", "open-sesame-4711", "400 1000 1001"),
        ("/etc/motd", "welcome", "440 0 0"), ("/motd", "welcome", "444 0 0"),
    ):  # fmt: skip
        assert host.docker("exec", box, "cat", path) == data
        assert host.docker("exec", box, "stat", "-c", "%a %u %g", path) == rights
    mounts = {line.split()[1]: line.split()[2] for line in host.docker("exec", box, "cat", "/proc/mounts").splitlines()}
    assert mounts["/run/secrets/word"] == mounts["/run/secrets/other"] == "tmpfs"

    def holds_the_word(host: Host, *places: str) -> str:
        return host.run("sh", "-c", f"grep -rslae open-sesame-4711 {' '.join(places)}; true")

    assert holds_the_word(host, "/run/afterswarm/secrets")
    for other in swarm:
        assert not holds_the_word(other, "/var/lib/afterswarm", "/var/log"), "never on disk, the store's included"
        if other.name != host.name:
            assert not holds_the_word(other, "/run/afterswarm"), "only where a task needs it"
    shown = first.docker("secret", "inspect", "word") + first.docker("service", "inspect", "vault")
    assert "sesame" not in shown
    assert first.json("config", "inspect", "motd")[0]["Spec"]["Data"] == "d2VsY29tZQ=="
    for kind, name in (("secret", "word"), ("config", "motd")):
        assert f"{kind} '{name}' is in use by the following service: vault" in first.fails(kind, "rm", name)
        assert f"{name} already exists" in first.fails(kind, "create", name, str(word))
    first.docker("service", "rm", "vault")
    until("it has ended", lambda: gone(swarm, "vault"))
    until("its host has forgotten it", lambda: not holds_the_word(host, "/run/afterswarm"))
    for kind, name in (("secret", "word"), ("config", "motd")):
        assert first.docker(kind, "ls", "--format", "{{.Name}}") == name
        assert first.docker(kind, "rm", name) == name


# ---- health, restart -------------------------------------------------------------------------------------------------


def test_health_gates_a_task_and_ends_it(swarm: list[Host], first: Host) -> None:
    create(first, "web", "--health-cmd", "test -e /tmp/well", "--health-interval", "300ms", "--health-retries", "2",
           "--health-start-period", "60s", "--restart-delay", "30s")  # fmt: skip
    until("it starts", lambda: states(first, "web") == {"Starting": 1})
    host, box = until("its container is there", lambda: container(swarm, "web"))
    until("its health is looked at", lambda: host.json("inspect", box)[0]["State"]["Health"]["Log"])
    assert states(first, "web") == {"Starting": 1}
    assert first.replicas("web") == "0/1"
    host.docker("exec", box, "touch", "/tmp/well")
    running(first, "web", 1)
    host.docker("exec", box, "busybox", "rm", "/tmp/well")
    until("it is unwell", lambda: any("unhealthy" in e for e in errors(first, "web")))
    until("its container has ended", lambda: not host.docker("ps", "-q", "--filter", f"id={box}"))
    assert states(first, "web")["Failed"] == 1


def test_restart_policy(first: Host) -> None:
    create(first, "thrice", "--restart-condition", "on-failure", "--restart-delay", "200ms",
           "--restart-max-attempts", "2", command=("false",))  # fmt: skip
    create(first, "once", "--restart-condition", "none", command=("false",))
    create(first, "done", "--restart-condition", "on-failure", "--restart-delay", "200ms", command=("true",))
    create(first, "again", "--restart-delay", "200ms", command=("true",))
    until("it was tried again twice", lambda: states(first, "thrice") == {"Failed": 3})
    until("it was tried once", lambda: states(first, "once") == {"Failed": 1})
    until("it ended well", lambda: states(first, "done") == {"Complete": 1})
    until("it comes again and again", lambda: states(first, "again")["Complete"] >= 3)
    assert first.replicas("done") == "0/1"
    assert (states(first, "thrice"), states(first, "once"), states(first, "done")) == (
        {"Failed": 3}, {"Failed": 1}, {"Complete": 1},
    )  # fmt: skip


# ---- update and rollback ---------------------------------------------------------------------------------------------


@contextmanager
def counted(host: Host, name: str) -> Iterator[list[int]]:
    """How many tasks run, looked at all the time by a thread of its own."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(len(host.running(name)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("order", "least", "most"), [("stop-first", 2, 4), ("start-first", 4, 6)])
def test_a_rolling_update_goes_step_by_step(first: Host, order: str, least: int, most: int) -> None:
    create(
        first, "web", "--replicas", "4", "--update-parallelism", "2", "--update-delay", "1s", "--update-order", order
    )
    running(first, "web", 4)
    before = set(first.docker("service", "ps", "-q", "web").split())
    with counted(first, "web") as seen:
        said = first.docker("service", "update", "--env-add", "A=1", "web")
    assert "verify: " in said.splitlines()[-1]
    ids = set(first.docker("service", "ps", "-q", "-f", "desired-state=running", "web").split())
    assert len(ids - before) == 4
    assert (min(seen) >= least, max(seen) <= most) == (True, True), seen
    until("it is complete", lambda: update_status(first, "web")["State"] == "completed")
    started = sorted(
        first.json("inspect", i)[0]["Status"]["Timestamp"] for i in ids
    )  # fmt: skip
    assert moment(started[2]) - moment(started[1]) > 0.9, "the delay between two steps"
    assert states(first, "web") == {"Running": 4, "Shutdown": 4}


def moment(text: str) -> float:
    from datetime import datetime  # noqa: PLC0415 - one use

    return datetime.fromisoformat(text[:26].rstrip("Z") + "Z").timestamp()


def test_an_update_that_fails_stops_and_can_be_taken_back(first: Host) -> None:
    create(first, "web", "--replicas", "3", "--update-failure-action", "pause", "--update-delay", "1s")
    running(first, "web", 3)
    paused = first.fails("service", "update", "-q", "--args", "false", "web")
    until("it is paused", lambda: update_status(first, "web").get("State") == "paused")
    task = update_status(first, "web")["Message"].split()[-1]
    message = f"update paused due to failure or early termination of task {task}"
    assert update_status(first, "web")["Message"] == message
    assert f"service update paused: {message}" in paused
    running(first, "web", 2)  # the others are as they were
    said = first.docker("service", "rollback", "web")
    assert "rollback: manually requested rollback" in said
    running(first, "web", 3)
    assert update_status(first, "web")["State"] == "rollback_completed"
    assert first.json("service", "inspect", "web")[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == list(LOOP)
    first.docker("service", "update", "-q", "--update-delay", "0s", "--env-add", "A=1", "web")
    first.docker("service", "update", "-q", "--rollback", "web")
    assert not first.json("service", "inspect", "web")[0]["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env")


def test_an_update_that_fails_takes_itself_back(first: Host) -> None:
    create(first, "web", "--replicas", "3", "--update-failure-action", "rollback")
    before = set(running(first, "web", 3))
    first.docker("service", "update", "-q", "--image", NOTHING, "web")
    until("it is rolled back", lambda: update_status(first, "web").get("State") == "rollback_completed")
    assert len(before & set(running(first, "web", 3))) >= 2
    image = first.json("service", "inspect", "web")[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    assert image.startswith(f"{BUSYBOX}@sha256:")


def test_what_is_no_matter_to_tasks_restarts_none(first: Host) -> None:
    create(first, "web", "--replicas", "2")
    running(first, "web", 2)
    before = first.docker("service", "ps", "-q", "web")
    first.docker("service", "update", "-q", "--label-add", "a=b", "--update-delay", "1s", "web")
    first.docker("service", "update", "-q", "--replicas", "3", "web")
    running(first, "web", 3)
    assert set(before.split()) < set(first.docker("service", "ps", "-q", "web").split())
    assert states(first, "web") == {"Running": 3}


# ---- logs ------------------------------------------------------------------------------------------------------------


def test_logs_of_all_hosts(swarm: list[Host], first: Host) -> None:
    speak = (
        "trap 'exit 0' TERM; echo one; echo two; until [ -e /tmp/go ]; do sleep 0.1; done; echo three; sleep 99 & wait"
    )
    create(first, "talk", "--replicas", "3", command=("sh", "-c", speak))
    running(first, "talk", 3)
    until("all have spoken", lambda: len(first.docker("service", "logs", "--raw", "talk").splitlines()) == 6)
    lines = first.docker("service", "logs", "talk").splitlines()
    assert {line.split()[0].partition("@")[2] for line in lines} == {h.name for h in swarm}
    assert all(line.split()[0].startswith("talk.") and "    | " in line for line in lines)
    tail = first.docker("service", "logs", "--raw", "--tail", "1", "talk").splitlines()
    assert len(tail) == 3
    stamped = first.docker("service", "logs", "--raw", "--timestamps", "talk").splitlines()
    assert all(moment(line.split()[0]) > time.time() - 120 for line in stamped)
    one = first.docker("service", "ps", "-q", "--no-trunc", "talk").split()[0]
    assert len(first.docker("service", "logs", "--raw", one).splitlines()) == 2, "logs of a task"
    argv = [first.client, "-H", f"unix://{first.place.socket}", "service", "logs", "-f", "--raw", "--tail", "0", "talk"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as follow:
        assert follow.stdout
        try:
            for host in swarm:
                box = host.docker("ps", "-q", "--filter", "name=talk.")
                host.docker("exec", box, "touch", "/tmp/go")
            assert [follow.stdout.readline().strip() for _ in swarm] == ["three"] * 3
        finally:
            follow.kill()
