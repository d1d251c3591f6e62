"""Working inside a container's network namespace, from a thread of ours."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def namespace_of(pid: int | None) -> tuple[int, int]:
    """Names the network namespace of a process (`None`: of this thread). Raises `ProcessLookupError`."""
    try:
        found = Path(f"/proc/{pid or 'thread-self'}/ns/net").stat()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return found.st_dev, found.st_ino


def started_at(pid: int) -> str:
    """When the process started, in the kernel's ticks: with the pid it names one process for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None


@contextmanager
def inside(pid: int | None) -> Iterator[None]:
    """This thread is in the network namespace of `pid` until the end of the block (`None`: stays where it is).

    Raises `ProcessLookupError` when there is no such process. Not for the event loop's thread.
    """
    if pid is None:
        yield
        return
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            other = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ProcessLookupError(pid) from None
        try:
            _setns(other)
        finally:
            os.close(other)
        try:
            yield
        finally:
            _setns(own)
    finally:
        os.close(own)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"cannot enter the network namespace: {os.strerror(error)}")
