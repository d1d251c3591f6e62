"""Reading the engine's inspect answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterswarm.core.host.seen import Seen, epoch, seen
from afterswarm.model.task import PortStatus


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2400, 1, 1)),  # noqa: DTZ001 - the zone is added below
    st.integers(-14 * 60, 14 * 60),
)
def test_a_time_is_read_as_python_reads_it(when, offset):
    local = when.replace(tzinfo=timezone(timedelta(minutes=offset)))
    assert epoch(local.isoformat()) == pytest.approx(local.timestamp())
    assert epoch(when.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")) == pytest.approx(
        when.replace(tzinfo=UTC).timestamp()
    )


@pytest.mark.parametrize("text", ["", "0001-01-01T00:00:00Z", "yesterday", "2024-01-01"])
def test_what_is_no_time_is_never(text):
    assert epoch(text) == 0


def test_nanoseconds_are_kept_as_far_as_a_float_goes():
    assert epoch("2024-02-29T12:00:00.123456789Z") == pytest.approx(1709208000.123456789)


def test_an_empty_answer_is_a_container_that_never_ran():
    assert seen({}) == Seen()
    assert not seen({}).ran


def test_a_port_published_on_two_address_families_is_one_port():
    both = [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
    shown = seen({"NetworkSettings": {"Ports": {"80/tcp": both, "53/udp": None}, "Networks": {"backend": {}}}})
    assert shown.ports == (PortStatus(protocol="tcp", target_port=80, published_port=8080),)
    assert shown.networks == ("backend",)


def test_the_engine_says_none_for_a_container_without_a_health_check():
    assert not seen({"State": {"Running": True, "Health": {"Status": "none"}}}).health
