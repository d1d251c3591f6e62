"""Locust's statistics for Prometheus, read from its web page's own feed at every scrape."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric

URL = os.environ.get("LOCUST_URL", "http://locust:8089") + "/stats/requests"
PORT = 9646


class Locust:
    """A collector: one request to Locust for each scrape; `locust_up` is 0 while it does not answer."""

    def collect(self) -> Iterator[Metric]:
        try:
            with urllib.request.urlopen(URL, timeout=3) as answer:
                stats = json.load(answer)
        except (OSError, ValueError) as e:
            print(f"{URL}: {e}", file=sys.stderr)
            yield GaugeMetricFamily("locust_up", "Whether Locust answers", value=0)
            return
        yield GaugeMetricFamily("locust_up", "Whether Locust answers", value=1)
        yield GaugeMetricFamily("locust_users", "Simulated users", value=stats.get("user_count", 0))
        yield GaugeMetricFamily("locust_fail_ratio", "Failed requests among all", value=stats.get("fail_ratio", 0))
        families = {
            "num_requests": GaugeMetricFamily("locust_requests", "Requests so far", labels=["method", "name"]),
            "num_failures": GaugeMetricFamily("locust_failures", "Failures so far", labels=["method", "name"]),
            "current_rps": GaugeMetricFamily("locust_rps", "Requests a second now", labels=["method", "name"]),
            "avg_response_time": GaugeMetricFamily(
                "locust_response_milliseconds", "Mean time to an answer", labels=["method", "name"]
            ),
        }
        for row in stats.get("stats", []):
            for key, family in families.items():
                family.add_metric([row.get("method") or "", row.get("name") or ""], row.get(key) or 0)
        yield from families.values()


if __name__ == "__main__":
    REGISTRY.register(Locust())
    start_http_server(PORT)
    while True:
        time.sleep(3600)
