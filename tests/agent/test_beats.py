"""Beats: which ones count, and the process that sends them."""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from afterswarm.agent.beats import sender
from afterswarm.agent.beats.beats import FRESH, Beats
from afterswarm.model.session import Peer, Wanted
from afterswarm.sim.clock import LoopClock

KEY = b"k" * 32
KEYS = {"n1": KEY, "n2": KEY, "n3": b"x" * 32}
NOW = 1_700_000_000.0
PEERS = [Peer(node_id="n1", address="127.0.0.1"), Peer(node_id="n2", address="127.0.0.2")]


class StillClock(LoopClock):
    """A clock that stands until it is set."""

    time = NOW

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def beats(clock: StillClock, tmp_path: Path) -> Iterator[Beats]:
    made = Beats(node_id="n1", clock=clock, run_dir=tmp_path)
    made.want(Wanted(peers=PEERS, beat_keys=KEYS))
    yield made
    made.clear()


def beat(ms: float = 0, *, node: str = "n2", boot: str = "b1", routed: int = 7, key: bytes = KEY) -> bytes:
    text = sender.words(node, boot, int(NOW * 1000 + ms), routed)
    return text + sender.Mac(key).of(text)


def test_a_peer_is_heard_when_it_speaks(beats: Beats, clock: StillClock) -> None:
    assert beats.heard == {}
    beats.received(beat())
    assert beats.heard == {"n2": NOW}
    clock.time += 0.1
    beats.received(beat(100))
    assert beats.heard == {"n2": NOW + 0.1}


def test_a_beat_tells_what_its_host_routes_by(beats: Beats) -> None:
    beats.received(beat(routed=41))
    assert beats.routed == {"n2": 41}
    beats.received(beat(100, routed=0))
    assert beats.routed == {"n2": 0}, "it began anew"
    beats.want(Wanted(peers=[]))
    assert beats.routed == {}


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"nonsense",
        beat()[:-1],
        b"ASW2" + beat()[4:],
        beat(key=b"other"),
        beat(node="n3"),
        beat().replace(b"n2", b"n9"),
        sender.MAGIC + b" n2 b1 soon 7" + sender.Mac(b"other").of(b"x"),
    ],
)
def test_noise_is_not_heard(beats: Beats, datagram: bytes) -> None:
    beats.received(datagram)
    assert beats.heard == {}


def test_a_replay_is_not_heard(beats: Beats, clock: StillClock) -> None:
    beats.received(beat(0))
    beats.received(beat(100))
    clock.time += 5
    beats.received(beat(100))
    beats.received(beat(0))
    assert beats.heard == {"n2": NOW}


def test_a_sender_that_starts_anew_with_its_clock_set_back_is_heard(beats: Beats, clock: StillClock) -> None:
    beats.received(beat(3_600_000))  # it was an hour ahead
    clock.time += 5
    beats.received(beat(5000, boot="b2"))
    assert beats.heard == {"n2": NOW + 5}


def test_a_beat_of_an_old_boot_is_not_heard_later(beats: Beats, clock: StillClock) -> None:
    beats.received(beat(0, boot="b1"))
    beats.received(beat(1000, boot="b2"))
    clock.time += FRESH + 10
    beats.received(beat(500, boot="b1"))
    assert beats.heard == {"n2": NOW}


def test_who_is_no_peer_any_more_is_forgotten(beats: Beats) -> None:
    beats.received(beat())
    beats.want(Wanted(peers=PEERS[:1]))
    assert beats.heard == {}
    beats.received(beat(100))
    assert beats.heard == {}


def test_a_host_speaks_for_itself_only(beats: Beats) -> None:
    beats.want(Wanted(peers=[*PEERS, Peer(node_id="n3", address="127.0.0.3")]))
    beats.received(beat(node="n2", key=KEYS["n3"]))  # n3 knows its own key with us, and no other
    assert beats.heard == {}
    beats.received(beat(node="n3", key=KEYS["n3"]))
    assert set(beats.heard) == {"n3"}


def test_a_host_does_not_hear_itself(beats: Beats) -> None:
    beats.received(beat(node="n1"))
    assert beats.heard == {}


def test_without_a_key_nobody_is_heard(clock: StillClock, tmp_path: Path) -> None:
    deaf = Beats(node_id="n1", clock=clock, run_dir=tmp_path)
    deaf.want(Wanted(peers=PEERS))
    deaf.received(beat(key=b""))
    assert deaf.heard == {}


def test_the_seal_is_the_one_of_the_standard() -> None:
    """RFC 4231, test cases 2 and 6 (a key longer than a block)."""
    short = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sender.Mac(b"Jefe").of(b"what do ya want for nothing?").hex() == short
    long = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    assert sender.Mac(b"\xaa" * 131).of(b"Test Using Larger Than Block-Size Key - Hash Key First").hex() == long


def test_the_settings_of_the_sender_are_private(beats: Beats, tmp_path: Path) -> None:
    assert (tmp_path / "beat").stat().st_mode & 0o077 == 0
    assert (tmp_path / "beat").read_text().splitlines() == [
        "node n1",
        "port 7947",
        "routed 0",
        "from 127.0.0.1",
        f"peer 127.0.0.2 {KEY.hex()}",
    ]
    assert beats.heard == {}


# ---- the real process --------------------------------------------------------------------------------------------


class WallClock(LoopClock):
    def now(self) -> float:
        return time.time()


@asynccontextmanager
async def running(*all_beats: Beats) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(beats.run()) for beats in all_beats]
        yield
        for task in tasks:
            task.cancel()


async def until(what: Callable[[], object], within: float = 10) -> None:
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - another process says nothing
            await asyncio.sleep(0.02)


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pid_of(directory: Path) -> int:
    try:
        return int((directory / "beat.pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


async def test_a_beat_travels_from_sender_to_listener(tmp_path: Path, port: int) -> None:
    """The sender speaks for n1; the same port listens for n2, whose packets we take to be n1's by its name."""
    speaker = Beats(node_id="n2", clock=WallClock(), run_dir=tmp_path / "n2", port=port)
    listener = Beats(node_id="n1", clock=WallClock(), run_dir=tmp_path / "n1", port=port)
    speaker._listen = _deaf  # type: ignore[method-assign] # both are on one machine here
    for each in (speaker, listener):
        each.want(Wanted(peers=PEERS, beat_keys=KEYS))
    speaker.acknowledge(12)
    try:
        async with running(speaker, listener):
            await until(lambda: "n2" in listener.heard)
            assert listener.routed["n2"] == 12
            speaker.acknowledge(13)
            await until(lambda: listener.routed["n2"] == 13)
            first = listener.heard["n2"]
            await until(lambda: listener.heard["n2"] > first + 0.3)
    finally:
        speaker.clear()
        listener.clear()


async def _deaf() -> None:
    return None


async def test_the_sender_outlives_the_daemon_and_is_adopted(tmp_path: Path, port: int) -> None:
    first = Beats(node_id="n1", clock=WallClock(), run_dir=tmp_path, port=port)
    first.want(Wanted(peers=PEERS, beat_keys=KEYS))
    async with running(first):
        await until(lambda: pid_of(tmp_path))
    pid = pid_of(tmp_path)
    assert os.getsid(pid) == pid, "a session of its own"
    second = Beats(node_id="n1", clock=WallClock(), run_dir=tmp_path, port=port)
    second.want(Wanted(peers=PEERS, beat_keys=KEYS))
    try:
        async with running(second):
            await asyncio.sleep(0.5)
            assert pid_of(tmp_path) == pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: pid_of(tmp_path) not in (0, pid))
    finally:
        second.clear()
    assert pid_of(tmp_path) == 0


async def test_a_sender_of_another_version_is_replaced(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats(node_id="n1", clock=WallClock(), run_dir=tmp_path, port=port)
    beats.want(Wanted(peers=PEERS, beat_keys=KEYS))
    try:
        async with running(beats):
            await until(lambda: pid_of(tmp_path))
        old = pid_of(tmp_path)
        new = tmp_path / "sender.py"
        new.write_text(Path(sender.__file__).read_text() + "# newer\n")
        monkeypatch.setattr(sender, "__file__", str(new))
        async with running(beats):
            await until(lambda: pid_of(tmp_path) not in (0, old))
        with pytest.raises(ProcessLookupError):
            os.kill(old, 0)
    finally:
        beats.clear()


def speaker(directory: Path, text: str) -> subprocess.Popen[bytes]:
    (directory / "beat").write_text(text)
    process = subprocess.Popen([sys.executable, "-I", "-S", sender.__file__, str(directory / "beat")])
    (directory / "beat.pid").write_text(str(process.pid))
    return process


def test_ten_a_second_to_everybody_and_new_settings_at_once(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        two.bind(("127.0.0.2", port))
        one.settimeout(5)
        two.settimeout(5)
        head = f"node n1\nport {port}\n"
        process = speaker(tmp_path, f"{head}peer 127.0.0.1 {KEY.hex()}\n")
        try:
            first = one.recv(200)
            started = time.monotonic()
            rest = [one.recv(200) for _ in range(10)]
            assert 0.5 < time.monotonic() - started < 4, "ten take a second, or a busy machine's few"
            stamps = [int(d[:-32].split()[3]) for d in (first, *rest)]
            assert stamps == sorted(set(stamps)), "they only grow"
            (tmp_path / "beat").write_text(f"{head}peer 127.0.0.2 {'6f' * 32}\n")
            said = two.recv(200)
            assert said.startswith(b"ASW1 n1 ")
            assert said[-32:] == hmac.digest(b"o" * 32, said[:-32], "sha256"), "each peer has a key of its own"
            resident = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
            assert int(resident) < 10_000  # kB
        finally:
            process.kill()
            process.wait()


def test_a_sender_whose_place_was_taken_ends(tmp_path: Path) -> None:
    process = speaker(tmp_path, "node n1\nport 9\n")
    (tmp_path / "beat.pid").write_text("1")
    assert process.wait(5) == 0


def test_a_sender_without_a_daemon_ends(tmp_path: Path) -> None:
    script = tmp_path / "impatient.py"
    script.write_text(Path(sender.__file__).read_text().replace("DAEMON_GONE = 10.0", "DAEMON_GONE = 1.5"))
    (tmp_path / "beat").write_text("node n1\nport 9\n")
    process = subprocess.Popen([sys.executable, "-I", "-S", str(script), str(tmp_path / "beat")])
    (tmp_path / "beat.pid").write_text(str(process.pid))
    for _ in range(5):  # touched in time it goes on
        (tmp_path / "beat.alive").touch()
        time.sleep(0.5)
    assert process.poll() is None
    assert process.wait(6) == 0


def test_it_speaks_from_the_address_that_peers_know_if_that_is_its_own(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        text = f"node n1\nport {ear.getsockname()[1]}\npeer 127.0.0.1 {KEY.hex()}\n"
        process = speaker(tmp_path, f"{text}from 127.0.0.5\n")
        try:
            assert ear.recvfrom(200)[1][0] == "127.0.0.5"
            (tmp_path / "beat").write_text(f"{text}from 192.0.2.9\n")
            heard = {ear.recvfrom(200)[1][0] for _ in range(5)}
            assert "127.0.0.1" in heard, "not its own: as the kernel chooses"
        finally:
            process.kill()
            process.wait()
