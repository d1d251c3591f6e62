"""Floating addresses, in memory and in a real kernel; and what a neighbour of that host sees."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import kernel_lab as net
import pytest

from afterswarm.adapters.kernel.addresses import LinuxAddresses
from afterswarm.adapters.kernel.namespaces import inside
from afterswarm.core.dataplane import announce
from afterswarm.core.floating import OPEN
from afterswarm.ports import Addresses
from afterswarm.sim.addresses import SimAddresses

FOUR, SIX = "10.9.0.100", "fd99::100"
PLACES = [(FOUR, "eth0"), (SIX, "eth0")]
real = [pytest.mark.real, pytest.mark.skipif(not net.is_root(), reason="needs root")]


class Inside:
    """The real adapter, each call in the host's namespace."""

    def __init__(self, host: Any) -> None:
        self._host = host
        with inside(host.pid):
            self._adapter = LinuxAddresses()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with inside(self._host.pid):
                adapter = LinuxAddresses()  # its thread begins here, and stays in this namespace
                found = getattr(adapter, name)(*args, **kwargs)
                return asyncio.run(found) if asyncio.iscoroutine(found) else found

        return call


class Network:
    """A host and its neighbour."""

    def __init__(self) -> None:
        self.host, self.neighbour = net.Namespace(), net.Namespace()
        self.host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        self.host.run("ip", "link", "set", "eth1", "netns", str(self.neighbour.pid))
        for at, device, number in ((self.host, "eth0", 1), (self.neighbour, "eth1", 2)):
            at.run("ip", "address", "add", f"10.9.0.{number}/24", "dev", device)
            at.run("ip", "address", "add", f"fd99::{number}/64", "dev", device, "nodad")
            at.run("ip", "link", "set", device, "up")
        self.kernel = Inside(self.host)
        self.served = [self.serve(family) for family in (socket.AF_INET, socket.AF_INET6)]

    def serve(self, family: socket.AddressFamily) -> socket.socket:
        with inside(self.host.pid):
            return socket.create_server(("", 8080), family=family)

    def dials(self, address: str) -> bool:
        """Whether the neighbour reaches the host there, having forgotten what it knew."""
        self.neighbour.run("ip", "neigh", "flush", "dev", "eth1")
        with inside(self.neighbour.pid):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as out, suppress(OSError):
                out.settimeout(0.25)
                out.connect((address, 8080))
                return True
        return False

    def asked(self, address: str) -> str:
        """What the neighbour's kernel knows of who has the address."""
        return str(self.neighbour.run("ip", "neigh", "show", "to", address, "dev", "eth1"))

    def close(self) -> None:
        for listening in self.served:
            listening.close()
        self.host.close()
        self.neighbour.close()


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(params=["sim", pytest.param("real", marks=real)])
def kernel(request: pytest.FixtureRequest) -> Any:
    if request.param == "real":
        return request.getfixturevalue("network").kernel
    return Waiting(SimAddresses({"lo": [], "eth0": ["10.9.0.1/24"]}, time.monotonic))


class Waiting:
    """The twin, called as `Inside` is."""

    def __init__(self, kernel: Addresses) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = getattr(self._kernel, name)(*args, **kwargs)
            return asyncio.run(found) if asyncio.iscoroutine(found) else found

        return call


def there(kernel: Any) -> list[str]:
    return [text for text in kernel.interfaces()["eth0"] if text.startswith(FOUR)]


def test_an_address_comes_and_goes_alone_in_its_prefix(kernel: Any) -> None:
    assert there(kernel) == []
    for _ in range(2):
        kernel.add(FOUR, "eth0")
        assert there(kernel) == [f"{FOUR}/32"]
    for _ in range(2):
        kernel.remove(FOUR, "eth0")
        assert there(kernel) == []


def test_what_is_not_here_cannot_be_opened(kernel: Any) -> None:
    kernel.guard(PLACES, anew=True)
    with pytest.raises(OSError, match=r"."):
        kernel.open(FOUR)


def test_rules_are_written_once_unless_they_are_lost(kernel: Any) -> None:
    assert kernel.guard(PLACES, anew=True)
    assert not kernel.guard(PLACES, anew=False)


@pytest.mark.real
@pytest.mark.skipif(not net.is_root(), reason="needs root")
@pytest.mark.parametrize("address", [FOUR, SIX])
def test_the_kernel_is_silent_unless_the_daemon_has_just_said_otherwise(network: Network, address: str) -> None:
    network.kernel.guard(PLACES, anew=True)
    network.kernel.add(address, "eth0")
    assert not network.dials(address)
    assert "lladdr" not in network.asked(address)  # neither ARP nor NDP was answered
    network.kernel.open(address)
    assert network.dials(address)
    time.sleep(OPEN)  # the daemon stands still
    assert not network.dials(address)
    assert "lladdr" not in network.asked(address)
    assert network.dials("10.9.0.1")  # the host's own address is nobody's business
    network.kernel.guard([], anew=True)
    assert network.dials(address)


@pytest.mark.real
@pytest.mark.skipif(not net.is_root(), reason="needs root")
def test_lost_rules_are_written_again(network: Network) -> None:
    network.kernel.guard(PLACES, anew=True)
    network.host.run("nft", "flush", "ruleset")
    assert network.kernel.guard(PLACES, anew=False)
    assert network.host.run("nft", "list", "tables").count("afterswarm_address") == 2


@pytest.mark.real
@pytest.mark.skipif(not net.is_root(), reason="needs root")
@pytest.mark.parametrize("address", [FOUR, SIX])
def test_a_neighbour_that_knew_another_host_is_told(network: Network, address: str) -> None:
    network.neighbour.run(
        "ip", "neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "eth1", "nud", "reachable"
    )
    mac = network.host.run("ip", "-o", "link", "show", "eth0")
    for _ in range(30):  # a link that has just come up loses multicast for a moment
        network.kernel.announce(address, "eth0")
        time.sleep(0.05)
        if "02:00:00:00:00:99" not in network.asked(address):
            break
    assert network.asked(address).split("lladdr ")[1].split()[0] in mac


def test_announcements_are_as_the_rfcs_have_them() -> None:
    mac = bytes.fromhex("020000000001")
    request, answer = announce.frames(FOUR, mac)
    assert (len(request), request[:14]) == (42, b"\xff" * 6 + mac + b"\x08\x06")
    assert [struct.unpack_from("!H", frame, 20)[0] for frame in (request, answer)] == [1, 2]
    assert request[28:32] == request[38:42] == socket.inet_aton(FOUR)
    [told] = announce.frames(SIX, mac)
    assert told[:14] == bytes.fromhex("333300000001") + mac + b"\x86\xdd"
    assert (told[21], told[54], told[58]) == (255, 136, 0x20)  # hop limit, type, override
    assert told[62:78] == socket.inet_pton(socket.AF_INET6, SIX)
