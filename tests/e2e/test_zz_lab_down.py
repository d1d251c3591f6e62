"""The last module: takes the session's lab down, and looks for what it left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hosts import BUSYBOX, Host
from machine import machine

from afterswarm.lab.lab import Lab


@pytest.fixture
def theirs() -> Iterator[None]:
    """A bridge and rules that are somebody else's, made while the lab was up."""
    made = ("ip link add br-theirs type bridge", "nft add table ip theirs")
    gone = ("ip link del br-theirs", "nft delete table ip theirs")
    for command in made:
        subprocess.run(command.split(), check=True)
    yield
    for command in gone:
        subprocess.run(command.split(), check=True)


@pytest.mark.usefixtures("theirs")
def test_down_leaves_nothing_behind(swarm: list[Host], lab: Lab, before: dict[str, list[str]]) -> None:
    """From the middle of its work: a service runs, one host is off, one is cut."""
    swarm[0].docker("service", "create", "-d", "--name", "web", "-p", "8080:80", "--replicas", "6", BUSYBOX)
    lab.cut("swarm-2")
    lab.kill("swarm-3")
    command = [sys.executable, "-m", "afterswarm.cli.main", "lab"]
    subprocess.run([*command, "down"], check=True)
    after = machine()
    for kind, name in (("links", "br-theirs"), ("tables", "table ip theirs")):
        assert name in after[kind]
        after[kind].remove(name)
    assert after == before
    assert subprocess.run([*command, "status", "--json"], capture_output=True, check=True).stdout.strip() == b"[]"
    subprocess.run([*command, "down"], check=True)  # once more does no harm
    assert lab.read().hosts == []
