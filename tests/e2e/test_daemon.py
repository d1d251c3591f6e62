"""The daemon in front of a real engine: restarted at any time, and out of the way of all that is the engine's."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select

import pytest
from hosts import BUSYBOX, CLIENTS, Host, daemon_pid, restart_daemon, until

from afterswarm.lab.power import inside

LOOP = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, host: Host, *argv: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        command = [host.client, "-H", f"unix://{host.place.socket}", *argv]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, within: float = 20) -> re.Match[str]:
        """Read until what was shown since the last call matches."""
        ends = time.monotonic() + within
        while not (found := re.search(pattern, self.shown)):
            left = ends - time.monotonic()
            ready, _, _ = select([self.master], [], [], max(left, 0))
            assert ready, f"{pattern!r} was not shown within {within} s, but: {self.shown!r}"
            self.shown += os.read(self.master, 4096).decode(errors="replace")
        self.shown = self.shown[found.end() :]
        return found

    def ended(self) -> int:
        return self.process.wait(20)


@contextmanager
def terminal(host: Host, *argv: str) -> Iterator[Terminal]:
    shown = Terminal(host, *argv)
    try:
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        os.close(shown.master)


@contextmanager
def lines(host: Host, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on for ever, and what it writes."""
    command = [host.client, "-H", f"unix://{host.place.socket}", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


# ---- engines that cannot be used -------------------------------------------------------------------------------------


def test_an_engine_in_swarm_mode_is_refused_with_the_way_out(hosts: list[Host]) -> None:
    host = hosts[2]
    host.docker("swarm", "init", "--advertise-addr", host.address, engine=True)
    try:
        restart_daemon(host)
        said = host.fails("swarm", "init", "--advertise-addr", host.address)
        assert "the Docker Engine is itself in swarm mode (active)" in said
        assert "`docker swarm leave --force` on its own socket" in said
        assert host.fails("swarm", "join", "--token", f"SWMTKN-1-{'0' * 50}-{'0' * 25}", "10.77.0.1") == said
        assert "the Docker Engine is itself in swarm mode" in host.docker("info", "--format", "{{.Swarm.Error}}")
        assert host.docker("ps", "-q") == "", "what is the engine's goes on"
    finally:
        host.docker("swarm", "leave", "--force", engine=True)
    until("it can be used", lambda: not host.docker("info", "--format", "{{.Swarm.Error}}"))


def test_two_daemons_on_one_host_and_an_engine_that_is_missing(hosts: list[Host]) -> None:
    host = hosts[0]
    flags = ("--listen", "unix:///run/second/docker.sock", "--engine", "unix:///run/none.sock", "--state", "/run/state")
    argv = inside(host.place, [sys.executable, "-m", "afterswarm.cli.main", "daemon", *flags])
    socket = str(host.place.run / "second" / "docker.sock")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as second:
        try:
            until("it answers", lambda: Path(socket).exists())

            def said(*words: str) -> str:
                client = [host.client, "-H", f"unix://{socket}", *words]
                return subprocess.run(client, capture_output=True, text=True, check=False).stderr

            assert "no Docker Engine answers" in said("swarm", "init", "--advertise-addr", host.address)
            assert "apt-get install docker.io" in said("swarm", "init", "--advertise-addr", host.address)
            assert "Cannot connect to the Docker engine at unix:///run/none.sock: is it running?" in said("ps")
        finally:
            second.terminate()
    assert host.docker("ps", "-q") == ""


# ---- a daemon that starts again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_containers_outlive_the_daemon_and_are_adopted(swarm: list[Host], number: signal.Signals) -> None:
    first = swarm[0]
    first.docker("service", "create", "-d", "-q", "--name", "web", "--replicas", "3", "--mount",
                 "type=volume,source=notes,target=/data", BUSYBOX, *LOOP)  # fmt: skip
    until("three tasks run", lambda: len(first.running("web")) == 3)

    def containers() -> list[str]:
        shown = [h.docker("ps", "--no-trunc", "-q", "--filter", "name=web.") for h in swarm]
        return [f"{i} {h.json('inspect', i)[0]['State']['StartedAt']}" for h, i in zip(swarm, shown, strict=True)]

    def tasks() -> list[str]:
        return sorted(first.docker("service", "ps", "-q", "--no-trunc", "web").split())

    before = containers(), tasks()
    for host in swarm:  # the leader first
        restart_daemon(host, number)
        until("it is a manager again", lambda host=host: set(host.nodes().values()) == {"Ready"})
    assert (containers(), tasks()) == before
    victim = containers()[1].split()[0]
    swarm[1].docker("kill", victim)
    until("a restarted daemon sees that a container ends", lambda: len(tasks()) == 4)
    first.docker("service", "rm", "web")
    until("and removes containers that it has adopted", lambda: not any(
        h.docker("ps", "-aq", "--filter", "name=web.") for h in swarm
    ))  # fmt: skip
    for host in swarm:
        host.docker("volume", "rm", "notes")


def test_the_manager_s_state_is_kept(swarm: list[Host]) -> None:
    first = swarm[0]
    before = [first.docker("info", "--format", f"{{{{.Swarm.{x}}}}}") for x in ("NodeID", "Cluster.ID")]
    token = first.docker("swarm", "join-token", "-q", "worker")
    for host in swarm:
        host.run("kill", "-9", str(daemon_pid(host)))
    for host in swarm:
        until("it answers", lambda host=host: host.docker("swarm", "join-token", "-q", "worker") == token)
    assert [first.docker("info", "--format", f"{{{{.Swarm.{x}}}}}") for x in ("NodeID", "Cluster.ID")] == before
    until("all are ready", lambda: set(first.nodes().values()) == {"Ready"})


# ---- what goes on to the engine --------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_versions_are_ones_that_the_engine_can_serve(swarm: list[Host], client: str) -> None:
    host = swarm[0].with_client(client)
    ours, engine = (json.loads(host.docker("version", "--format", "{{json .Server}}", engine=e)) for e in (False, True))
    assert ours["ApiVersion"] == engine["ApiVersion"]
    assert ours["MinAPIVersion"] == engine["MinAPIVersion"]
    used = json.loads(host.docker("version", "--format", "{{json .Client}}"))["ApiVersion"]
    assert tuple(map(int, used.split("."))) <= tuple(map(int, engine["ApiVersion"].split(".")))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_terminal_in_a_container(swarm: list[Host], client: str) -> None:
    host = swarm[0].with_client(client)
    box = host.docker("run", "-d", BUSYBOX, *LOOP)
    try:
        with terminal(host, "exec", "-it", box, "sh") as shell:
            shell.expect("/ #")
            shell.type("echo $((6 * 7))\n")
            shell.expect(r"\n42\r\n")
            shell.type("busybox stty size\n")
            shell.expect(r"33 101")
            shell.type("exit 3\n")
            assert shell.ended() == 3
        piped = subprocess.run(
            [host.client, "-H", f"unix://{host.place.socket}", "exec", "-i", box, "cat"],
            input=b"x" * 300_000, capture_output=True, check=True, timeout=30,
        )  # fmt: skip
        assert len(piped.stdout) == 300_000, "the end of the input gets through, and all that came before"
    finally:
        host.docker("rm", "-f", box)


def test_attach_and_detach(swarm: list[Host]) -> None:
    host = swarm[0]
    box = host.docker("run", "-dit", BUSYBOX, "sh")
    try:
        with terminal(host, "attach", box) as shell:
            shell.type("echo $((6 * 7))\n")
            shell.expect(r"\n42\r\n")
            shell.type("\x10\x11")  # ctrl-p ctrl-q
            shell.expect("read escape sequence")
            shell.ended()
        assert host.json("inspect", box)[0]["State"]["Running"]
        with terminal(host, "attach", box) as shell:
            shell.type("exit 4\n")
            assert shell.ended() == 4
    finally:
        host.docker("rm", "-f", box)


def test_logs_as_they_come(swarm: list[Host]) -> None:
    host = swarm[0]
    box = host.docker("run", "-d", BUSYBOX, "sh", "-c", "echo one; until [ -e /tmp/go ]; do sleep 0.1; done; echo two")
    try:
        with lines(host, "logs", "-f", box) as logs:
            assert line(logs) == "one"
            host.docker("exec", box, "touch", "/tmp/go")
            assert line(logs) == "two"
            assert logs.wait(10) == 0
    finally:
        host.docker("rm", "-f", box)


@pytest.mark.parametrize(("client", "kit"), [("20.10", "0"), ("20.10", "1"), ("28", "0")])
def test_build(swarm: list[Host], client: str, kit: str, tmp_path: Path) -> None:
    host = swarm[0].with_client(client)
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY data /data\nLABEL made={client}-{kit}\n")
    (tmp_path / "data").write_bytes(os.urandom(2_000_000))
    argv = [host.client, "-H", f"unix://{host.place.socket}", "build", "-t", "made:1", str(tmp_path)]
    environment = {**os.environ, "DOCKER_BUILDKIT": kit}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.docker("image", "inspect", "-f", '{{index .Config.Labels "made"}}', "made:1") == f"{client}-{kit}"
    saved = host.docker("image", "inspect", "-f", "{{.Size}}", "made:1", engine=True)
    assert int(saved) == 2_000_000
    host.docker("rmi", "made:1")


def test_events_of_the_engine_and_of_the_swarm(swarm: list[Host]) -> None:
    host = swarm[0]
    since = f"{time.time():.6f}"  # so that it is no matter when the client gets to ask
    host.docker("volume", "create", "heard")
    with lines(host, "events", "--since", since, "--format", "{{json .}}") as events:
        made = json.loads(line(events))
        assert (made["Type"], made["Action"], made["Actor"]["ID"]) == ("volume", "create", "heard")
        service = host.docker("service", "create", "-d", "-q", "--name", "heard", "--replicas", "0", BUSYBOX)
        told = json.loads(line(events))
        assert (told["Type"], told["Action"], told["Actor"]["ID"]) == ("service", "create", service)
        assert told["scope"] == "swarm"
        assert told["Actor"]["Attributes"] == {"name": "heard"}
    host.docker("service", "rm", "heard")
    host.docker("volume", "rm", "heard")
