"""nftables rulesets through libnftables (Debian: libnftables1), one transaction each, in any network namespace.

Where the ruleset of before is still there, only what differs is written: round robin goes on where it was. Knowing that
costs one netlink message while the namespace's nftables generation has not moved since we wrote it. When it has, most
often somebody has changed rules of his own (an engine does so with every container), and a look at our tables (`drift`)
tells. What cannot be told, and what was changed, is written in full.

Closing a socket of nftables waits until the kernel has freed what its transaction replaced, 8 to 20 ms on an idle
machine, while the transaction itself takes one. So sockets are kept a moment and closed when nothing is left to wait
for: a change in forty containers takes as long as forty transactions.
"""

from __future__ import annotations

import ctypes
import errno
import logging
from collections import deque
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import NamedTuple

from afterswarm.adapters.kernel import drift, nfnetlink
from afterswarm.adapters.kernel.namespaces import inside, namespace_of, started_at
from afterswarm.ports import Ruleset

log = logging.getLogger(__name__)

_SMALL = 100_000  # characters of a ruleset: a larger one is looked at later, when there is time for it
_LINGER = 0.5  # seconds before a socket is closed
_OPEN = 16  # kept at most: each second one holds 0.3 MB


class Written(NamedTuple):
    """`shown` is what a look at it showed; `None` before the first look."""

    ruleset: Ruleset
    generation: int
    size: int  # characters of it, roughly
    shown: drift.Print | None = None


class Rulesets:
    """What we wrote where. Calls block, and must come from one thread."""

    def __init__(self) -> None:
        self._written: dict[tuple[int, str] | None, Written] = {}  # by process
        self._closing: deque[tuple[float, Callable[[], None]]] = deque()

    def apply(self, ruleset: Ruleset, pid: int | None) -> list[str]:
        """What others had changed of the same ruleset, in words, if that is known.

        Raises `ProcessLookupError` when `pid` has gone, `OSError` when the kernel refuses. A process that shares our
        own namespace (`network_mode: host`) is left alone: its rules are the host's.
        """
        if pid is not None and namespace_of(pid) == namespace_of(None):
            return []
        process = None if pid is None else (pid, started_at(pid))
        with inside(pid):
            kernel = nfnetlink.Conversation()
            try:
                return self._apply(kernel, ruleset, process)
            finally:
                self._close_later(kernel.close)  # not before: a large transaction takes longer than a socket is kept

    def _apply(self, kernel: nfnetlink.Conversation, ruleset: Ruleset, process: tuple[int, str] | None) -> list[str]:
        before = drift.generation(kernel)
        written = self._written.get(process)
        change = ruleset.since(written.ruleset) if written else None
        found: list[str] | None = []
        if written and (written.generation != before or not change):  # else it is as we left it
            found = self._changed(kernel, process, written, before)
        if found == [] and change == "":
            self._written[process] = self._written[process]._replace(ruleset=ruleset)
            return []
        self._written.pop(process, None)
        size = self._run(ruleset, change if found == [] else None) or (written.size if written else 0)
        after = drift.generation(kernel)
        if after == before + 1:  # nobody came between
            self._written[process] = Written(ruleset, after, size)
            if size < _SMALL:
                self._changed(kernel, process, self._written[process], after)
        return found or [] if change == "" else []

    def _changed(
        self, kernel: nfnetlink.Conversation, process: tuple[int, str] | None, written: Written, generation: int
    ) -> list[str] | None:
        """What differs from what was written; `None`: it cannot be told."""
        if written.generation == generation and written.shown is not None:
            return []
        seen = drift.look(kernel)
        if seen is None:
            return None
        if written.shown is None:
            if seen[0] != written.generation:
                return None
            self._written[process] = written._replace(shown=seen[1])
            return []
        found = drift.differences(written.shown, seen[1])
        if not found:
            self._written[process] = written._replace(generation=seen[0])
        return found

    def tidy(self, *, keep: int = _OPEN) -> None:
        """Close what can be closed without waiting, and by force what is more than `keep`. To be called at times."""
        ripe = monotonic() - _LINGER
        while self._closing and (self._closing[0][0] < ripe or len(self._closing) > keep):
            self._closing.popleft()[1]()

    def forget_ended(self) -> None:
        """What was written for processes that have ended: their namespaces went with them. To be called at times."""
        self._written = {key: value for key, value in self._written.items() if key is None or _runs(*key)}

    def _close_later(self, close: Callable[[], None]) -> None:
        self.tidy()
        self._closing.append((monotonic(), close))

    def _run(self, ruleset: Ruleset, change: str | None) -> int:
        """How much was written if it was all, else 0."""
        if change:
            try:
                self._transact(change)
            except OSError as error:
                log.warning("a change of rules was refused, so all are written: %s", error)
            else:
                return 0
        text = ruleset.full()
        self._transact(text)
        return len(text)

    def _transact(self, text: str) -> None:
        """A context of its own each time: its netlink socket belongs to the namespace that it is opened in."""
        library = _library()
        context = library.nft_ctx_new(0)
        if not context:
            raise OSError(errno.ENOMEM, "libnftables gave no context")
        self._close_later(lambda: library.nft_ctx_free(context))
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, text.encode()):
            said = library.nft_ctx_get_error_buffer(context).decode(errors="replace").strip()
            raise OSError(errno.EINVAL, f"nftables refused the ruleset: {said}")


def _runs(pid: int, started: str) -> bool:
    try:
        return started_at(pid) == started
    except ProcessLookupError:
        return False


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
