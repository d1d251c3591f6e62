"""`afterswarm doctor` on hosts that are well, and on one whose firewall is shut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hosts import Host, until

from afterswarm.lab.power import inside

DOCTOR = [str(Path(sys.executable).with_name("afterswarm")), "doctor"]
SHUT = """
table inet shut {
  chain input { type filter hook input priority -200; policy accept;
    udp dport { 4789, 7947 } drop
    tcp dport 2380 drop
  }
  chain output { type filter hook output priority -200; policy accept;
    udp dport { 4789, 7947 } drop
  }
}
"""


def doctor(host: Host, *flags: str) -> tuple[int, list[str]]:
    argv = inside(host.place, [*DOCTOR, *flags])
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines()


def failures(lines: list[str]) -> str:
    return "\n".join(line for line in lines if line.startswith("FAIL"))


def test_two_hosts_before_they_are_a_swarm(hosts: list[Host]):
    code, lines = doctor(hosts[0], "--peer", hosts[1].address)
    assert (code, failures(lines)) == (0, ""), lines


def test_a_shut_firewall_is_named_port_by_port(swarm: list[Host]):
    first, second, _ = swarm
    code, lines = doctor(first, "--peer", second.address)
    assert (code, failures(lines)) == (0, ""), lines
    load = subprocess.run(inside(second.place, ["nft", "-f", "-"]), input=SHUT, text=True, check=True)
    assert load.returncode == 0
    try:

        def shut() -> bool:
            code, lines = doctor(first, "--peer", second.address)
            return code == 1 and all(f"port {port}" in failures(lines) for port in ("2380/tcp", "7947/udp", "4789/udp"))

        until("three ports are named", shut, within=30)
    finally:
        second.run("nft", "delete", "table", "inet", "shut")
    until("all is well again", lambda: doctor(first, "--peer", second.address)[0] == 0, within=30)
