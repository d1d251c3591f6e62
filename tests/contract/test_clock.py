"""The wall clock keeps its word about how long a sleep may be, and wakes sleepers together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afterswarm.adapters.clock import TICK, until_tick

NOWS = st.floats(1.7e9, 2.0e9)


@given(NOWS, st.floats(TICK, 100.0))
def test_a_sleep_is_off_by_half_a_tick_at_most(now: float, seconds: float) -> None:
    assert abs(until_tick(now, seconds) - seconds) <= TICK / 2 + 1e-6


@given(NOWS, st.floats(0.0, 0.9))
def test_sleepers_of_one_tick_wake_at_one_moment_from_then_on(now: float, late: float) -> None:
    woken = now + until_tick(now, TICK)
    again = woken + late * TICK / 2  # somewhat later than asked, as always
    assert abs((again + until_tick(again, TICK)) - (woken + TICK)) < 1e-6


@given(NOWS)
def test_they_wake_half_way_between_whole_tenths(now: float) -> None:
    past = (now + until_tick(now, TICK)) % TICK
    assert abs(past - TICK / 2) < 1e-6
