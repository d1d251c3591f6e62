"""Never two hosts answer for a floating address, whatever happens; and soon there is one again."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterswarm.core.floating import SETTLE
from afterswarm.sim.floating import STEP, World

BEGIN = SETTLE + 2.0  # seconds until managers that have just begun vote, and a host has asked
NAMES = [f"n{number}" for number in range(1, 6)]


def run(world: World, seconds: float) -> None:
    for _ in range(round(seconds / STEP)):
        world.step()
        answering = world.answering()
        assert len(answering) <= 1, f"{world.now:.2f}: {answering}"


def until_one(world: World, within: float, *, other_than: str = "") -> float:
    """Seconds until a host answers."""
    begun = world.now
    while not set(world.answering()) - {other_than}:
        run(world, STEP)
        assert world.now - begun < within, "nobody has the address"
    return world.now - begun


def settled(managers: int = 3, hosts: int = 5, seed: int = 1) -> World:
    world = World(NAMES[:hosts], NAMES[:managers], seed)
    run(world, BEGIN)
    assert len(world.answering()) == 1
    return world


def trouble(world: World, rng: Random) -> None:
    """Something happens to somebody."""
    name = rng.choice(NAMES)
    match rng.randrange(9):
        case 0:
            world.power_cut(name, rng.uniform(0.1, 6))
        case 1:
            world.restart(name)
        case 2:
            world.pause(name, rng.choice((0.1, 0.45, 0.7, 3.0, 8.0)))
        case 3:
            world.cut |= {frozenset((name, other)) for other in NAMES if other != name and rng.random() < 0.7}
        case 4:
            world.cut.clear()
        case 5:
            world.loss, world.slow = rng.choice((0.0, 0.1, 0.5)), rng.choice((0.005, 0.2, 2.0))
        case 6 | 7:  # one manager more or less; rarely many at once
            changed = world.managers ^ {name} if rng.random() < 0.8 else set(rng.sample(NAMES, rng.choice((1, 3))))
            if changed and world.quorate(min(world.managers)):
                world.change(changed)
        case _:
            world.hosts[name].willing = not world.hosts[name].willing


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(min_value=0), managers=st.integers(min_value=1, max_value=5))
def test_never_two_whatever_happens_and_one_when_it_is_over(seed: int, managers: int) -> None:
    rng = Random(seed)  # noqa: S311 - a simulation
    world = World(NAMES, NAMES[:managers], seed)
    run(world, BEGIN)
    for _ in range(15):
        trouble(world, rng)
        run(world, rng.choice((0.1, 0.5, 1.0, 2.0)))
    world.cut.clear()
    world.loss, world.slow = 0.0, 0.005
    for host in world.hosts.values():
        host.willing, host.paused_until = True, 0.0
    run(world, 8.0)  # the longest that anybody is off
    until_one(world, BEGIN + 4.0)


@pytest.mark.parametrize("managers", [3, 5])
@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_moves_it_within_a_second(managers: int, seed: int) -> None:
    world = settled(managers, seed=seed)
    [before] = world.answering()
    run(world, 0.013 * seed)
    world.power_cut(before, 60)
    assert until_one(world, 1.0, other_than=before) <= 0.95  # the kernel takes the rest


@pytest.mark.parametrize("seed", range(6))
def test_a_host_that_is_cut_off_lets_go_before_another_takes_it(seed: int) -> None:
    world = settled(seed=seed)
    [before] = world.answering()
    world.cut = {frozenset((before, other)) for other in NAMES if other != before}
    until_one(world, 1.0, other_than=before)
    run(world, 5.0)
    assert before not in world.answering()
    world.cut.clear()
    [after] = world.answering()
    run(world, 5.0)
    assert world.answering() == [after]  # it does not move back


def test_a_daemon_that_stands_still_loses_it_and_does_not_take_it_up_again() -> None:
    world = settled()
    [before] = world.answering()
    world.pause(before, 3.0)
    until_one(world, 1.5, other_than=before)
    [after] = world.answering()
    run(world, 5.0)
    assert world.answering() == [after] != [before]


def test_a_short_stall_moves_nothing() -> None:
    world = settled()
    before = world.answering()
    world.pause(before[0], 0.3)
    run(world, 2.0)
    assert world.answering() == before


def test_who_gives_it_up_hands_it_over_at_once() -> None:
    world = settled()
    [before] = world.answering()
    world.hosts[before].willing = False
    assert until_one(world, 1.0, other_than=before) < 0.3


def test_without_a_majority_of_managers_nobody_has_it() -> None:
    world = settled(managers=3)
    for name in NAMES[:2]:
        world.power_cut(name, 60)
    run(world, 1.0)
    assert world.answering() == []


def test_a_manager_more_or_less_does_not_disturb() -> None:
    world = settled(managers=3)
    before, world.watched = world.answering(), 0.9
    for managers in (NAMES[:4], NAMES[:5], NAMES[:4], NAMES[:3]):
        world.change(managers)
        for _ in range(100):
            run(world, 0.1)
            assert world.answering() == before


def test_one_manager_is_enough_where_there_is_one() -> None:
    world = settled(managers=1)
    [before] = world.answering()
    if before != "n1":
        world.power_cut(before, 60)
        until_one(world, 1.0, other_than=before)


def test_managers_that_do_not_hear_the_same_hosts_agree_in_the_end() -> None:
    """Of three managers one is gone, and one does not hear a host that the other would choose."""
    for deaf_to in ("n4", "n5"):
        world = World(NAMES, NAMES[:3], 1)
        world.power_cut("n2", 1000)
        world.cut = {frozenset(("n1", deaf_to))}
        for name in NAMES[:2]:
            world.hosts[name].willing = False
        run(world, BEGIN)
        until_one(world, 5.0)
