"""A process of its own that tells every peer ten times a second that this host is there.

Apart from the daemon, so that a daemon that is busy or being restarted does not look like a dead host; a script on the
bare interpreter, so that it is small (9 MB) and starts at once. Run as `python -I -S beat_sender.py FILE DIGEST` by
`agent.beats`; DIGEST is not read, it names the version in the list of processes.

FILE has lines `node ID`, `port N`, `routed REVISION`, `peer ADDRESS KEY`, perhaps `from ADDRESS`, and is read again
when it changes. It ends by itself when FILE.alive has not been touched for a while (the daemon is gone, and this host
with it as far as the swarm can know), or when FILE.pid names another process.

One datagram: `ASW1 <node id> <boot> <milliseconds> <revision>` and the HMAC-SHA256 of that. The milliseconds only ever
grow within one boot (one run of this script): follow the clock, but never back. The revision is the one that the host's
kernel routes by.
"""

from __future__ import annotations

import _socket  # `socket` itself is 1 MB
import os
import sys
import time

try:  # without OpenSSL, which hashlib would load: 4 MB
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12 and later
    except ImportError:
        from hashlib import sha256

MAGIC = b"ASW1"
EVERY = 0.1  # seconds
DAEMON_GONE = 10.0  # seconds
_BLOCK = 64


def words(node_id: str, boot: str, milliseconds: int, routed: int) -> bytes:
    """What a datagram says."""
    return b" ".join((MAGIC, node_id.encode(), boot.encode(), str(milliseconds).encode(), str(routed).encode()))


class Mac:
    """HMAC-SHA256 (RFC 2104) with one key, of which the half that is the same each time is kept."""

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK:
            key = sha256(key).digest()
        key = key.ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(b ^ 0x36 for b in key))
        self._outer = sha256(bytes(b ^ 0x5C for b in key))

    def of(self, text: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return bytes(outer.digest())


class Settings:
    """What FILE says."""

    def __init__(self, text: str) -> None:
        self.node = ""
        self.port = 0
        self.routed = 0
        self.source = ""
        self.peers: list[tuple[str, Mac]] = []
        for line in text.splitlines():
            word, _, value = line.partition(" ")
            if word == "node":
                self.node = value
            elif word == "port":
                self.port = int(value)
            elif word == "routed":
                self.routed = int(value)
            elif word == "from":
                self.source = value
            elif word == "peer":
                address, _, key = value.partition(" ")
                self.peers.append((address, Mac(bytes.fromhex(key))))


def main(path: str) -> None:
    try:  # noqa: SIM105 - contextlib is 1 MB
        os.nice(-10)
    except OSError:
        pass  # fine without
    boot = os.urandom(8).hex()
    out, source = opened("")
    settings, read_at, sent = Settings(""), 0, 0
    alive_at, alive_seen = 0, time.monotonic()
    count = 0
    while True:
        changed = modified(path)
        if changed != read_at:
            try:
                with open(path) as file:  # noqa: PTH123 - pathlib is 1 MB
                    settings, read_at = Settings(file.read()), changed
            except (OSError, ValueError):
                pass  # being replaced: the old settings hold until it can be read
            if settings.source != source:
                out, source = opened(settings.source)
        if settings.peers:
            sent = max(sent + 1, int(time.time() * 1000))  # noqa: TID251 - there is no Clock in this process
            text = words(settings.node, boot, sent, settings.routed)
            for peer, key in settings.peers:
                try:  # noqa: SIM105
                    out.sendto(text + key.of(text), (peer, settings.port))
                except OSError:
                    pass  # unreachable now; the next beat is soon
        count += 1
        if count % 10 == 0:
            touched = modified(path + ".alive")
            if touched != alive_at:
                alive_at, alive_seen = touched, time.monotonic()
            if time.monotonic() - alive_seen > DAEMON_GONE or not ours(path + ".pid"):
                return
        # At whole tenths of a second, as all hosts whose clocks agree: a peer then wakes once for all of us.
        time.sleep(EVERY - time.time() % EVERY)  # noqa: TID251


def opened(source: str) -> tuple[_socket.socket, str]:
    """A socket that speaks from this address, by which peers' kernels know us; "" with it: the address is not ours."""
    out = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    out.settimeout(0)
    try:
        out.bind((source, 0))
    except OSError:
        return out, ""
    return out, source


def modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def ours(path: str) -> bool:
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().strip() == str(os.getpid())
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1])
