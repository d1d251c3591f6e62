"""Calls from a manager to the engines of other hosts, through port 2377 there."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from afterswarm.http.client import Client
from afterswarm.model.enrolment import ENGINE, PORT, split, where
from afterswarm.model.refused import Refused
from afterswarm.ports import Replica


class Hosts:
    """One client per host and address. Certificates are checked to be the very node's."""

    def __init__(
        self, replica: Replica, context: Callable[[], ssl.SSLContext], *, me: str, own: Client, port: int = PORT
    ) -> None:
        self._replica = replica
        self._context = context
        self._me = me
        self._own = own
        self._port = port
        self._clients: dict[str, tuple[str, Client]] = {}

    def engine_of(self, node_id: str) -> tuple[Client, str]:
        """The client, and what to put before each target: "" for this host's own engine, "/engine" for others'."""
        if node_id == self._me:
            return self._own, ""
        report = self._replica.snapshot().node_reports.get(node_id)
        if report is None or not report.address:
            raise Refused(503, f"node {node_id} has not said where it is")
        at = where(report.address, report.port or self._port)
        known, client = self._clients.get(node_id, ("", None))
        if client is None or known != at:
            if client:
                client.close()
            client = Client.tcp(*split(at), ssl=self._context, server_hostname=node_id)
            self._clients[node_id] = (at, client)
        return client, ENGINE

    def close(self) -> None:
        """Drop all connections that are kept."""
        for _, client in self._clients.values():
            client.close()
        self._clients.clear()
