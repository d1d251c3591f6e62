"""nftables rulesets through libnftables (Debian: libnftables1), one transaction each, in any network namespace.

A ruleset that is there already is not written again: round robin goes on where it was, and looking costs one netlink
message. "There already" means that we wrote it and that the namespace's nftables generation has not moved since, so
whatever anybody else changes, ours included, makes the next call write all of it.

Closing a socket of nftables waits until the kernel has freed what its transaction replaced, 8 to 20 ms on an idle
machine, while the transaction itself takes one. So sockets are kept a moment and closed when nothing is left to wait
for: a change in forty containers takes as long as forty transactions.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections import deque
from collections.abc import Callable
from functools import cache
from time import monotonic

from afterswarm.adapters.kernel import nfnetlink
from afterswarm.adapters.kernel.namespaces import inside, namespace_of, started_at

_TABLES, _GET_GENERATION, _GENERATION_ID = 10, 16, 1  # linux/netfilter/nf_tables.h
_KEPT = 512  # namespaces remembered before those of ended processes are dropped
_LINGER = 0.5  # seconds before a socket is closed
_OPEN = 16  # kept at most: each second one holds 0.3 MB


class Rulesets:
    """What we wrote where. Calls block, and must come from one thread."""

    def __init__(self) -> None:
        self._written: dict[tuple[int, str] | None, tuple[str, int]] = {}  # process -> ruleset and generation
        self._closing: deque[tuple[float, Callable[[], None]]] = deque()

    def apply(self, ruleset: str, pid: int | None) -> None:
        """Raises `ProcessLookupError` when `pid` has gone, `OSError` when the kernel refuses.

        A process that shares our own namespace (`network_mode: host`) is left alone: its rules are the host's.
        """
        if pid is not None and namespace_of(pid) == namespace_of(None):
            return
        process = None if pid is None else (pid, started_at(pid))
        with inside(pid):
            kernel = nfnetlink.Conversation()
            self._close_later(kernel.close)
            before = _generation(kernel)
            if self._written.get(process) == (ruleset, before):
                return
            self._written.pop(process, None)
            self._run(ruleset)
            after = _generation(kernel)
        if after == before + 1:  # nobody came between
            self._remember(process, ruleset, after)

    def tidy(self, *, keep: int = _OPEN) -> None:
        """Close what can be closed without waiting, and by force what is more than `keep`. To be called at times."""
        ripe = monotonic() - _LINGER
        while self._closing and (self._closing[0][0] < ripe or len(self._closing) > keep):
            self._closing.popleft()[1]()

    def _close_later(self, close: Callable[[], None]) -> None:
        self.tidy()
        self._closing.append((monotonic(), close))

    def _run(self, ruleset: str) -> None:
        """A context of its own each time: its netlink socket belongs to the namespace that it is opened in."""
        library = _library()
        context = library.nft_ctx_new(0)
        if not context:
            raise OSError(errno.ENOMEM, "libnftables gave no context")
        self._close_later(lambda: library.nft_ctx_free(context))
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, ruleset.encode()):
            said = library.nft_ctx_get_error_buffer(context).decode(errors="replace").strip()
            raise OSError(errno.EINVAL, f"nftables refused the ruleset: {said}")

    def _remember(self, process: tuple[int, str] | None, ruleset: str, generation: int) -> None:
        if len(self._written) >= _KEPT:
            self._written = {key: value for key, value in self._written.items() if key is None or _runs(*key)}
        self._written[process] = ruleset, generation


def _runs(pid: int, started: str) -> bool:
    try:
        return started_at(pid) == started
    except ProcessLookupError:
        return False


def _generation(kernel: nfnetlink.Conversation) -> int:
    """Grows by one with every transaction in this namespace."""
    for answer in kernel.ask(nfnetlink.message(_TABLES, _GET_GENERATION, 0)):
        for kind, value in nfnetlink.attributes(answer):
            if kind == _GENERATION_ID:
                return int(struct.unpack("!I", value)[0])
    raise OSError(errno.EPROTO, "the kernel does not tell its nftables generation")


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise OSError(errno.ENOENT, f"libnftables is missing, install libnftables1 ({error})") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library
