"""The life of a swarm on real hosts: keys that change, managers that are locked, a majority that is lost. One story."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest
from conftest import disband
from hosts import BUSYBOX, Host, restart_daemon, until

KEY = r"SWMKEY-1-[A-Za-z0-9+/]{43}"
LOCKED = (
    "Error response from daemon: Swarm is encrypted and needs to be unlocked before it can be used. "
    'Please use "docker swarm unlock" to unlock it.'
)
STATE = "/var/lib/afterswarm"
POOL = ("--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26")
kept: dict[str, str] = {}


def info(host: Host, what: str) -> str:
    return host.docker("info", "--format", f"{{{{.Swarm.{what}}}}}")


def swarm_of(host: Host) -> Any:
    return json.loads(host.docker("info", "--format", "{{json .Swarm.Cluster}}"))


def tls(host: Host) -> list[str]:
    rows = host.docker("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}").splitlines()
    return sorted(row for row in rows if not row.endswith(" Ready"))


def managers(host: Host) -> int:
    return len(host.docker("node", "ls", "--format", "{{.ManagerStatus}}").split())


@pytest.fixture(scope="module")
def three(hosts: list[Host]) -> list[Host]:
    """swarm-1 and swarm-2 manage, swarm-3 works; locked from the beginning, everything else is as it need not be."""
    first, second, third = hosts
    said = first.docker(
        "swarm", "init", "--autolock", "--advertise-addr", "eth0", "--data-path-port", "7777", *POOL, "--listen-addr",
        "eth0:4567", "--dispatcher-heartbeat", "7s", "--task-history-limit", "3", "--cert-expiry", "48h",
        "--max-snapshots", "2", "--snapshot-interval", "900", "--availability", "drain",
    )  # fmt: skip
    kept["key"] = re.search(KEY, said)[0]  # type: ignore[index]
    token, at = first.docker("swarm", "join-token", "-q", "manager"), f"{first.address}:4567"
    second.docker(
        "swarm",
        "join",
        "--token",
        token,
        "--advertise-addr",
        "eth0",
        "--data-path-addr",
        "eth0",
        f"{first.address}:4567",
    )
    token = first.docker("swarm", "join-token", "-q", "worker")
    third.docker("swarm", "join", "--token", token, "--availability", "active", "--listen-addr", "eth0", at)
    until("all are ready", lambda: list(first.nodes().values()) == ["Ready"] * 3 and managers(first) == 2)
    first.docker("network", "create", "-d", "overlay", "net")
    first.docker(
        "service", "create", "-d", "-q", "--name", "web", "--replicas", "2", "--network", "net", "-p", "8080:80",
        "--secret", secret(first), BUSYBOX, "sh", "-c", "hostname > /www/index.html; httpd -f -h /www",
    )  # fmt: skip
    until("web runs", lambda: len(first.running("web")) == 2)
    return hosts


def secret(host: Host) -> str:
    host.run("sh", "-c", "echo hidden | /usr/bin/docker secret create note -")
    return "note"


@pytest.mark.row("SW-02", "SW-03", "SW-04", "SW-05", "SW-06", "SW-07")
def test_sw_05_how_hosts_find_each_other(three: list[Host]) -> None:
    first, _, third = three
    assert swarm_of(first)["DataPathPort"] == 7777
    assert (swarm_of(first)["DefaultAddrPool"], swarm_of(first)["SubnetSize"]) == (["10.20.0.0/16"], 26)
    subnet = first.json("network", "inspect", "net")[0]["IPAM"]["Config"][0]["Subnet"]
    assert re.fullmatch(r"10\.20\.\d+\.\d+/26", subnet)
    assert first.docker("node", "inspect", "self", "--format", "{{.Spec.Availability}} {{.Status.Addr}}") == (
        f"drain {first.address}"
    )
    assert f"{first.address}:4567" in first.docker("node", "inspect", "self", "--format", "{{.ManagerStatus.Addr}}")
    assert f"{first.address}:4567" in third.docker("info", "--format", "{{.Swarm.RemoteManagers}}")
    assert {node for _, node in first.running("web")} == {"swarm-2", "swarm-3"}
    shown = third.run("sh", "-c", "ip -d link show type vxlan")
    assert set(re.findall(r"dstport (\d+)", shown)) == {"7777"}
    until("the port answers everywhere", lambda: all(
        h.run("busybox", "wget", "-qO-", f"http://{h.address}:8080/") for h in three for _ in range(3)
    ))  # fmt: skip


@pytest.mark.row("SW-26", differs="beats on 7947/udp in place of gossip on 7946; stores on 2380/tcp besides")
def test_sw_26_ports_between_hosts(three: list[Host]) -> None:
    def opened(host: Host) -> set[str]:
        rows = [row.split() for row in host.run("ss", "-Hlntu").splitlines()]
        local = {f"{kind}/{where.rpartition(':')[2]}" for kind, _, _, _, where, *_ in rows if "127.0.0.1" not in where}
        return local - {"tcp/53", "udp/53", "tcp/8080"}

    assert {"tcp/4567", "tcp/2380", "udp/7777", "udp/7947"} <= opened(three[0])
    assert {"tcp/2377", "udp/7777", "udp/7947"} <= opened(three[2])
    assert "tcp/2380" not in opened(three[2])


@pytest.mark.row("SW-08", "SW-20")
def test_sw_08_a_manager_that_starts_again_is_locked(three: list[Host]) -> None:
    first, second, _ = three
    assert first.docker("swarm", "unlock-key", "-q") == kept["key"]
    for host in (first, second):
        found = host.run(
            "sh", "-c", "ls /var/lib/afterswarm/identity; grep -rl 'BEGIN.*PRIVATE' /var/lib/afterswarm; true"
        )
        assert "locked.json" in found
        assert "key.pem" not in found
        assert "cluster.key" not in found
    before = second.docker("ps", "-q", engine=True)
    restart_daemon(second)
    assert info(second, "LocalNodeState") == "locked"
    assert second.fails("node", "ls") == LOCKED
    assert "is encrypted and locked. Please unlock it first" in second.fails("swarm", "leave")
    assert second.docker("ps", "-q", engine=True) == before != "", "containers go on"
    assert "invalid key provided" in unlock(second, f"SWMKEY-1-{'A' * 43}")
    assert "invalid key string" in unlock(second, "nonsense")
    assert unlock(second, kept["key"]) == ""
    until("it is a manager again", lambda: list(second.nodes().values()) == ["Ready"] * 3)
    assert "swarm is not locked" in unlock(second, kept["key"])
    old = second.run("cat", f"{STATE}/identity/locked.json")
    kept["key"] = first.docker("swarm", "unlock-key", "--rotate", "-q")
    until("it is locked with the new key", lambda: second.run("cat", f"{STATE}/identity/locked.json") != old)
    restart_daemon(second)
    assert unlock(second, kept["key"]) == ""
    first.docker("swarm", "update", "--autolock=false")
    until("keys rest as they are", lambda: "cluster.key" in second.run("ls", f"{STATE}/identity"))
    restart_daemon(second)
    until("it is a manager again", lambda: list(second.nodes().values()) == ["Ready"] * 3)


def unlock(host: Host, key: str) -> str:
    """What it says; "" when it works."""
    return host.run("sh", "-c", f"echo {key} | /usr/bin/docker swarm unlock 2>&1; true")


@pytest.mark.row("SW-21")
def test_sw_21_a_new_root_for_everybody(three: list[Host]) -> None:
    first, second, third = three
    old, token = first.docker("swarm", "ca"), first.docker("swarm", "join-token", "-q", "worker")
    third.lab.kill(third.name)
    first.docker("swarm", "ca", "--rotate", "-d")
    assert first.docker("info", "--format", "{{.Swarm.Cluster.RootRotationInProgress}}") == "true"
    until("it waits for the host that is off", lambda: tls(first) == ["swarm-3 Needs Rotation"])
    first.docker("service", "update", "-d", "-q", "--label-add", "a=b", "web")
    third.lab.start(third.name)
    until("the rotation ends", lambda: info(first, "Cluster.RootRotationInProgress") == "false")
    until("everybody trusts the new root", lambda: tls(first) == [])
    new = first.docker("swarm", "ca")
    assert new != old
    assert first.docker("swarm", "join-token", "-q", "worker").split("-")[2] != token.split("-")[2]
    until("the stores trust it", lambda: all(store_trusts(h, new) for h in (first, second)))
    said = first.docker("swarm", "ca", "--rotate", timeout=60)
    assert said.endswith(first.docker("swarm", "ca"))
    assert "BEGIN CERTIFICATE" in said
    until("everybody trusts it", lambda: tls(first) == [])
    assert list(second.nodes().values()) == ["Ready"] * 3
    until("web runs", lambda: len(first.running("web")) == 2)


def store_trusts(host: Host, root: str) -> bool:
    """Whether its etcd was started after its root certificate was written."""
    shown = host.run(
        "sh", "-c", "stat -c %Y /var/lib/afterswarm/identity/ca.pem; cat /var/lib/afterswarm/identity/ca.pem"
    )
    written, _, pem = shown.partition("\n")
    started = host.run("sh", "-c", "stat -c %Y /proc/$(pgrep -x etcd | head -1)")
    return pem.strip() == root.strip() and int(started) >= int(written)


def updated(host: Host) -> str:
    return host.docker("service", "inspect", "--format", "{{.UpdateStatus.State}}", "web")


@pytest.mark.row("SW-14", "SW-25")
def test_sw_14_a_swarm_made_anew_from_one_manager(three: list[Host]) -> None:
    first, second, third = three
    first.docker("node", "promote", "swarm-3")
    until("three managers", lambda: managers(first) == 3 and managers(third) == 3)
    first.docker("service", "update", "-d", "-q", "--force", "web")
    until("the update is over", lambda: updated(third) == "completed")
    until("it has moved back", lambda: sorted(node for _, node in third.running("web")) == ["swarm-2", "swarm-3"])
    before = info(third, "Cluster.ID"), info(third, "NodeID")
    container = next(name for name, node in third.running("web") if node == "swarm-3")
    for host in (first, second):
        host.lab.kill(host.name)
    until("no majority", lambda: "leader" in third.fails("service", "create", "-d", BUSYBOX))
    third.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", third.address)
    assert (info(third, "Cluster.ID"), info(third, "NodeID")) == before
    until("services live", lambda: len(third.running("web")) == 2)
    assert container in [name for name, _ in third.running("web")]
    assert third.nodes() == {"swarm-1": "Down", "swarm-2": "Down", "swarm-3": "Ready"}
    assert third.docker("secret", "ls", "--format", "{{.Name}}") == "note"
    third.docker("node", "rm", "--force", "swarm-1")
    third.docker("service", "update", "-q", "-d", "--replicas", "3", "web")
    until("it can be changed", lambda: len(third.running("web")) == 3)


@pytest.mark.row("SW-14", "ND-05")
def test_sw_14_the_other_managers_come_back(three: list[Host]) -> None:
    """One was removed, and leaves and joins again; the other one finds its place by itself."""
    first, second, third = three
    second.lab.start("swarm-2")
    until("it is a manager again", lambda: managers(third) == 2 and third.nodes()["swarm-2"] == "Ready", 90)
    first.lab.start("swarm-1")
    first.docker("swarm", "leave", "--force")
    first.docker("swarm", "join", "--token", third.docker("swarm", "join-token", "-q", "worker"), third.address)
    until("all are there", lambda: third.nodes() == {f"swarm-{i}": "Ready" for i in (1, 2, 3)})


@pytest.mark.row("SW-24")
def test_sw_24_backup_and_restore(three: list[Host]) -> None:
    """The state directory of one manager, copied while its daemon was off; everything else is lost."""
    first, second, third = three
    before = info(third, "Cluster.ID")
    third.lab.kill("swarm-3")
    copy = third.place.dir / "copy"
    shutil.copytree(third.place.disk / "afterswarm", copy)
    third.lab.start("swarm-3")
    second.docker("service", "create", "-d", "-q", "--name", "later", BUSYBOX)
    for host in (second, third):
        host.docker("swarm", "leave", "--force")
    third.lab.kill("swarm-3")
    shutil.rmtree(third.place.disk / "afterswarm")
    shutil.copytree(copy, third.place.disk / "afterswarm")
    third.lab.start("swarm-3")
    third.docker("swarm", "init", "--force-new-cluster")
    assert info(third, "Cluster.ID") == before
    assert third.docker("service", "ls", "--format", "{{.Name}}") == "web"
    until("the worker follows the restored swarm", lambda: third.nodes()["swarm-1"] == "Ready")
    until("services live", lambda: len(third.running("web")) == 3)
    third.docker("service", "scale", "-d", "web=6")  # at most three of them elsewhere
    # the restored store may say that one runs here which ended with the swarm before: the engine knows
    until("one runs here", lambda: third.docker("ps", "-q", engine=True) != "")
    third.docker("swarm", "update", "--autolock")
    until("its keys are sealed", lambda: "key.pem" not in third.run("ls", f"{STATE}/identity"))
    restart_daemon(third)
    assert info(third, "LocalNodeState") == "locked"
    assert third.docker("ps", "-q", engine=True) != ""
    third.docker("swarm", "leave", "--force")
    assert info(third, "LocalNodeState") == "inactive"
    assert third.docker("ps", "-aq", engine=True) == ""
    assert third.run("sh", "-c", f"ip -o link show type vxlan; find {STATE} -type f") == ""
    disband([first])
