"""The swarm's settings, and managers that want to leave."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.core.admit import cluster as admit
from afterswarm.model.cluster import (
    CAConfig,
    Cluster,
    Dispatcher,
    EncryptionConfig,
    ExternalCA,
    RootRotation,
    SwarmSpec,
)
from afterswarm.model.node import Node, NodeState, Role
from afterswarm.model.refused import Refused
from afterswarm.model.service import SECOND
from afterswarm.model.snapshot import Snapshot


def swarm(*states: NodeState) -> Snapshot:
    return Snapshot.of(Node(id=str(i), role=Role.MANAGER, state=state) for i, state in enumerate(states))


UP, DOWN = NodeState.READY, NodeState.DOWN


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([UP], "Removing the last manager erases all current state of the swarm. Use `--force` to ignore"),
        ([UP, UP], "Removing this node leaves 1 managers out of 2. Without a Raft quorum"),
        ([UP, UP, DOWN], "Removing this node leaves 1 managers out of 3. Without a Raft quorum"),
        ([UP, UP, UP], "participating as a manager. The only way to restore a swarm"),
    ],
)
def test_leaving_as_a_manager(states: list[NodeState], words: str) -> None:
    with pytest.raises(Refused) as refused:
        admit.leave(swarm(*states), "0")
    assert refused.value.status == 503
    assert words in refused.value.message


def test_leaving_a_swarm_that_cannot_be_seen() -> None:
    with pytest.raises(Refused, match="Doing so may lose the consensus of your cluster"):
        admit.leave(None, "0")


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        (SwarmSpec(name="mine"), 400),
        (SwarmSpec(dispatcher=Dispatcher(heartbeat_period=-1)), 400),
        (SwarmSpec(ca_config=CAConfig(node_cert_expiry=60 * SECOND)), 400),
        (SwarmSpec(ca_config=CAConfig(signing_ca_key="KEY")), 400),
        (SwarmSpec(ca_config=CAConfig(signing_ca_cert="another root")), 400),
    ],
)
def test_settings_that_are_refused(spec: SwarmSpec, status: int) -> None:
    with pytest.raises(Refused) as refused:
        admit.update(Cluster(id="c"), spec)
    assert refused.value.status == status


def test_zeros_stand_for_defaults() -> None:
    spec = SwarmSpec(name="", ca_config=CAConfig(node_cert_expiry=0), dispatcher=Dispatcher(heartbeat_period=0))
    assert admit.init(spec, pools=[], subnet_size=0, data_path_port=0) == SwarmSpec()


def test_when_the_root_certificate_is_rotated() -> None:
    cluster = Cluster(id="c", ca_cert="old\n", rotation=RootRotation(cert="next\n"))

    def asked(**config: Any) -> SwarmSpec:
        return SwarmSpec(ca_config=CAConfig(**config))

    assert admit.new_root(cluster, asked(force_rotate=1))
    assert not admit.new_root(cluster, asked())
    assert admit.new_root(cluster, asked(signing_ca_cert="third", signing_ca_key="k"))
    assert not admit.new_root(cluster, asked(signing_ca_cert="next", signing_ca_key="k", force_rotate=1))
    back = admit.update(cluster, asked(signing_ca_cert="old", force_rotate=1))
    assert back.rotation is None
    kept = admit.update(cluster, asked(signing_ca_cert="third", signing_ca_key="k")).spec.ca_config
    assert (kept.signing_ca_cert, kept.signing_ca_key) == ("", "")


def test_a_root_of_the_users_own_from_the_beginning() -> None:
    with pytest.raises(Refused, match="must be provided together"):
        admit.init(SwarmSpec(ca_config=CAConfig(signing_ca_cert="c")), pools=[], subnet_size=0, data_path_port=0)


def test_what_is_accepted_and_kept() -> None:
    lock = EncryptionConfig(auto_lock_managers=True)
    spec = SwarmSpec(encryption_config=lock, ca_config=CAConfig(external_cas=[ExternalCA(url="https://ca")]))
    assert admit.update(Cluster(id="c"), spec).spec == spec
    assert (
        admit.init(SwarmSpec(), pools=[], subnet_size=0, data_path_port=7777, auto_lock=True).encryption_config == lock
    )


def test_labels_are_kept() -> None:
    spec = replace(SwarmSpec(), labels={"a": "b"})
    assert admit.update(Cluster(id="c"), spec).spec == spec


@pytest.mark.parametrize(
    ("pools", "size", "port"),
    [
        (["10.0.0.0/33"], 24, 0),
        (["10.0.0.1/8"], 24, 0),
        (["10.0.0.0/8", "10.1.0.0/16"], 24, 0),
        (["10.0.0.0/26"], 24, 0),
        (["10.0.0.0/8"], 30, 0),
        ([], 0, 80),
        ([], 0, 50000),
    ],
)
def test_wrong_address_pools_and_ports(pools: list[str], size: int, port: int) -> None:
    with pytest.raises(Refused):
        admit.init(SwarmSpec(), pools=pools, subnet_size=size, data_path_port=port)
