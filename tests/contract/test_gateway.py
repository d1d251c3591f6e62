"""What etcd's gateway says when it cannot now, and when it will not."""

from __future__ import annotations

import pytest

from afterswarm.adapters.etcd.gateway import Problem
from afterswarm.model.refused import Refused
from afterswarm.ports import Unavailable


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "raft proposal dropped"),  # seen while the store's lead changed hands
        (14, "etcdserver: leader changed"),
        (8, "etcdserver: too many requests"),
    ],
)
def test_not_now(code: int, words: str) -> None:
    assert isinstance(Problem(message=words, code=code).error(500), Unavailable)


def test_not_at_all() -> None:
    refused = Problem(message="etcdserver: duplicate key given in txn request", code=3).error(400)
    assert isinstance(refused, Refused)
    assert refused.status == 400
