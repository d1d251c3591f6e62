"""Docker's multiplexed log stream: frames of 8 bytes of header and one line each, details in front of the line.

`docker service logs` finds out from the details which task a line is from (moby's write_log_stream.go; docker/cli's
cli/command/service/logs.go).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from urllib.parse import quote_plus

ERRORS = 2
SYSTEM_ERROR = 3  # a frame of this kind ends the stream with an error


def frame(kind: int, line: bytes) -> bytes:
    return bytes((kind, 0, 0, 0)) + len(line).to_bytes(4) + line


async def frames(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """The frames of a multiplexed stream; one that is cut off is dropped."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        at = 0
        while len(rest) - at >= 8:
            end = at + 8 + int.from_bytes(rest[at + 4 : at + 8])
            if len(rest) < end:
                break
            yield rest[at], bytes(rest[at + 8 : end])
            at = end
        del rest[:at]


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a terminal's stream, which has no frames; all of them count as output."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield 1, line + b"\n"
    if rest:
        yield 1, rest


def details(words: Mapping[str, str]) -> bytes:
    return ",".join(f"{quote_plus(key)}={quote_plus(words[key])}" for key in sorted(words)).encode()


def explained(line: bytes, words: bytes, *, timestamps: bool) -> bytes:
    """A line that has its container's own details in front, with `words` added to them. The time stays first."""
    stamp, line = line.split(b" ", 1) if timestamps and b" " in line else (b"", line)
    own, _, message = line.partition(b" ")
    parts = ([stamp] if stamp else []) + [b",".join(filter(None, (own, words))), message]
    return b" ".join(parts)
