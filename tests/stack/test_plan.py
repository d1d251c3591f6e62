"""What a deployment would do, beside what runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.model.network import IPAM, IPAMConfig, NetworkSpec
from afterswarm.model.secret import ConfigSpec, SecretSpec
from afterswarm.model.service import (
    SECOND,
    ContainerSpec,
    EndpointSpec,
    Mount,
    NetworkAttachmentConfig,
    Placement,
    Platform,
    PortConfig,
    Privileges,
    ReplicatedService,
    ResourceRequirements,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from afterswarm.stack import difference
from afterswarm.stack.convert import Stack, Wanted
from afterswarm.stack.names import IMAGE
from afterswarm.stack.plan import Mark, Running, There, keeping_image, plan

NETWORKS = {"n1": "shop_default"}


def spec(name: str = "shop_web", image: str = "nginx:1", **container: Any) -> ServiceSpec:
    networks = [NetworkAttachmentConfig(target="shop_default", aliases=["web"])]
    template = TaskSpec(container_spec=ContainerSpec(image=image, **container), networks=networks)
    return ServiceSpec(name=name, labels={IMAGE: image}, task_template=template, endpoint_spec=EndpointSpec())


def stored(wanted: ServiceSpec) -> ServiceSpec:
    """As the swarm shows it."""
    template = wanted.task_template
    networks = [replace(n, target="n1") for n in template.networks]
    return replace(
        wanted,
        task_template=replace(
            template, networks=networks, runtime="container", resources=ResourceRequirements(), placement=Placement()
        ),
        mode=ServiceMode(replicated=ReplicatedService(replicas=1)),
        endpoint_spec=EndpointSpec(mode="vip", ports=wanted.endpoint_spec.ports if wanted.endpoint_spec else []),
        update_config=UpdateConfig(parallelism=1, failure_action="pause", order="stop-first"),
    )


def stack(*services: ServiceSpec | Wanted, **more: Any) -> Stack:
    parts = {"networks": [], "external_networks": [], "secrets": [], "configs": [], **more}
    return Stack("shop", services=[s if isinstance(s, Wanted) else Wanted(s) for s in services], **parts)


def running(*specs: Any, own: bool = True) -> Running:
    kinds = {NetworkSpec: "networks", SecretSpec: "secrets", ConfigSpec: "configs", ServiceSpec: "services"}
    found: dict[str, dict[str, There]] = {
        "networks": {"shop_default": There("n1", 0, NetworkSpec(name="shop_default"), own=False)}
    }
    for n, one in enumerate(specs):
        found.setdefault(kinds[type(one)], {})[one.name] = There(f"id{n}", 7, one, own)
    return Running(**found)


def told(wanted: Stack, there: Running, **how: bool) -> list[str]:
    return [str(step) for step in plan(wanted, there, **how)]


def test_the_same_in_other_words_is_the_same() -> None:
    wanted = spec(privileges=Privileges(), env=["B=2", "A=1"])
    assert told(stack(wanted), running(stored(wanted))) == ["= service shop_web"]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (spec(), spec(image="nginx:2"), ["Image: nginx:1 → nginx:2", f"Labels.{IMAGE}: nginx:1 → nginx:2"]),
        (spec(env=["A=1", "B=2"]), spec(env=["A=3", "C=1"]), ["Env.A: 1 → 3", "Env.B: - 2", "Env.C: + 1"]),
        (spec(args=["a"]), spec(args=["a", "b c"]), ['Args: ["a"] → ["a","b c"]']),
        (
            spec(mounts=[Mount(source="v", target="/v")]),
            spec(),
            ["Mounts[/v].Source: - v", "Mounts[/v].Target: - /v", "Mounts[/v].Type: - volume"],
        ),
        (spec(), spec(read_only=True), ["ReadOnly: + true"]),
        (
            spec(),
            replace(spec(), mode=ServiceMode(replicated=ReplicatedService(replicas=0))),
            ["Mode.Replicated.Replicas: 1 → 0"],
        ),
        (spec(), replace(spec(), update_config=UpdateConfig(parallelism=2)), ["UpdateConfig"]),
        (
            spec(),
            replace(spec(), endpoint_spec=EndpointSpec(ports=[PortConfig(target_port=80, published_port=8080)])),
            ["EndpointSpec.Ports[8080]"],
        ),
    ],
)
def test_what_differs_is_named(old: ServiceSpec, new: ServiceSpec, lines: list[str]) -> None:
    (step,) = plan(stack(new), running(stored(old)))
    assert step.mark is Mark.CHANGE
    assert len(step.lines) >= len(lines)
    for line, start in zip(step.lines, lines, strict=False):
        assert line.startswith(start)


def test_what_concerns_no_task_is_sent_with_the_template_word_for_word() -> None:
    old = stored(spec())
    new = replace(spec(), labels={IMAGE: "nginx:1", "a": "b"})
    (step,) = plan(stack(new), running(old))
    assert isinstance(step.spec, ServiceSpec)
    assert step.spec.task_template == old.task_template
    assert step.lines == ["Labels.a: + b"]


def test_force_update_is_kept() -> None:
    old = stored(spec())
    old = replace(old, task_template=replace(old.task_template, force_update=4))
    (step,) = plan(stack(spec(image="nginx:2")), running(old))
    assert isinstance(step.spec, ServiceSpec)
    assert step.spec.task_template.force_update == 4


def test_a_service_restarts_with_the_one_that_it_depends_on() -> None:
    web, db = stored(spec()), stored(spec("shop_db"))
    wanted = [Wanted(spec("shop_db", "nginx:2")), Wanted(spec(), restarts_with=["shop_db"])]
    first, second = plan(stack(*wanted), running(web, db))
    assert (first.mark, second.mark, second.lines) == (Mark.CHANGE, Mark.CHANGE, ["restarts with shop_db"])
    assert isinstance(second.spec, ServiceSpec)
    assert second.spec.task_template.force_update == 1
    only_labels = Wanted(replace(spec("shop_db"), labels={IMAGE: "nginx:1", "x": "y"}))
    assert plan(stack(only_labels, wanted[1]), running(web, db))[1].mark is Mark.SAME


def test_what_is_not_in_the_file() -> None:
    there = running(stored(spec("shop_old")), ConfigSpec(name="shop_c"), SecretSpec(name="shop_s"))
    assert [s.mark for s in plan(stack(), there)] == [Mark.NOTE] * 3
    pruned = plan(stack(), there, prune=True)
    assert [(s.mark, s.name) for s in pruned] == [(Mark.PRUNE, n) for n in ("shop_old", "shop_c", "shop_s")]
    assert plan(stack(), running(ConfigSpec(name="other"), own=False), prune=True) == []


def test_networks_secrets_and_configs() -> None:
    there = running(
        ConfigSpec(name="c", data="YQ=="),
        SecretSpec(name="s"),
        NetworkSpec(name="n", ipam=IPAM(config=[IPAMConfig(subnet="10.1.0.0/24")])),
    )
    wanted = stack(
        networks=[
            NetworkSpec(name="n", ipam=IPAM(config=[IPAMConfig(subnet="10.2.0.0/24")])),
            NetworkSpec(name="shop_default"),
            NetworkSpec(name="new"),
        ],
        secrets=[SecretSpec(name="s", data="Yg=="), SecretSpec(name="t", data="Yg==")],
        configs=[ConfigSpec(name="c", data="Yg=="), ConfigSpec(name="d")],
    )
    steps = plan(wanted, there)
    assert [f"{s.mark}{s.name}" for s in steps] == ["!n", "=shop_default", "+new", "?s", "+t", "~c", "+d"]
    assert "10.1.0.0/24 → 10.2.0.0/24" in str(steps[0])
    assert not any("Yg" in str(step) for step in steps), "no data is shown"


def test_references_get_the_ids_of_what_is_there() -> None:
    wanted = spec(secrets=[SecretReference(secret_name="s"), SecretReference(secret_name="new")])
    (_, step) = plan(stack(wanted, secrets=[SecretSpec(name="s")]), running(SecretSpec(name="s")))
    assert isinstance(step.spec, ServiceSpec)
    container = step.spec.task_template.container_spec
    assert container is not None
    assert [s.secret_id for s in container.secrets] == ["id0", ""]


def test_a_digest_is_kept_while_the_file_says_the_same_image() -> None:
    old = spec()
    pinned = replace(
        old,
        task_template=replace(
            old.task_template,
            container_spec=ContainerSpec(image="nginx:1@sha256:1"),
            placement=Placement(platforms=[Platform(os="linux", architecture="amd64")]),
        ),
    )
    new = replace(old, task_template=replace(old.task_template, placement=Placement()))
    kept = keeping_image(new, pinned).task_template
    assert kept.container_spec == ContainerSpec(image="nginx:1@sha256:1")
    assert kept.placement == pinned.task_template.placement
    other = spec(image="nginx:2")
    assert keeping_image(other, pinned) == other


WORDS = st.text("ab1", min_size=1, max_size=3)
SPECS = st.builds(
    spec,
    image=WORDS,
    env=st.lists(st.builds("{}={}".format, WORDS, WORDS), unique_by=lambda e: e.partition("=")[0]),
    args=st.lists(WORDS),
    user=WORDS,
    read_only=st.booleans(),
    init=st.sampled_from([None, True]),
    mounts=st.lists(st.builds(Mount, target=WORDS, source=WORDS), unique_by=lambda m: m.target),
)


@given(SPECS, SPECS)
def test_lines_are_there_exactly_when_something_differs(one: ServiceSpec, other: ServiceSpec) -> None:
    assert difference.changes(stored(one), one, NETWORKS) == []
    same = difference.normal(one, NETWORKS) == difference.normal(other, NETWORKS)
    assert (difference.changes(stored(one), other, NETWORKS) == []) == same
    if difference.same_template(one, other, NETWORKS):
        lines = difference.changes(one, other, NETWORKS)
        assert all(line.startswith("Labels.") for line in lines)


def test_restart_policies_are_compared_as_they_are() -> None:
    def with_policy(policy: RestartPolicy | None) -> ServiceSpec:
        return replace(spec(), task_template=replace(spec().task_template, restart_policy=policy))

    old, new = with_policy(RestartPolicy()), with_policy(RestartPolicy(delay=SECOND))
    assert difference.changes(old, new, {}) == ["RestartPolicy.Delay: + 1000000000"]
