"""The WireGuard device: the kernel's where it has one, else that of `wireguard-go`, a process with a TUN device.

The process is nobody's child: it goes on while the daemon is restarted, and is found again by its device and its
socket. Device and process end together, whichever is ended. Both kinds are set up through `wg` (wireguard-tools).
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from afterswarm.adapters.kernel.namespaces import namespace_of
from afterswarm.adapters.programs import run
from afterswarm.core.dataplane.wireguard import DEVICE, End, Tunnel
from afterswarm.model.repair import ENCRYPTION, Difference

PROGRAM = "wireguard-go"
TUN = Path("/dev/net/tun")
SOCKET = Path("/var/run/wireguard") / f"{DEVICE}.sock"  # where `wg` looks for it
ENDING = 2.0  # seconds that a killed process may take


def key_pair(private: str) -> tuple[str, str]:
    """This private key or a fresh one, and its public half. Raises `OSError` with what this host lacks to encrypt."""
    if not shutil.which("wg"):
        raise OSError(errno.ENOENT, "the program wg is missing, install wireguard-tools")
    if not Path("/proc/sys/net/ipv6").exists():
        raise OSError(errno.EAFNOSUPPORT, "IPv6 is switched off in this kernel (ipv6.disable=1)")
    if not (shutil.which(PROGRAM) and TUN.exists()) and not _in_kernel():
        raise OSError(
            errno.EOPNOTSUPP, f"the kernel has no WireGuard, and there is no {PROGRAM} (or no {TUN}): install {PROGRAM}"
        )
    private = private or run("wg", "genkey").strip()
    return private, run("wg", "pubkey", stdin=private + "\n").strip()


def sync(wanted: Tunnel | None, private: str) -> list[Difference]:
    """Make the device this one; what was not as it is to be."""
    found: list[str] = []
    if wanted is None:
        if _link():
            run("ip", "link", "del", DEVICE)
            _end_processes()
            found.append("was there")
    else:
        if not _link() or not _answers():
            _make()
            found.append("was gone, or did not answer")
        found += _configure(wanted, private)
        found += _address(wanted)
    return [Difference(ENCRYPTION, f"{DEVICE} {what}") for what in found[:1]]  # the rest follows from the first


def _in_kernel() -> bool:
    """Whether it has such devices; asked where nobody sees the answer."""
    argv = ["unshare", "--net", "ip", "link", "add", DEVICE, "type", "wireguard"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _make() -> None:
    _end_processes()
    if _link():
        run("ip", "link", "del", DEVICE)
    try:
        run("ip", "link", "add", DEVICE, "type", "wireguard")
    except OSError as refused:
        if not shutil.which(PROGRAM):
            raise OSError(errno.EOPNOTSUPP, f"the kernel has no WireGuard ({refused}): install {PROGRAM}") from refused
        argv = [PROGRAM, DEVICE]  # goes into the background by itself, once its socket is there
        quiet = {"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": "silent"}
        done = subprocess.run(argv, capture_output=True, text=True, env=quiet, start_new_session=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(errno.EIO, f"{PROGRAM} does not start: {said}") from refused


def _answers() -> bool:
    try:
        run("wg", "show", DEVICE, "public-key")
    except OSError:
        return False
    return True


def _end_processes() -> None:
    """Those that have lost their device, or do not answer: they would still have the port."""
    for pid in _processes():
        with suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], ENDING)
            finally:
                os.close(process)
    SOCKET.unlink(missing_ok=True)


def _processes() -> list[int]:
    """By name: the socket names the process that started it, which has gone."""
    found = []
    here = namespace_of(None)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = (process / "cmdline").read_bytes().split(b"\0")[:2]
            if [Path(words[0].decode()).name, *words[1:]] == [PROGRAM, DEVICE.encode()]:
                pid = int(process.name)
                found += [pid] if namespace_of(pid) == here else []
    return found


def _configure(wanted: Tunnel, private: str) -> list[str]:
    first, *ends = [line.split("\t") for line in run("wg", "show", DEVICE, "dump").splitlines()]
    if (first[0], first[2]) != (private, str(wanted.port)):
        interface = f"[Interface]\nPrivateKey = {private}\nListenPort = {wanted.port}\n"
        run("wg", "setconf", DEVICE, "/dev/stdin", stdin=interface)
        ends = []
    there = {end[0]: (end[3], end[2]) for end in ends}
    goal = {end.key: (f"{end.address}/128", _endpoint(end, wanted.port)) for end in wanted.ends}
    changes: list[str] = []
    for key in sorted(there.keys() - goal.keys()):
        changes += ["peer", key, "remove"]
    for key, (allowed, endpoint) in sorted(goal.items()):
        if there.get(key) != (allowed, endpoint):
            changes += ["peer", key, "endpoint", endpoint, "allowed-ips", allowed]
    if changes:
        run("wg", "set", DEVICE, *changes)
    known = {key: allowed for key, (allowed, _) in there.items()}  # a peer's endpoint moves by itself
    return [] if known == {key: allowed for key, (allowed, _) in goal.items()} else ["had other peers or keys"]


def _endpoint(end: End, port: int) -> str:
    return f"[{end.host}]:{port}" if ":" in end.host else f"{end.host}:{port}"


def _address(wanted: Tunnel) -> list[str]:
    link = _link()
    there = {a.get("local") for a in link.get("addr_info", ())}
    if link.get("mtu") == wanted.mtu and "UP" in link.get("flags", ()) and wanted.address in there:
        return []
    Path(f"/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6").write_text("0")  # hosts have it off by default at times
    changes = [
        f"link set dev {DEVICE} addrgenmode none mtu {wanted.mtu}",
        f"address replace {wanted.address}/64 dev {DEVICE} nodad",
        f"link set dev {DEVICE} up",
    ]
    run("ip", "-batch", "-", stdin="\n".join(changes) + "\n")
    return ["had other settings"]


def _link() -> dict[str, Any]:
    """The device as it is; empty when there is none."""
    found = json.loads(run("ip", "-j", "address", "show") or "[]")
    return next((link for link in found if link.get("ifname") == DEVICE), {})
