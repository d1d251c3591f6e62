"""Names that nobody gave."""

from __future__ import annotations

import re

from afterswarm.core import naming
from afterswarm.core.admit import service
from afterswarm.model.service import ContainerSpec, Service, ServiceSpec, TaskSpec
from afterswarm.model.snapshot import Snapshot


def test_a_name_is_two_words_and_the_same_for_the_same_seed() -> None:
    assert re.fullmatch("[a-z]+_[a-z]+", naming.spare(7, ()))
    assert naming.spare(7, ()) == naming.spare(7, ())
    assert len({naming.spare(n, ()) for n in range(50)}) > 40


def test_a_name_that_is_taken_is_not_given_again() -> None:
    taken: set[str] = set()
    for _ in range(300):
        name = naming.spare("seed", taken)
        assert name not in taken
        taken.add(name)


def test_a_service_without_a_name_is_given_one() -> None:
    spec = ServiceSpec(task_template=TaskSpec(container_spec=ContainerSpec(image="busybox")))
    first = service.create(Snapshot.of([]), spec)
    second = service.create(Snapshot.of([Service(id="other", spec=first.spec)]), spec)
    assert first.name
    assert second.name != first.name
