"""What can go wrong between two ends of a connection."""

from __future__ import annotations


class ConnectFailed(OSError):
    """The other side cannot be reached: nothing was asked of it."""


class Lost(ConnectFailed):
    """The other side went away, fell silent or stopped speaking HTTP halfway: whether it acted is not known."""


class HttpError(Exception):
    """An answer that is not the one asked for: its status and its words. A handler may raise it as its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
