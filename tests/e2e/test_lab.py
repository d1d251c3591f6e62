"""`afterswarm lab`: what its commands do to a host, what they say, and what they leave alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hosts import BUSYBOX, Host, until

from afterswarm.lab.hosts import GATEWAY

LAB = [sys.executable, "-m", "afterswarm.cli.main", "lab"]


def lab(*argv: str) -> str:
    """Run `afterswarm lab …` as a person would."""
    done = subprocess.run([*LAB, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(*argv: str) -> str:
    """What it says instead of doing it."""
    done = subprocess.run([*LAB, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert not done.stdout
    return done.stderr.strip()


def status(name: str) -> dict[str, Any]:
    [found] = [h for h in json.loads(lab("status", "--json")) if h["name"] == name]
    return dict(found)


def reaches(host: Host, address: str) -> bool:
    try:
        return "1 packets received" in host.run("busybox", "ping", "-c", "1", "-W", "1", address)
    except AssertionError:
        return False


def test_status_says_where_everything_is(hosts: list[Host]) -> None:
    shown = json.loads(lab("status", "--json"))
    assert [h["name"] for h in shown] == ["swarm-1", "swarm-2", "swarm-3"]
    assert [h["address"] for h in shown] == ["10.77.0.1", "10.77.0.2", "10.77.0.3"]
    for host in shown:
        assert set(host) == {"name", "address", "socket", "engine_socket", "state", "pid"}
        assert host["state"] == "up"
        assert b"afterswarm.lab.init" in Path(f"/proc/{host['pid']}/cmdline").read_bytes()
        for socket in (host["socket"], host["engine_socket"]):
            said = subprocess.run(
                [hosts[0].client, "-H", f"unix://{socket}", "info", "-f", "{{.Name}}"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert said.stdout.strip() == host["name"]
    rows = lab("status").splitlines()
    assert rows[0].split() == ["NAME", "ADDRESS", "STATE", "PID", "SOCKET"]
    assert rows[1].split() == ["swarm-1", "10.77.0.1", "up", str(shown[0]["pid"]), shown[0]["socket"]]


@pytest.mark.usefixtures("hosts")
def test_exec_runs_in_the_host() -> None:
    assert lab("exec", "swarm-2", "--", "hostname") == "swarm-2"
    assert lab("exec", "swarm-2", "--", "docker", "info", "-f", "{{.Name}}") == "swarm-2", "our socket by default"
    assert "inet 10.77.0.2/24" in lab("exec", "swarm-2", "--", "ip", "-4", "address", "show", "eth0")
    processes = lab("exec", "swarm-2", "--", "ps", "-eo", "pid=,args=")
    assert processes.splitlines()[0].split()[0] == "1"
    assert "afterswarm.lab.init swarm-2" in processes.splitlines()[0]
    assert "swarm-3" not in processes
    done = subprocess.run([*LAB, "exec", "swarm-2", "--", "sh", "-c", "exit 7"], check=False)
    assert done.returncode == 7
    assert subprocess.run([*LAB, "exec", "swarm-2", "--"], capture_output=True, check=False).returncode == 2


def test_a_power_cut_and_the_same_disk(hosts: list[Host]) -> None:
    """What is on disk stays; what is in memory, and every process, is gone at once."""
    host = hosts[2]
    host.docker("pull", "-q", BUSYBOX)
    container = host.docker("run", "-d", "--network", "host", BUSYBOX)
    host.run("sh", "-c", "echo kept > /var/lib/docker/kept; echo gone > /run/gone; nohup sleep 76543 >/dev/null 2>&1 &")
    before = status("swarm-3")
    sleeper = f"/proc/{outer_pid('76543')}"

    began = time.monotonic()
    assert lab("kill", "swarm-3") == "swarm-3 is off"
    assert time.monotonic() - began < 2
    assert status("swarm-3") == {**before, "state": "off", "pid": 0}
    assert not Path(f"/proc/{before['pid']}").exists()
    assert not Path(sleeper).exists()
    assert not reaches(hosts[0], host.address)
    assert "DOWN" in subprocess.run(["ip", "-br", "link", "show", "asw-v3"], capture_output=True, text=True).stdout  # noqa: PLW1510
    assert "swarm-3 is off; `afterswarm lab start swarm-3` boots it" in refused("exec", "swarm-3", "--", "true")
    assert "swarm-3 is off; there is nothing to cut" in refused("cut", "swarm-3")
    assert lab("kill", "swarm-3") == "swarm-3 is off", "once more changes nothing"

    assert lab("start", "swarm-3") == "swarm-3 is up"
    assert status("swarm-3")["pid"] not in (0, before["pid"])
    assert reaches(hosts[0], host.address)
    assert host.run("cat", "/var/lib/docker/kept") == "kept"
    assert host.run("sh", "-c", "ls /run/gone 2>/dev/null || echo none") == "none"
    assert host.docker("inspect", "-f", "{{.State.Status}}", container) == "exited"
    assert host.docker("images", "-q", BUSYBOX)
    host.docker("rm", container)
    pid = status("swarm-3")["pid"]
    assert lab("start", "swarm-3") == "swarm-3 is up", "once more changes nothing"
    assert status("swarm-3")["pid"] == pid


def outer_pid(argument: str) -> int:
    """As the machine numbers the process whose last argument this is."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")[-1] == argument.encode():
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no process with {argument}")


def test_a_cut_host_neither_hears_nor_is_heard(hosts: list[Host]) -> None:
    first, cut = hosts[0], hosts[2]
    assert reaches(first, cut.address)
    assert reaches(cut, first.address)
    assert lab("cut", "swarm-3") == "swarm-3 is cut"
    assert status("swarm-3")["state"] == "cut"
    assert not reaches(first, cut.address)
    for there in (first.address, hosts[1].address, GATEWAY):
        assert not reaches(cut, there)
    assert reaches(first, hosts[1].address), "the others are in touch"
    assert cut.docker("info", "-f", "{{.Name}}") == "swarm-3", "it runs, and can be looked at"
    assert lab("heal", "swarm-3") == "swarm-3 is up"
    until("both ways again", lambda: reaches(first, cut.address) and reaches(cut, first.address), 10)


def test_a_host_that_is_cut_may_lose_power_too(hosts: list[Host]) -> None:
    lab("cut", "swarm-3")
    assert lab("kill", "swarm-3") == "swarm-3 is off"
    assert lab("heal", "swarm-3") == "swarm-3 is off"
    assert lab("start", "swarm-3") == "swarm-3 is up"
    until("it is on the wire", lambda: reaches(hosts[0], hosts[2].address), 10)


def test_up_leaves_hosts_that_are_up_as_they_are(hosts: list[Host]) -> None:
    pids = [status(h.name)["pid"] for h in hosts]
    lab("kill", "swarm-2")
    lab("up")
    assert [status(h.name)["pid"] for h in hosts if h.name != "swarm-2"] == [pids[0], pids[2]]
    assert status("swarm-2")["state"] == "up"


@pytest.mark.usefixtures("hosts")
def test_what_cannot_be_done_is_said() -> None:
    for verb in ("kill", "start", "cut", "heal"):
        said = refused(verb, "swarm-9")
        assert said == "afterswarm lab: no host 'swarm-9' in the lab (hosts: swarm-1, swarm-2, swarm-3)"
    assert refused("up", "--hosts", "0") == "afterswarm lab: --hosts takes 1 to 9"
    assert refused("up", "--hosts", "10") == "afterswarm lab: --hosts takes 1 to 9"


@pytest.mark.parametrize("verb", ["up", "kill swarm-1", "cut swarm-1", "exec swarm-1 -- true", "down"])
def test_root_is_needed(hosts: list[Host], verb: str) -> None:
    """Said clearly, and nothing happens."""
    before = status("swarm-1")
    nobody = (
        "import os, sys\n"
        "from afterswarm.cli import doctor, install, lab, main\n"  # before its files cannot be read any more
        "os.setgid(65534); os.setuid(65534); sys.exit(main.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", nobody, "lab", *verb.split()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "afterswarm lab: the lab makes namespaces, bridges and mounts: run it as root (sudo afterswarm lab …)",
    )
    assert status("swarm-1") == before
    assert hosts[0].docker("info", "-f", "{{.Name}}") == "swarm-1"


# ---- its network, on a machine of its own: a network namespace ------------------------------------------------------


def in_own_network(script: str) -> list[str]:
    """Run Python in a new network namespace, where nothing is yet; what it printed."""
    own = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs sys /sys && exec "$@"', "sh"]
    python = [sys.executable, "-c", f"from afterswarm.lab import cable\nrun = cable.run\n{script}"]
    done = subprocess.run([*own, *python], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("forwarding", ["0", "1"])
def test_what_others_made_stays_and_forwarding_is_restored(forwarding: str) -> None:
    there = """
        ip link add br-theirs type bridge
        ip link add asw-theirs type bridge
        nft add table ip theirs
    """
    script = f"""
for line in {there!r}.split("\\n"):
    run(*line.split()) if line.strip() else None
cable.FORWARD.write_text("{forwarding}")
forwarded = cable.lay_bridge()
print(cable.FORWARD.read_text().strip(), "asw-lab" in run("ip", "link"))
print(*run("nft", "list", "tables").split())
cable.remove_bridge(forwarded=forwarded)
print(cable.FORWARD.read_text().strip(), "asw-lab" in run("ip", "link"))
print(*run("nft", "list", "tables").split())
print("br-theirs" in run("ip", "link"), "asw-theirs" in run("ip", "link"))
"""
    assert in_own_network(script) == [
        "1 True", "table ip theirs table ip afterswarm-lab",
        f"{forwarding} False", "table ip theirs", "True True",
    ]  # fmt: skip


def test_addresses_that_are_taken_are_not_used() -> None:
    script = """
run("ip", "link", "add", "theirs", "type", "bridge")
run("ip", "addr", "add", "10.77.0.77/16", "dev", "theirs")
try:
    cable.lay_bridge()
except cable.LabError as said:
    print(said)
print("asw-lab" in run("ip", "link"), "afterswarm-lab" in run("nft", "list", "tables"))
"""
    assert in_own_network(script) == [
        "10.77.0.0/24 is in use on this machine; the lab needs it for its hosts",
        "False False",
    ]
