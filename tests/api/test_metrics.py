"""What Prometheus is told of a host."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from afterswarm.api import metrics
from afterswarm.api.host import Standing
from afterswarm.daemon.config import place
from afterswarm.http.client import Client
from afterswarm.http.message import Request
from afterswarm.http.server import serve_tcp
from afterswarm.model import repair
from afterswarm.model.refused import Refused

STANDING = Standing(
    ports={},
    repairs={repair.RULES: 2, repair.FDB: 1},
    failures={repair.LINKS: 3},
    failing={"links": "no such device"},
    last="rules: table afterswarm was gone",
    last_at=1_700_000_000.0,
    looked=1_700_000_001.5,
    now=1_700_000_002.0,
    routed=41,
    silent=["swarm-3"],
    unacknowledged=4,
)


def samples(text: str) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, s.labels.get("kind", "")): s.value for family in families for s in family.samples}


async def test_a_host_is_counted(api: Any, host: Any) -> None:
    host.stands = STANDING
    answer = await metrics.only(host)(Request("GET", "/metrics"))
    assert ("Content-Type", "text/plain; version=0.0.4; charset=utf-8") in answer.headers
    found = samples(answer.body.decode())
    assert found["afterswarm_repairs_total", "rules"] == 2
    assert found["afterswarm_repairs_total", "routes"] == 0, "every kind is there from the start"
    assert found["afterswarm_repair_failures_total", "links"] == 3
    assert found["afterswarm_last_look_timestamp_seconds", ""] == 1_700_000_001.5
    assert found["afterswarm_routed_revision", ""] == 41
    assert found["afterswarm_silent_peers", ""] == 1
    assert found["afterswarm_failing", ""] == 1
    assert found["afterswarm_drains_unacknowledged_total", ""] == 4
    assert (await api.ok("GET", "/afterswarm/standing"))["Silent"] == ["swarm-3"]


async def test_a_host_in_no_swarm_says_so_and_the_address_for_prometheus_nothing_else(host: Any) -> None:
    answer = await metrics.only(host)(Request("GET", "/metrics"))
    assert samples(answer.body.decode()) == {("afterswarm_member", ""): 0.0}
    for method, path in (("GET", "/info"), ("POST", "/metrics"), ("GET", "/containers/json")):
        assert (await metrics.only(host)(Request(method, path))).status == 404


async def test_prometheus_may_ask_over_tcp(host: Any) -> None:
    host.stands = STANDING
    async with serve_tcp("127.0.0.1", 0, metrics.only(host)) as port:
        client = Client.tcp("127.0.0.1", port)
        try:
            told = await client.request("GET", "/metrics")
            assert samples(told.body.decode())["afterswarm_routed_revision", ""] == 41
        finally:
            client.close()


@pytest.mark.parametrize("value", ["9324", ":9324", "host:", "host:0", "host:70000", "host:x"])
def test_an_address_for_prometheus_is_a_host_and_a_port(value: str) -> None:
    assert place("--metrics-addr", "127.0.0.1:9324") == "127.0.0.1:9324"
    assert place("--metrics-addr", "") == ""
    with pytest.raises(Refused, match="--metrics-addr takes HOST:PORT"):
        place("--metrics-addr", value)
