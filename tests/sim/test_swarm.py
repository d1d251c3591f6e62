"""Whole swarms with everything that can go wrong, and proof that the simulation would notice."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import count

import pytest

from afterswarm.core.allocate.addresses import Use
from afterswarm.core.orchestrate import slots
from afterswarm.sim import swarm

SEEDS = 200
PART = 25


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_no_rule_is_broken(first: int) -> None:
    for seed in range(first, first + PART):
        swarm.run(seed)


def test_a_seed_repeats_itself() -> None:
    first, second = swarm.run(3), swarm.run(3)
    assert first.history == second.history
    assert first.events == second.events
    assert len(first.history) > 100


def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "stopped", lambda _snap, _task: True)


def drains_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "misplaced", lambda _snap, _service, _task: "")


def no_network_has_addresses_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = import_module("afterswarm.core.allocate.plan")
    monkeypatch.setattr(planner, "in_use", lambda _snap: defaultdict(Use))


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        (nobody_waits, "2 containers run in slot"),
        (drains_are_ignored, r"on a drained node|on \['"),
        (no_network_has_addresses_in_use, "given to"),
    ],
)
def test_a_fault_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the failure names the seed and tells a story."""
    fault(monkeypatch)
    with pytest.raises(swarm.Failure, match=rf"seed \d+: .*({rule})(.*\n)+.* (service|task|network|node) "):
        deque(map(swarm.run, range(40)), maxlen=0)


def test_much_happens() -> None:
    """Leaders change, updates and rollbacks complete, nodes go down: else the rest proves little."""
    seen: set[str] = set()
    for seed in count(1000):
        world = swarm.run(seed)
        for _, change in world.history:
            status = getattr(change.new, "update_status", None)
            seen.add(str(status and status.state))
            seen.add(str(getattr(change.new, "state", "")))
            seen.add(f"led by {getattr(change.new, 'node_id', '')}" if change.obj.id == "leader" else "")
        if seed == 1040 or {"completed", "rollback_completed", "paused", "down", "led by m2", "led by m3"} <= seen:
            break
    assert {"completed", "rollback_completed", "paused", "down", "led by m2", "led by m3"} <= seen
