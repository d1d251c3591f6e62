"""What any manager shows of tasks on other hosts: containers, logs, events. Two managers, and a worker with it all."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import form
from hosts import BUSYBOX, CLIENTS, DockerFailed, Host, until

TALK = "trap 'echo hup' HUP; trap 'exit 0' TERM; echo begun; echo oops >&2; while :; do sleep 0.1; done"
EACH = pytest.mark.parametrize("client", CLIENTS)


@pytest.fixture(scope="module")
def spread(hosts: list[Host]) -> Iterator[list[Host]]:
    """swarm-1 and swarm-2 manage; services of swarm-3: `talk`, `term` with a terminal, `mute` without readable logs."""
    form(hosts, managers=2)
    flags = ("-d", "-q", "--restart-delay", "1s", "--constraint", "node.hostname==swarm-3")
    hosts[0].docker("service", "create", *flags, "--name", "talk", BUSYBOX, "sh", "-c", TALK)
    hosts[0].docker("service", "create", *flags, "--name", "term", "-t", BUSYBOX, "sh", "-c", "echo hello; sleep 9999")
    hosts[0].docker("service", "create", *flags, "--name", "mute", "--log-driver", "none", BUSYBOX)
    hosts[0].docker("service", "create", "-d", "-q", "--mode", "global", "--name", "all", BUSYBOX, "sh", "-c", TALK)
    until("all run", lambda: all(hosts[0].running(name) for name in ("talk", "term", "mute")), 40)
    until("everywhere", lambda: len(hosts[0].running("all")) == 3, 40)
    yield hosts
    for host in hosts:
        if host.place.state == "cut":
            host.lab.heal(host.name)
    hosts[0].docker("service", "rm", "talk", "term", "mute", "all")


def container(host: Host, service: str, but: str = "") -> str:
    """Name of the one task's container, once it runs, as `docker service ps` lets an operator make it up."""

    def running() -> str:
        form = ("--format", "{{.Name}}.{{.ID}} {{.CurrentState}}")
        shown = host.docker("service", "ps", "--no-trunc", "-f", "desired-state=running", *form, service)
        return next((ln.split()[0] for ln in shown.splitlines() if " Running" in ln and ln.split()[0] != but), "")

    return until(f"{service} runs", running, 30)


def piped(host: Host, said: bytes, *argv: str) -> bytes:
    full = [host.client, "-H", f"unix://{host.place.socket}", *argv]
    return subprocess.run(full, input=said, capture_output=True, timeout=20, check=True).stdout


@contextmanager
def reading(host: Host, *argv: str) -> Iterator[Any]:
    """Lines of a command that goes on: `wait(words)` returns the line that has them."""
    full = [host.client, "-H", f"unix://{host.place.socket}", *argv]
    with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: list[str] = []

        def collect() -> None:
            assert process.stdout
            lines.extend(iter(process.stdout.readline, ""))

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()

        def wait(words: str, within: float = 15) -> str:
            return until(f"{words!r} in {argv}", lambda: next((ln for ln in lines if words in ln), ""), within)

        wait.process = process  # type: ignore[attr-defined]
        try:
            yield wait
        finally:
            process.kill()
            process.wait()
            thread.join(5)


@EACH
@pytest.mark.parametrize("manager", [0, 1])
def test_read_from_any_manager(spread: list[Host], client: str, manager: int) -> None:
    host = spread[manager].with_client(client)
    name = container(host, "talk")
    (shown,) = host.json("inspect", "--type", "container", name)
    assert shown["Name"] == f"/{name}"
    assert shown["Config"]["Labels"]["com.docker.swarm.node.id"] == spread[2].docker("info", "-f", "{{.Swarm.NodeID}}")
    for term in (name, shown["Id"], shown["Id"][:10], "talk.1"):
        assert "sh -c trap" in host.docker("top", term)
        logs = run(host, "logs", term)
        assert ("begun" in logs.stdout, "oops" in logs.stderr) == (True, True)
    assert name in host.docker("stats", "--no-stream", "--format", "{{.Name}}", name)
    assert host.docker("port", name) == ""
    host.docker("exec", name, "touch", f"/tmp/new-{client}-{manager}")
    assert f"A /tmp/new-{client}-{manager}" in host.docker("diff", name)
    assert name not in host.docker("ps", "--no-trunc", "--format", "{{.Names}}").split(), "ps is this host's"
    assert "No such container" in host.fails("logs", "nobody")


@EACH
def test_exec_with_input_output_and_exit_code(spread: list[Host], client: str) -> None:
    host = spread[0].with_client(client)
    name = container(host, "talk")
    assert host.docker("exec", "-e", "A=b", "-w", "/tmp", name, "sh", "-c", "echo $A; echo $PWD") == "b\n/tmp"
    with pytest.raises(DockerFailed) as failed:
        host.docker("exec", name, "sh", "-c", "exit 7")
    assert failed.value.code == 7
    much = os.urandom(3_000_000)
    assert piped(host, much, "exec", "-i", name, "cat") == much, "the end of the input reaches the process"
    assert piped(host, b"", "exec", "-i", name, "cat") == b""
    host.docker("exec", "-d", name, "touch", f"/tmp/detached-{client}")
    until("done", lambda: host.docker("exec", name, "ls", f"/tmp/detached-{client}"))


@EACH
def test_exec_in_a_terminal_that_changes_its_size(spread: list[Host], client: str) -> None:
    host = spread[1].with_client(client)
    name = container(host, "talk")
    main, terminal = pty.openpty()
    size = f"stty rows 33 cols 77 -F /proc/{os.getpid()}/fd/{terminal}".split()
    subprocess.run(size, check=True)
    argv = [host.client, "-H", f"unix://{host.place.socket}", "exec", "-it", name, "sh"]
    seen = bytearray()

    def collect() -> None:
        try:
            while data := os.read(main, 4096):
                seen.extend(data)
        except OSError:
            pass

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    with subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True) as process:
        try:
            until("a prompt", lambda: b"# " in seen)
            ask = b"busybox stty size\n"
            until("its size", lambda: (os.write(main, ask), time.sleep(0.3), b"33 77" in seen)[-1], every=0.3)
            subprocess.run([*"stty rows 44 cols 88 -F".split(), f"/proc/{os.getpid()}/fd/{terminal}"], check=True)
            process.send_signal(28)  # SIGWINCH: the terminal is not the process's controlling one
            until("its new size", lambda: (os.write(main, ask), time.sleep(0.3), b"44 88" in seen)[-1], every=0.3)
            os.write(main, b"exit 5\n")
            assert process.wait(10) == 5
        finally:
            process.kill()
    os.close(terminal)
    os.close(main)


@EACH
def test_cp_both_ways(spread: list[Host], client: str, tmp_path: Path) -> None:
    host = spread[0].with_client(client)
    name = container(host, "talk")
    (tmp_path / "in").write_bytes(much := os.urandom(2_000_000))
    host.docker("cp", str(tmp_path / "in"), f"{name}:/tmp/in")
    host.docker("cp", f"{name}:/tmp/in", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == much
    tar = tarfile.open(fileobj=io.BytesIO(piped(host, b"", "cp", f"{name}:/tmp/in", "-")))  # noqa: SIM115
    assert tar.getnames() == ["in"]


@EACH
def test_attach_logs_and_signals(spread: list[Host], client: str) -> None:
    host = spread[1].with_client(client)
    name = container(host, "talk")
    with (
        reading(host, "attach", "--no-stdin", "--sig-proxy=false", name) as attached,
        reading(host, "logs", "-f", "--tail", "0", name) as followed,
    ):
        time.sleep(1)
        host.docker("kill", "-s", "HUP", name)
        attached("hup")
        followed("hup")


@EACH
def test_what_the_swarm_decides_is_refused_and_an_end_is_healed(spread: list[Host], client: str) -> None:
    host = spread[0].with_client(client)
    name = container(host, "talk")
    for argv in (("restart", name), ("start", name), ("rename", name, "x"), ("update", "--memory", "99m", name)):
        assert "it is a task of service talk on node swarm-3" in host.fails(*argv)
    with reading(host, "wait", name) as waited:
        time.sleep(0.5)
        host.docker("kill", name)
        waited("137")
    assert container(host, "talk", but=name), "it is replaced"


@EACH
@pytest.mark.row("TK-06")
def test_tk_06_logs_of_all_hosts(spread: list[Host], client: str) -> None:
    host = spread[1].with_client(client)
    lines = host.docker("service", "logs", "all").splitlines()
    assert {ln.split()[0].partition("@")[2] for ln in lines} == {"swarm-1", "swarm-2", "swarm-3"}
    assert host.docker("service", "logs", "--raw", "term") == "hello"
    assert "only supported with --raw" in host.fails("service", "logs", "term")
    stamped = host.docker("service", "logs", "-t", "--no-trunc", "--no-resolve", "--details", "all").splitlines()
    ids = {h.docker("info", "-f", "{{.Swarm.NodeID}}") for h in spread}
    assert {ln.split()[1].partition("@")[2] for ln in stamped} == ids, "ids, as asked for"
    assert all(ln.split()[0].endswith("Z") for ln in stamped)
    assert host.docker("service", "logs", "--since", "2199-01-01T00:00:00", "all") == ""
    said = run(host, "service", "logs", "--tail", "1", "--raw", "all")
    assert len((said.stdout + said.stderr).splitlines()) == 3
    assert "configured logging driver does not support reading" in run(host, "service", "logs", "mute").stderr
    assert "no such task or service: nope" in host.fails("service", "logs", "nope")


def run(host: Host, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command, whatever its exit code."""
    full = [host.client, "-H", f"unix://{host.place.socket}", *argv]
    return subprocess.run(full, capture_output=True, text=True, timeout=20, check=False)


@EACH
@pytest.mark.row("TK-07")
def test_tk_07_events_of_the_swarm(spread: list[Host], client: str) -> None:
    host = spread[1].with_client(client)
    since = time.time()
    with reading(host, "events", "--filter", "scope=swarm", "--format", "{{json .}}") as heard:
        time.sleep(0.5)
        spread[0].docker("node", "update", "--label-add", "a=b", "--availability", "pause", "swarm-3")
        spread[0].docker("service", "scale", "-d", "talk=2")
        spread[0].docker("network", "create", "-d", "overlay", "events")
        spread[0].docker("node", "update", "--availability", "active", "swarm-3")
        spread[0].docker("service", "scale", "-d", "talk=1")
        spread[0].docker("network", "rm", "events")
        node = json.loads(heard("availability.new"))
        assert (node["Type"], node["Actor"]["Attributes"]["name"]) == ("node", "swarm-3")
        assert "replicas.new" in heard('"Type":"service"') or heard("replicas.new")
        heard('"Action":"remove"')
    past = host.docker(
        "events", "--since", str(since), "--until", str(time.time()), "--format", "{{.TimeNano}} {{.Type}}"
    )
    times = [int(ln.split()[0]) for ln in past.splitlines()]
    assert times == sorted(times)
    assert {"node", "service", "network"} <= {ln.split()[1] for ln in past.splitlines()}


def test_zz_a_silent_host_is_named_soon(spread: list[Host]) -> None:
    """The cable is cut: what asks of that host says so within two seconds, and what listens to it ends."""
    host = spread[0]
    name = container(host, "talk")
    since = str(time.time())
    with (
        reading(host, "logs", "-f", name) as followed,
        reading(host, "service", "logs", "-f", "--raw", "all") as all_logs,
        reading(host, "exec", name, "sleep", "999") as executed,
    ):
        followed("begun")
        all_logs("begun")
        host.lab.cut("swarm-3")
        for client in CLIENTS:
            began = time.monotonic()
            assert "node swarm-3" in host.with_client(client).fails("logs", name)
            assert time.monotonic() - began < 2.5
            said = run(host.with_client(client), "service", "logs", "all").stderr
            assert "incomplete log stream" in said
            assert "node swarm-3 is down" in said or "node swarm-3 does not answer" in said
        until("the follower's end", lambda: followed.process.poll() is not None, 10)
        until("the end of what was executed", lambda: executed.process.poll() is not None, 10)
        all_logs("incomplete log stream: node swarm-3 is not available")
        assert all_logs.process.poll() is None, "the others are still followed"
    host.lab.heal("swarm-3")
    until("back", lambda: host.nodes()["swarm-3"] == "Ready" and len(host.running("all")) == 3, 60)
    seen = (
        "--since",
        since,
        "--until",
        str(time.time()),
        "--filter",
        "type=node",
        "--format",
        "{{json .Actor.Attributes}}",
    )
    states = [a["state.new"] for a in map(json.loads, host.docker("events", *seen).splitlines()) if "state.new" in a]
    assert states == ["down", "ready"]
