"""`GET /metrics`: what this host's daemon counts, as Prometheus reads it. Ours; Docker's own are its engine's.

The library is loaded by the first question: a worker that nobody asks does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afterswarm.api.host import Host, Standing
from afterswarm.http.message import Handler, Request, Response, Upgraded
from afterswarm.model.repair import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

PATH = "/metrics"


async def metrics(host: Host, _request: Request) -> Response:
    """In the plain text format."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - a megabyte

    registry = CollectorRegistry()
    registry.register(_Collector(host.standing()))
    return Response(200, [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")], generate_latest(registry))


def only(host: Host) -> Handler:
    """A handler that answers this and nothing else."""

    async def handle(request: Request) -> Response | Upgraded:
        if request.method == "GET" and request.path == PATH:
            return await metrics(host, request)
        return Response.error(404, "page not found")

    return handle


class _Collector:
    def __init__(self, standing: Standing | None) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - as above

        now = self._standing
        yield GaugeMetricFamily("afterswarm_member", "Whether this host is in a swarm", int(now is not None))
        if now is None:
            return
        done = CounterMetricFamily(
            "afterswarm_repairs",
            "What somebody else changed of the swarm's network on this host, repaired",
            labels=["kind"],
        )
        failures = CounterMetricFamily(
            "afterswarm_repair_failures",
            "Tries to bring this host's network into its state that failed",
            labels=["kind"],
        )
        for kind in KINDS:
            done.add_metric([kind], now.repairs.get(kind, 0))
            failures.add_metric([kind], now.failures.get(kind, 0))
        yield done
        yield failures
        yield GaugeMetricFamily("afterswarm_failing", "What of it is not in its state now", len(now.failing))
        yield GaugeMetricFamily(
            "afterswarm_last_look_timestamp_seconds", "When all of it was last found, or put, in its state", now.looked
        )
        yield GaugeMetricFamily("afterswarm_routed_revision", "The revision of the swarm that it routes by", now.routed)
        yield GaugeMetricFamily("afterswarm_silent_peers", "Hosts of the swarm that are not heard", len(now.silent))
        yield CounterMetricFamily(
            "afterswarm_drains_unacknowledged",
            "Tasks ended while another host might still send to them",
            now.unacknowledged,
        )
