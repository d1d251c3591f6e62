"""What `afterswarm doctor` looks at: small questions to the kernel, the engine, the daemon and another host."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

from afterswarm.adapters.kernel import wireguard
from afterswarm.model.enrolment import PORT, TIME

TIMEOUT = 2.0  # seconds for an answer of another host
OPEN, NOBODY, SILENT = "open", "nobody listens", "silent"

_RULES = """
table inet asw_probe {
  map m { type inet_proto . inet_service : verdict; }
  chain pre { type nat hook prerouting priority -110; policy accept;
    fib daddr type local tcp dport 1 dnat ip to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }
    ct state new meta l4proto . th dport vmap @m
  }
}"""

KERNEL: dict[str, list[str]] = {  # feature -> a command that needs it, run in a namespace of its own
    "network namespaces": ["true"],
    "bridges": ["ip", "link", "add", "asw-probe", "type", "bridge"],
    "veth pairs": ["ip", "link", "add", "asw-probe", "type", "veth"],
    "VXLAN": ["ip", "link", "add", "asw-probe", "type", "vxlan", "id", "1", "dstport", "4789"],
    "nftables with NAT, maps and fib": ["nft", "-f", "-"],
    "connection tracking": ["conntrack", "-L"],
}
PROGRAMS = {
    "nft": "nftables",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "etcd": "etcd-server",
}


REMEMBERED = "net.netfilter.nf_conntrack_tcp_timeout_established"


def kernel_lacks(feature: str) -> str:
    """ "" when the kernel has the feature, else what it said."""
    argv = ["unshare", "--net", *KERNEL[feature]]
    done = subprocess.run(argv, input=_RULES, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it was refused"])[0]


def encryption_lacks() -> str:
    """ "" when this host can be in encrypted networks, else what is missing."""
    try:
        wireguard.key_pair("")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def missing_programs() -> list[str]:
    """Debian packages of the programs that are not here."""
    return sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})


def remembered() -> int | None:
    """Seconds after which the kernel forgets an idle connection; `None` when it tracks none yet."""
    try:
        return int(Path("/proc/sys", *REMEMBERED.split(".")).read_text())
    except OSError:
        return None


class _Socket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


def get(path: str, target: str) -> Any:
    """`GET target` over a unix socket, decoded. Raises `OSError`."""
    connection = _Socket(path)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"{target}: {answer.status} {body.decode(errors='replace')[:200]}")
        return json.loads(body)
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def tcp(address: str, port: int) -> str:
    """`OPEN`, `NOBODY` (the host refused: no firewall in between) or `SILENT`."""
    try:
        socket.create_connection((address, port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return NOBODY
    except OSError:
        return SILENT
    return OPEN


def udp(address: str, port: int) -> str:
    """`NOBODY` (the host said so: no firewall in between) or `SILENT` (somebody who does not answer, or a firewall)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT / 4)
        try:
            sock.connect((address, port))
            for _ in range(4):
                sock.send(b"\0")
                try:
                    sock.recv(1)
                except TimeoutError:
                    continue
        except OSError as error:
            return NOBODY if error.errno == errno.ECONNREFUSED else SILENT
    return SILENT


def bound_by_others(port: int, kind: socket.SocketKind) -> bool:
    """Whether something on this host already has the port."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            return True
    return False


def clock_offset(address: str, port: int = PORT) -> float | None:
    """Seconds by which the other host's clock is ahead of ours; `None` when its daemon does not say.

    The connection is not verified: nothing secret is said, and nothing is believed but the time.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, port, timeout=TIMEOUT, context=context)
    try:
        connection.connect()
        sent = time.time()
        connection.request("GET", "/ca")
        answer = connection.getresponse()
        theirs = answer.headers.get(TIME)
        return float(theirs) - (sent + time.time()) / 2 if theirs else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def is_root() -> bool:
    return os.geteuid() == 0
