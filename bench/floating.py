"""How long a floating address is away: after a power cut of the host that has it, and when that host is cut off.

    python bench/floating.py [--rounds 10] [--json build/bench/floating.json]

Five hosts, network namespaces, each a manager with what floating addresses take (bench/load/floating_host.py): real
beats, votes and kernels; no engine, and the store in memory, which holds nobody up. A client on the same wire dials a
closed port of the address every 10 ms: that the host refuses is an answer. Seconds are from the cut to the first
answer of another host. Of a host that was cut off, besides: how long before the other one took the address its kernel
stopped answering a client on its own side.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ADDRESS, HOSTS, PORT = "10.78.0.100", 5, 9
EVERY, WITHIN = 0.01, 0.03
REST = 7.0  # seconds of quiet before each cut: a manager that was away votes after 5


def ip(*argv: str, netns: str = "") -> None:
    subprocess.run(["ip", *(["-n", netns] if netns else []), *argv], check=True)


class Place:
    """One host, behind a bridge of its own, where a client of its own is; the bridges are joined by a wire."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number, self.name = number, f"asw-fl-{number}"
        self.directory = directory / self.name
        self.directory.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        ip("netns", "add", self.name)
        ip("netns", "add", f"{self.name}c")

    def wire(self) -> None:
        ip(
            "link",
            "add",
            "up0",
            "netns",
            f"{self.name}c",
            "type",
            "veth",
            "peer",
            "name",
            f"p{self.number}",
            "netns",
            "asw-fl",
        )
        ip("link", "add", "eth0", "netns", self.name, "type", "veth", "peer", "name", "h0", "netns", f"{self.name}c")
        ip("link", "add", "br0", "type", "bridge", netns=f"{self.name}c")
        for port in ("up0", "h0"):
            ip("link", "set", port, "master", "br0", "up", netns=f"{self.name}c")
        ip("address", "add", f"10.78.0.{200 + self.number}/24", "dev", "br0", netns=f"{self.name}c")
        ip("link", "set", "br0", "up", netns=f"{self.name}c")
        ip("link", "set", f"p{self.number}", "master", "wire", "up", netns="asw-fl")
        ip("address", "add", f"10.78.0.{self.number}/24", "dev", "eth0", netns=self.name)
        for device in ("lo", "eth0"):
            ip("link", "set", device, "up", netns=self.name)

    def start(self) -> None:
        script = Path(__file__).parent / "load" / "floating_host.py"
        argv = [sys.executable, str(script), str(self.number), str(HOSTS), str(self.directory), f"{ADDRESS}/24"]
        with (self.directory / "log").open("ab") as log:
            command = ["nsenter", f"--net=/run/netns/{self.name}", *argv]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def link(self, how: str) -> None:
        ip("link", "set", f"p{self.number}", how, netns="asw-fl")

    def has(self) -> bool:
        shown = ["ip", "-n", self.name, "-4", "-o", "address", "show", "dev", "eth0"]
        return f" {ADDRESS}/" in subprocess.run(shown, capture_output=True, text=True, check=True).stdout

    def close(self) -> None:
        self.stop()
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.directory / "beat.pid").read_text()), signal.SIGTERM)
        for name in (self.name, f"{self.name}c"):
            subprocess.run(["ip", "netns", "del", name], check=False)


class Client(threading.Thread):
    """Dials, from a namespace if one is named, until told to end; `answered`: the moments at which it was answered."""

    def __init__(self, netns: str = "", address: str = ADDRESS) -> None:
        super().__init__(daemon=True)
        self.netns, self.address, self.answered, self.over = netns, address, list[float](), threading.Event()
        self.start()

    def run(self) -> None:
        if self.netns:
            fd = os.open(f"/run/netns/{self.netns}", os.O_RDONLY)
            ctypes.CDLL(None).setns(fd, 0x40000000)
        while not self.over.is_set():
            begun = time.monotonic()
            with socket.socket() as out:
                out.settimeout(WITHIN)
                try:
                    out.connect((self.address, PORT))
                except ConnectionRefusedError:
                    self.answered.append(begun)
                except OSError:
                    pass
            time.sleep(max(0.0, begun + EVERY - time.monotonic()))

    def end(self) -> list[float]:
        self.over.set()
        self.join()
        return self.answered


def round_of(places: list[Place], how: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while sum(place.has() for place in places) != 1:
        if time.monotonic() > deadline:
            raise SystemExit("not one host has the address")
        time.sleep(0.1)
    time.sleep(REST)
    [victim] = [place for place in places if place.has()]
    outside, beside = Client("asw-fl"), Client(f"{victim.name}c")
    time.sleep(0.3)
    cut = time.monotonic()
    victim.link("down")
    gone = time.monotonic()
    if how == "power":
        victim.stop()
    time.sleep(2.5)
    after = [moment for moment in outside.end() if moment > gone]
    row: dict[str, Any] = {"how": how, "away": round(after[0] - cut, 3) if after else None}
    own = [moment for moment in beside.end() if moment > cut]
    if how == "partition" and own and after:
        row["between"] = round(after[0] - own[-1], 3)
    victim.link("up")
    if how == "power":
        victim.start()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="how long a floating address is away")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, places = [], list[Place]()
    with tempfile.TemporaryDirectory() as directory:
        ip("netns", "add", "asw-fl")
        try:
            ip("link", "add", "wire", "type", "bridge", netns="asw-fl")
            ip("address", "add", "10.78.0.254/24", "dev", "wire", netns="asw-fl")
            ip("link", "set", "wire", "up", netns="asw-fl")
            for number in range(1, HOSTS + 1):
                places.append(Place(number, Path(directory)))
                places[-1].wire()
                places[-1].start()
            for how in ("power", "partition"):
                for _ in range(args.rounds):
                    rows.append(round_of(places, how))
                    print(rows[-1], flush=True)
        finally:
            for place in places:
                place.close()
            ip("netns", "del", "asw-fl")
    for how in ("power", "partition"):
        seconds = [row["away"] for row in rows if row["how"] == how]
        print(f"{how}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, {len(seconds)} cuts")
    between = [row["between"] for row in rows if "between" in row]
    print(f"cut off: silent {min(between):.2f} to {max(between):.2f} s before another host answered")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
