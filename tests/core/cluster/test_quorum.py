"""One change of the store's members at a time, and never one that costs the majority."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core.cluster.quorum import (
    Member,
    PromoteMember,
    RemoveMember,
    SetRole,
    Step,
    actor,
    may_add,
    may_demote,
    next_step,
    owner,
)
from afterswarm.model.node import Leader, Node, NodeSpec, NodeState, Role
from afterswarm.model.snapshot import Snapshot

W, M = Role.WORKER, Role.MANAGER


def node(node_id: str, wanted: Role, role: Role, state: NodeState = NodeState.READY) -> Node:
    return Node(id=node_id, spec=NodeSpec(role=wanted), role=role, state=state)


def member(node_id: str, *, learner: bool = False, started: bool = True) -> Member:
    return Member(
        id=f"m-{node_id}", name=node_id if started else "", peer_url=f"https://10.0.0.{node_id}:2380", learner=learner
    )


def addresses(nodes: dict[str, Node]) -> dict[str, str]:
    return {i: f"10.0.0.{i}" for i in nodes}


def step(nodes: list[Node], members: list[Member], alive: str) -> Step | None:
    by_id = {n.id: n for n in nodes}
    return next_step(by_id, addresses(by_id), members, set(alive))


def test_a_promotion_step_by_step() -> None:
    one, two = node("1", M, M), node("2", M, W)
    assert step([one, two], [member("1")], "12") is None  # it asks for its place itself
    waiting = member("2", learner=True, started=False)
    assert step([one, two], [member("1"), waiting], "12") is None
    learner = member("2", learner=True)
    assert step([one, two], [member("1"), learner], "12") == PromoteMember("m-2", "2")
    assert step([one, two], [member("1"), learner], "1") is None  # not heard: two voters of which one lives
    assert step([one, two], [member("1"), member("2")], "12") == SetRole("2", M)
    assert step([one, node("2", M, M)], [member("1"), member("2")], "12") is None


def test_a_demotion_step_by_step() -> None:
    nodes = [node("1", M, M), node("2", M, M), node("3", W, M)]
    members = [member(i) for i in "123"]
    assert step(nodes, members, "123") == RemoveMember("m-3", "3")
    assert step(nodes, members[:2], "123") == SetRole("3", W)
    assert step(nodes, members, "12") == RemoveMember("m-3", "3")  # dead: all the better
    assert step(nodes, members, "13") is None  # one of two voters would be left alive


def test_the_last_voter_stays() -> None:
    assert step([node("1", W, M)], [member("1")], "1") is None


def test_the_member_of_a_removed_node_goes() -> None:
    assert step([node("1", M, M)], [member("1"), member("2", learner=True)], "1") == RemoveMember("m-2", "2")
    two = [node("1", M, M), node("3", M, M)]
    assert step(two, [member(i) for i in "123"], "13") == RemoveMember("m-2", "2")


def test_a_place_is_given_to_one_at_a_time_and_only_to_a_manager_to_be() -> None:
    nodes = {n.id: n for n in [node("1", M, M), node("2", M, W), node("3", M, W), node("4", W, W)]}
    where = addresses(nodes)
    assert may_add(nodes, where, [member("1")], "2")
    assert not may_add(nodes, where, [member("1"), member("2", learner=True, started=False)], "3")
    assert not may_add(nodes, where, [member("1")], "4")
    assert not may_add(nodes, where, [member("1")], "5")
    assert not may_add(nodes, {}, [member("1")], "2")


def test_a_host_that_left_and_joined_again_gets_its_place_under_its_new_name() -> None:
    nodes = {
        n.id: n
        for n in [
            replace(node("a", M, M, NodeState.DOWN), created=1.0),
            replace(node("b", M, W, NodeState.DOWN), created=2.0),
            replace(node("c", M, W), created=3.0),
        ]
    }
    place = Member(id="m", peer_url="https://10.0.0.1:2380", learner=True)
    assert owner(place, nodes, dict.fromkeys(nodes, "10.0.0.1")) == "c"
    assert owner(place, nodes, {}) == ""


def test_the_leader_acts_unless_it_is_to_go() -> None:
    leader = Leader(id="leader", node_id="2")
    managers = [node("1", M, M), node("2", M, M), node("3", M, M)]
    assert actor(Snapshot.of([*managers, leader])) == "2"
    managers[1] = node("2", W, M)
    assert actor(Snapshot.of([*managers, leader])) == "1"
    managers[0] = node("1", M, M, NodeState.DOWN)
    assert actor(Snapshot.of([*managers, leader])) == "3"


def test_a_demotion_that_would_cost_the_majority_is_not_accepted() -> None:
    def managers(*states: NodeState) -> Snapshot:
        return Snapshot.of([node(str(i), M, M, s) for i, s in enumerate(states, 1)])

    ready, down = NodeState.READY, NodeState.DOWN
    assert may_demote(managers(ready, ready, ready), "1")
    assert not may_demote(managers(ready), "1")
    assert not may_demote(managers(ready, ready, down), "1")
    assert may_demote(managers(ready, ready, down), "3")


ROLES = st.sampled_from([W, M])
IDS = st.sampled_from("123456")


@st.composite
def clusters(draw: st.DrawFn) -> tuple[dict[str, Node], list[Member], set[str]]:
    nodes = {i: node(i, draw(ROLES), draw(ROLES)) for i in draw(st.sets(IDS))}
    members = [
        member(i, learner=learner, started=not learner or draw(st.booleans()))
        for i in sorted(draw(st.sets(IDS, min_size=1)))
        for learner in [draw(st.booleans())]
    ]
    return nodes, members, draw(st.sets(IDS))


@given(clusters())
def test_no_step_costs_a_majority_that_there_was(cluster: tuple[dict[str, Node], list[Member], set[str]]) -> None:
    nodes, members, alive = cluster
    voters = {m.id: m.id.removeprefix("m-") for m in members if not m.learner}
    match next_step(nodes, addresses(nodes), members, alive):
        case PromoteMember(member_id=member_id, node_id=node_id):
            assert nodes[node_id].spec.role == M
            voters[member_id] = node_id
        case RemoveMember(member_id=member_id, node_id=node_id):
            assert node_id not in nodes or nodes[node_id].spec.role == W
            if member_id not in voters:
                return
            del voters[member_id]
        case _:
            return
    assert voters
    assert sum(i in alive for i in voters.values()) * 2 > len(voters)


@given(clusters())
def test_steps_come_to_an_end_and_do_what_is_wanted(
    cluster: tuple[dict[str, Node], list[Member], set[str]],
) -> None:
    """With everybody alive and every manager to be present as a member, roles become what was asked for."""
    nodes, _, _ = cluster
    nodes["9"] = node("9", M, M)
    members = {i: member(i, learner=n.role == W) for i, n in nodes.items() if M in (n.role, n.spec.role)}
    for _ in range(50):
        found = next_step(nodes, addresses(nodes), list(members.values()), set(nodes))
        match found:
            case PromoteMember(node_id=node_id):
                members[node_id] = replace(members[node_id], learner=False)
            case RemoveMember(node_id=node_id):
                del members[node_id]
            case SetRole(node_id=node_id, role=role):
                nodes[node_id] = replace(nodes[node_id], role=role)
            case None:
                break
    assert found is None
    assert all(n.role == n.spec.role for n in nodes.values())
    assert {i for i, m in members.items() if not m.learner} == {i for i, n in nodes.items() if n.role == M}
