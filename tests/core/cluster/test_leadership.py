"""When a manager tries to lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterswarm.core.cluster.leadership import decide

ALL = ("m1", "m2", "m3")


@pytest.mark.parametrize(
    ("leader", "me", "heard", "takes_over"),
    [
        ("m1", "m2", {"m1": 99.0, "m3": 99.9}, False),  # the leader was heard a second ago
        ("m1", "m2", {"m1": 98.7, "m3": 99.9}, True),
        ("m1", "m3", {"m1": 98.7, "m2": 99.9}, False),  # m2's turn
        ("m1", "m3", {"m1": 98.4, "m2": 99.9}, True),  # which it did not take
        ("m1", "m3", {"m1": 98.7, "m2": 98.0}, True),  # m2 is silent as well
        ("m2", "m2", {}, False),  # it leads
        ("", "m1", {}, True),
        ("", "m2", {"m1": 99.9}, True),  # listening for long: m1 had its turn
        ("gone", "m1", {}, True),  # no longer a manager
        ("m1", "w1", {}, False),  # no manager itself
    ],
)
def test_who_takes_over(leader: str, me: str, heard: dict[str, float], takes_over: bool) -> None:  # noqa: FBT001
    assert decide(leader, me, ALL, heard, 100.0, 90.0) is takes_over


def test_a_fresh_listener_gives_the_leader_time() -> None:
    assert not decide("m1", "m2", ALL, {}, 100.0, 99.0)
    assert decide("m1", "m2", ALL, {}, 100.3, 99.0)


@given(silence=st.floats(0, 5))
def test_they_do_not_try_together(silence: float) -> None:
    """Two that hear each other have 0.3 s between their first tries."""
    heard = {"m1": 100.0 - silence, "m2": 100.0, "m3": 100.0}
    if decide("m1", "m3", ALL, heard, 100.0, 0.0):
        assert decide("m1", "m2", ALL, {**heard, "m1": 100.0 - silence + 0.29}, 100.0, 0.0)
