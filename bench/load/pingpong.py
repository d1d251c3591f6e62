"""Both ends of what `network.py` measures, the same loops for every path.

`pingpong.py serve ADDRESS PORT` answers one connection after another. The first byte says how: `e` sends back what it
gets, 64 bytes at a time; `b` sends as much as is taken.

`pingpong.py ask` reads lines of JSON, `[what, address, port, amount]`, and answers each with one:

    latency   so many questions on one connection: nanoseconds of each
    connect   so many seconds of connections, one after another, of one question each: how many
    bulk      so many seconds of taking: bytes
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
from time import perf_counter_ns

SIZE = 64
BULK = 1 << 20
RESET = struct.pack("ii", 1, 0)  # closing leaves nothing behind, so ports do not run out
QUESTION = b"e" + bytes(SIZE - 1)


def serve(address: str, port: int) -> None:
    with socket.create_server((address, port), backlog=64) as listener:
        print("listening", flush=True)
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client, contextlib.suppress(OSError):
                first = client.recv(SIZE)
                if first[:1] == b"b":
                    load = bytes(BULK)
                    while True:
                        client.sendall(load)
                while first:
                    client.sendall(first)
                    first = client.recv(SIZE)


def connected(address: str, port: int) -> socket.socket:
    made = socket.create_connection((address, port), timeout=5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    made.settimeout(None)
    return made


def latency(address: str, port: int, amount: float) -> list[int]:
    found = []
    with connected(address, port) as peer:
        send, recv, now = peer.send, peer.recv, perf_counter_ns
        for _ in range(int(amount)):
            began = now()
            send(QUESTION)
            recv(SIZE)
            found.append(now() - began)
    return found


def connect(address: str, port: int, amount: float) -> float:
    began, count = perf_counter_ns(), 0
    while perf_counter_ns() - began < amount * 1e9:
        with connected(address, port) as peer:
            peer.send(QUESTION)
            peer.recv(SIZE)
        count += 1
    return count / (perf_counter_ns() - began) * 1e9


def bulk(address: str, port: int, amount: float) -> float:
    space = bytearray(BULK)
    with connected(address, port) as peer:
        peer.send(b"b")
        peer.recv_into(space)
        began, count = perf_counter_ns(), 0
        while perf_counter_ns() - began < amount * 1e9:
            count += peer.recv_into(space)
        return count / (perf_counter_ns() - began) * 1e9


def ask() -> None:
    kinds = {"latency": latency, "connect": connect, "bulk": bulk}
    for line in sys.stdin:
        what, *words = json.loads(line)
        print(json.dumps(kinds[what](*words)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        ask()
