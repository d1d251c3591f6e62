"""TLS contexts that follow a node's files: made when they are asked for, and made anew once the files have changed.

OpenSSL can add to what a context trusts and cannot take away, so a new root means new contexts. The one that port 2377
was opened with cannot be exchanged: it hands each handshake to the newest.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    ca_path: Path
    cert_path: Path
    key_path: Path


class Contexts:
    """`outdated` after every change of a file."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None

    def outdated(self) -> None:
        self._server = self._client = None

    def server(self) -> ssl.SSLContext:
        """Good for as long as the node is a member, whatever changes."""
        front = self._accepting()

        def newest(connection: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
            self._server = self._server or self._accepting()
            connection.context = self._server

        front.sni_callback = newest
        return front

    def client(self) -> ssl.SSLContext:
        if self._client is None:
            self._client = self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return self._client

    def _accepting(self) -> ssl.SSLContext:
        context = self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.options |= ssl.OP_NO_TICKET  # nobody comes back on a trust that has ended
        context.num_tickets = 0
        return context

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(self._files.ca_path)
        context.load_cert_chain(self._files.cert_path, self._files.key_path)
        return context
