"""What may be asked of services, and Docker's words when it may not."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.core.admit import service as admit
from afterswarm.core.admit import service_spec
from afterswarm.core.admit.defaults import ingress_network
from afterswarm.model.base import Obj
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, ConfigSpec, Secret, SecretSpec
from afterswarm.model.service import (
    SECOND,
    BindOptions,
    ConfigReference,
    ContainerSpec,
    CredentialSpec,
    Endpoint,
    EndpointSpec,
    FileTarget,
    Healthcheck,
    JobStatus,
    Limit,
    Mount,
    NetworkAttachmentConfig,
    Placement,
    PortConfig,
    Privileges,
    ReplicatedJob,
    ReplicatedService,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretReference,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateState,
    UpdateStatus,
)
from afterswarm.model.snapshot import Snapshot

INVALID = "rpc error: code = InvalidArgument desc = "
INGRESS = ingress_network()
BACKEND = Network(id="backend-id", spec=NetworkSpec(name="backend"))
OLD_BACKEND = Network(id="backend-old", spec=NetworkSpec(name="backend"), pending_delete=True)
PASSWORD = Secret(id="secret-id", spec=SecretSpec(name="password"))
SETTINGS = Config(id="config-id", spec=ConfigSpec(name="settings"))
HTTP = PortConfig(target_port=80, published_port=8080)


def snapshot(*objects: Obj) -> Snapshot:
    return Snapshot.of([INGRESS, OLD_BACKEND, BACKEND, PASSWORD, SETTINGS, *objects], rev=40, now=99.0)


def spec(name: str = "web", **container: object) -> ServiceSpec:
    made = ContainerSpec(**{"image": "nginx:1.27", **container})
    return ServiceSpec(name=name, task_template=TaskSpec(container_spec=made))


def template(of: ServiceSpec, **fields: object) -> ServiceSpec:
    return replace(of, task_template=replace(of.task_template, **fields))


def ports(*published: PortConfig, mode: str = "") -> ServiceSpec:
    return replace(spec(), endpoint_spec=EndpointSpec(mode=mode, ports=list(published)))


def attached(*targets: str) -> ServiceSpec:
    return template(spec(), networks=[NetworkAttachmentConfig(target=t) for t in targets])


def refused(wanted: ServiceSpec, *objects: Obj) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        admit.create(snapshot(*objects), wanted)
    return caught.value.status, caught.value.message


# ---- create ----------------------------------------------------------------------------------------------------


def test_a_service_with_dockers_defaults() -> None:
    made = admit.create(snapshot(), spec())
    assert made.spec.mode == ServiceMode(replicated=ReplicatedService(replicas=1))
    assert made.spec_version == 0
    assert made.endpoint is None
    assert made.id == admit.create(snapshot(), spec()).id, "derived, not drawn"
    assert made.id != admit.create(snapshot(), spec("other")).id


def test_what_the_command_line_sends() -> None:
    """`docker service create --name web --network backend -p 8080:80 --secret password nginx:1.27`, 28.2."""
    sent = b"""{
      "Name": "web", "Labels": {}, "Mode": {"Replicated": {}},
      "TaskTemplate": {
        "ContainerSpec": {"Image": "nginx:1.27@sha256:%s", "Init": false, "StopGracePeriod": 10000000000,
          "DNSConfig": {}, "Secrets": [{"File": {"Name": "password", "UID": "0", "GID": "0", "Mode": 292},
            "SecretID": "secret-id", "SecretName": "password"}]},
        "Resources": {"Limits": {}, "Reservations": {}},
        "RestartPolicy": {"Condition": "any", "Delay": 5000000000, "MaxAttempts": 0},
        "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "Networks": [{"Target": "backend-id"}], "ForceUpdate": 0, "Runtime": "container"},
      "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 5000000000, "MaxFailureRatio": 0,
        "Order": "stop-first"},
      "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080,
        "PublishMode": "ingress"}]}}""" % (b"a" * 64)
    made = admit.create(snapshot(), msgspec.json.decode(sent, type=ServiceSpec))
    assert made.spec.mode.replicated == ReplicatedService(replicas=1)
    assert made.spec.task_template.networks == [NetworkAttachmentConfig(target="backend-id")]


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (ServiceMode(), ServiceMode(replicated=ReplicatedService(replicas=1))),
        (
            ServiceMode(replicated=ReplicatedService(replicas=0)),
            ServiceMode(replicated=ReplicatedService(replicas=0)),
        ),
        (ServiceMode(global_={}), ServiceMode(global_={})),
    ],
)
def test_modes(asked: ServiceMode, stored: ServiceMode) -> None:
    assert admit.create(snapshot(), replace(spec(), mode=asked)).spec.mode == stored


@pytest.mark.parametrize("target", ["backend", "backend-id", "backend-i"])
def test_networks_are_stored_by_id(target: str) -> None:
    made = admit.create(snapshot(), attached(target))
    assert made.spec.task_template.networks == [NetworkAttachmentConfig(target="backend-id")]


def test_networks_of_before_api_1_25_move_into_the_template() -> None:
    old = replace(spec(), networks=[NetworkAttachmentConfig(target="backend", aliases=["www"])])
    made = admit.create(snapshot(), old).spec
    assert made.task_template.networks == [NetworkAttachmentConfig(target="backend-id", aliases=["www"])]
    assert made.networks == []


def test_networks_of_the_engine_keep_their_name() -> None:
    assert admit.create(snapshot(), attached("host")).spec.task_template.networks[0].target == "host"


def test_the_stored_form_is_a_fixed_point() -> None:
    wanted = replace(attached("backend"), endpoint_spec=EndpointSpec(ports=[replace(HTTP, protocol="TCP")]))
    made = admit.create(snapshot(), wanted).spec
    assert service_spec.normal(made) == made
    assert admit.create(snapshot(), made).spec == made


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "library/nginx:1",
        "registry.example.com:5000/a/b_c/d__e:V1.2-x",
        "127.0.0.1:5000/app@sha256:" + "0" * 64,
        "localhost/x",
        "[::1]:5000/x",
    ],
)
def test_images(image: str) -> None:
    assert admit.create(snapshot(), spec(image=image))


SECRET = SecretReference(secret_id="secret-id", secret_name="password", file=FileTarget(name="pw"))
CONFIG = ConfigReference(config_id="config-id", config_name="settings", file=FileTarget(name="/etc/x"))
HEALTH = Healthcheck(test=["CMD", "true"])
REFUSED = [
    (spec("-web"), "name must be valid as a DNS name component"),
    (spec("web_"), "name must be valid as a DNS name component"),
    (spec("we b"), "name must be valid as a DNS name component"),
    (spec("w" * 64), "name must be 63 characters or fewer"),
    (spec(image=""), "ContainerSpec: image reference must be provided"),
    (spec(image="Nginx"), 'ContainerSpec: "Nginx" is not a valid repository/tag'),
    (spec(image="nginx:a b"), 'ContainerSpec: "nginx:a b" is not a valid repository/tag'),
    (
        replace(spec(), mode=ServiceMode(replicated=ReplicatedService(replicas=-1))),
        "Number of replicas must be non-negative",
    ),
    (
        template(spec(), resources=ResourceRequirements(limits=Limit(nano_cpus=500_000))),
        "invalid cpu value 0.0005: Must be at least 0.001",
    ),
    (
        template(spec(), resources=ResourceRequirements(reservations=Resources(memory_bytes=4095 * 1024))),
        "invalid memory value 4193280: Must be at least 4MiB",
    ),
    (template(spec(), restart_policy=RestartPolicy(delay=-1)), "TaskSpec: restart-delay cannot be negative"),
    (template(spec(), restart_policy=RestartPolicy(window=-1)), "TaskSpec: restart-window cannot be negative"),
    (
        template(spec(), placement=Placement(constraints=["node.role=manager"])),
        "constraint expected one operator from ==, !=",
    ),
    (replace(spec(), update_config=UpdateConfig(delay=-1)), "TaskSpec: update-delay cannot be negative"),
    (replace(spec(), update_config=UpdateConfig(monitor=-1)), "TaskSpec: update-monitor cannot be negative"),
    (
        replace(spec(), update_config=UpdateConfig(max_failure_ratio=1.1)),
        "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    (replace(spec(), rollback_config=UpdateConfig(delay=-1)), "TaskSpec: rollback-delay cannot be negative"),
    (
        replace(spec(), update_config=UpdateConfig(failure_action="panic")),
        "unrecognized update failure action panic",
    ),
    (replace(spec(), update_config=UpdateConfig(order="random")), "unrecognized update order random"),
    (
        replace(spec(), rollback_config=UpdateConfig(failure_action="rollback")),
        "unrecognized rollback failure action rollback",
    ),
    (
        spec(healthcheck=replace(HEALTH, interval=1000)),
        "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
    ),
    (
        spec(healthcheck=replace(HEALTH, start_period=-SECOND)),
        "ContainerSpec: StartPeriod in HealthConfig cannot be less than 1ms",
    ),
    (spec(healthcheck=replace(HEALTH, retries=-1)), "ContainerSpec: Retries in HealthConfig cannot be negative"),
    (
        spec(mounts=[Mount(source="a", target="/x"), Mount(source="b", target="/x")]),
        "ContainerSpec: duplicate mount point: /x",
    ),
    (spec(mounts=[Mount(source="a", target="x")]), "invalid mount target, must be an absolute path: x"),
    (
        spec(mounts=[Mount(type="bind", source="a", target="/x")]),
        "invalid bind mount source, must be an absolute path: a",
    ),
    (
        spec(mounts=[Mount(source="/a", target="/x")]),
        "invalid volume mount source, must not be an absolute path: /a",
    ),
    (
        spec(mounts=[Mount(type="tmpfs", source="a", target="/x")]),
        "invalid tmpfs source, source must be empty",
    ),
    (ports(HTTP, replace(HTTP, target_port=81)), "EndpointSpec: duplicate published ports provided"),
    (
        ports(HTTP, mode="dnsrr"),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        attached("ingress"),
        'Service cannot be explicitly attached to the ingress network "ingress"',
    ),
    (spec(secrets=[replace(SECRET, secret_name="")]), "malformed secret reference"),
    (spec(secrets=[replace(SECRET, file=None)]), "malformed secret reference, no target provided"),
    (
        spec(secrets=[replace(SECRET, file=FileTarget())]),
        "malformed file secret reference, invalid target file name provided",
    ),
    (
        spec(secrets=[SECRET, SECRET]),
        "secret references 'password' and 'password' have a conflicting target: 'pw'",
    ),
    (spec(secrets=[replace(SECRET, secret_id="other")]), "secret not found: password"),
    (spec(secrets=[replace(SECRET, secret_name="other")]), "secret not found: other"),
    (
        spec(
            secrets=[
                replace(SECRET, secret_id="x", secret_name="x"),
                replace(SECRET, secret_id="y", secret_name="y", file=FileTarget(name="y")),
            ]
        ),
        "secrets not found: x, y",
    ),
    (spec(configs=[replace(CONFIG, config_id="other")]), "config not found: settings"),
    (
        spec(privileges=Privileges(credential_spec=CredentialSpec(config="cid"))),
        "CredentialSpec references config 'cid', but that config isn't in config references with RuntimeTarget",
    ),
    (
        spec(hostname="{{.Nope}}"),
        (
            'expanding hostname failed: template: expansion:1:2: executing "expansion" at <.Nope>: '
            "can't evaluate field Nope in type *template.Context"
        ),
    ),
    (spec(env=["A={{"]), 'expanding env failed: expanding env "A={{": template: expansion:1: unclosed action'),
    (
        spec(mounts=[Mount(target="/{{.Task.Slot}}"), Mount(target="/1")]),
        "ContainerSpec: duplicate mount point: /1",
    ),
    (spec(mounts=[Mount(type="npipe", target="x")]), "invalid npipe source, source must not be empty"),
]


@pytest.mark.parametrize(("wanted", "words"), REFUSED, ids=[words[:60] for _, words in REFUSED])
def test_refused(wanted: ServiceSpec, words: str) -> None:
    assert refused(wanted) == (400, INVALID + words)


def test_what_is_right_next_to_what_is_wrong() -> None:
    for wanted in (
        spec(
            secrets=[SECRET],
            configs=[CONFIG, ConfigReference(config_id="config-id", config_name="settings", runtime={})],
        ),
        template(spec(), resources=ResourceRequirements(limits=Limit(nano_cpus=10**6, memory_bytes=4 * 1024**2))),
        ports(HTTP, replace(HTTP, protocol="udp"), PortConfig(target_port=1), PortConfig(target_port=1)),
        ports(replace(HTTP, publish_mode="host"), mode="dnsrr"),
        spec("a-b_c1", healthcheck=replace(HEALTH, interval=10**6)),
        spec(mounts=[Mount(source="data-{{.Task.Slot}}", target="/data"), Mount(target="/anonymous")]),
    ):
        assert admit.create(snapshot(), wanted)


def test_a_service_has_one_mode() -> None:
    both = replace(spec(), mode=ServiceMode(replicated=ReplicatedService(), global_={}))
    assert refused(both) == (400, "must specify only one service mode")


def job(**given: int) -> ServiceSpec:
    return replace(spec(), mode=ServiceMode(replicated_job=ReplicatedJob(**given)))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({}, (1, 1)),
        ({"max_concurrent": 3}, (3, 3)),
        ({"total_completions": 5}, (1, 5)),
        ({"max_concurrent": 0}, (0, 0)),
    ],
)
def test_a_job_has_as_many_tasks_as_run_at_once_if_it_does_not_say(
    given: dict[str, int], stored: tuple[int, int]
) -> None:
    made = admit.create(snapshot(), job(**given))
    mode = made.spec.mode.replicated_job
    assert mode is not None
    assert (mode.max_concurrent, mode.total_completions) == stored
    assert made.job_status == JobStatus(iteration=0, last_execution=snapshot().now)


def test_every_update_of_a_job_executes_it_again() -> None:
    made = admit.create(snapshot(), job())
    again = admit.update(snapshot(made), made, replace(made.spec, labels={"a": "b"}))
    assert again.job_status is not None
    assert again.job_status.iteration == 1
    back = admit.update(snapshot(again), again, again.spec, rollback=True)
    assert back.job_status is not None
    assert (back.job_status.iteration, back.spec, back.update_status) == (2, made.spec, None)


def test_what_jobs_may_not_have() -> None:
    assert refused(replace(job(), update_config=UpdateConfig())) == (
        400,
        INVALID + "Jobs may not have an update config",
    )
    words = "Maximum concurrent jobs must not be negative"
    assert refused(job(max_concurrent=-1)) == (400, INVALID + words)
    assert refused(job(total_completions=-1)) == (400, INVALID + "Total completed jobs must not be negative")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (ServiceSpec(name="web"), "mismatched Runtime and *Spec fields"),
        (template(spec(), runtime="plugin"), "mismatched Runtime and *Spec fields"),
        (
            template(spec(), runtime="plugin", plugin_spec={"Name": "x"}),
            'runtime type "plugin" only supported in experimental',
        ),
        (
            replace(
                template(spec(), runtime="plugin", plugin_spec={}), mode=ServiceMode(replicated=ReplicatedService())
            ),
            "plugins must not use replicated mode",
        ),
        (template(spec(), runtime="attachment", network_attachment_spec={}), "unsupported runtime"),
        (spec(configs=[replace(CONFIG, file=None)]), "invalid Config: either File or Runtime should be set"),
        (spec(configs=[replace(CONFIG, runtime={})]), "invalid Config: cannot specify both File and Runtime"),
        (spec(mounts=[Mount(type="nfs", target="/x")]), 'invalid MountType: "nfs"'),
        (
            spec(mounts=[Mount(type="bind", source="/x", target="/x", bind_options=BindOptions(propagation="all"))]),
            'invalid MountPropagation: "all"',
        ),
        (
            spec(privileges=Privileges(credential_spec=CredentialSpec())),
            'invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec',
        ),
        (
            spec(privileges=Privileges(credential_spec=CredentialSpec(file="f", registry="r"))),
            'invalid CredentialSpec: cannot specify both "file" and "registry" credential specs',
        ),
        (
            template(spec(), resources=ResourceRequirements(swap_bytes=1)),
            "memory swap provided, but no memory-limit was set",
        ),
    ],
)
def test_what_docker_cannot_even_read(wanted: ServiceSpec, words: str) -> None:
    assert refused(wanted) == (400, words)


def test_templates_see_the_labels_of_the_service_and_other_runtimes_are_left_out() -> None:
    labelled = replace(spec(hostname="{{.Service.Labels.a}}"), labels={"a": "1"})
    stored = admit.create(snapshot(), template(labelled, runtime="container", plugin_spec={"Name": "x"})).spec
    assert (stored.task_template.runtime, stored.task_template.plugin_spec) == ("", None)


def test_mounts_that_need_what_is_not_here_are_admitted_and_their_tasks_say_it() -> None:
    cluster = Mount(type="Cluster", source="group:fast", target="/v")
    pipe = Mount(type="npipe", source="x", target="pipe")
    stored = admit.create(snapshot(), spec(mounts=[cluster, pipe])).spec.task_template.container_spec
    assert stored is not None
    assert [m.type for m in stored.mounts] == ["cluster", "npipe"]


def test_networks_that_are_not_there() -> None:
    assert refused(attached("nowhere")) == (404, "network nowhere not found")
    assert refused(attached("backend-old")) == (404, "network backend-old not found")
    twins = [Network(id=f"twin-{n}", spec=NetworkSpec(name=f"t{n}")) for n in (1, 2)]
    assert refused(attached("twin"), *twins) == (400, "network twin is ambiguous (2 matches found)")


def test_ports_in_ingress_mode_need_the_ingress_network() -> None:
    with pytest.raises(Refused) as caught:
        admit.create(Snapshot(), ports(HTTP))
    assert caught.value.status == 400
    assert caught.value.message == (
        "rpc error: code = FailedPrecondition desc = service needs ingress network, but no ingress network is present"
    )
    assert admit.create(Snapshot(), ports(replace(HTTP, publish_mode="host")))


# ---- what others have ------------------------------------------------------------------------------------------


def test_a_name_is_given_once() -> None:
    there = Service(id="s1", spec=spec())
    assert refused(spec(), there) == (
        409,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
    )
    assert admit.create(snapshot(admit.remove(snapshot(), there)), spec()).id != "s1"


HOST = replace(HTTP, publish_mode="host")


@pytest.mark.parametrize(
    ("theirs", "mine", "how"),
    [
        (HTTP, HTTP, "as an ingress port"),
        (HTTP, HOST, "as an ingress port"),
        (HOST, HTTP, "as a host-published port"),
    ],
)
def test_ports_that_others_publish(theirs: PortConfig, mine: PortConfig, how: str) -> None:
    other = Service(id="s1", spec=replace(ports(theirs), name="other"))
    assert refused(ports(mine), other) == (
        400,
        f"{INVALID}port '8080' is already in use by service 'other' (s1) {how}",
    )
    drawn = Service(id="s1", spec=replace(ports(), name="other"), endpoint=Endpoint(ports=[theirs]))
    assert refused(ports(mine), drawn)[0] == 400
    assert admit.create(snapshot(replace(other, pending_delete=True)), ports(mine)), "it is being removed"
    assert admit.create(snapshot(other), ports(replace(mine, protocol="udp")))


def test_two_services_may_publish_a_port_in_host_mode() -> None:
    other = Service(id="s1", spec=replace(ports(HOST), name="other"))
    assert admit.create(snapshot(other), ports(HOST))


# ---- update ----------------------------------------------------------------------------------------------------


def existing(of: ServiceSpec | None = None, **fields: object) -> Service:
    return replace(admit.create(snapshot(), of or spec()), **fields)


def test_an_update_that_outdates_tasks() -> None:
    there = existing(spec_version=7, update_status=UpdateStatus(), endpoint=Endpoint())
    new = admit.update(snapshot(there), there, spec(image="nginx:2"))
    assert new.id == there.id
    assert new.previous_spec == there.spec
    assert new.spec.task_template.container_spec.image == "nginx:2"
    assert new.spec_version > 40
    assert new.update_status is None
    assert new.endpoint == there.endpoint
    later = admit.update(snapshot(new), replace(new, spec_version=90), spec(image="nginx:3"))
    assert later.spec_version == 91, "always greater than before"


@pytest.mark.parametrize(
    ("old", "new", "outdated"),
    [
        (spec(), replace(spec(), labels={"a": "b"}), False),
        (spec(), replace(spec(), mode=ServiceMode(replicated=ReplicatedService(replicas=5))), False),
        (spec(), replace(spec(), update_config=UpdateConfig(parallelism=2)), False),
        (ports(HTTP), ports(replace(HTTP, published_port=81)), False),  # the mesh is told, tasks need not know
        (ports(HTTP), ports(HTTP, replace(HTTP, published_port=81)), False),
        (spec(), ports(HTTP), True),  # tasks must be in the ingress network
        (ports(HOST), ports(replace(HOST, published_port=81)), True),
        (spec(), template(spec(), force_update=1), True),
        (spec(), attached("backend"), True),
        (attached("backend-id"), attached("backend"), False),
        (spec(), template(spec(), placement=Placement(constraints=["node.role==worker"])), True),
        (spec(), spec(env=["A=b"]), True),
    ],
)
def test_what_outdates_tasks(old: ServiceSpec, new: ServiceSpec, *, outdated: bool) -> None:
    there = existing(old, spec_version=3)
    assert (admit.update(snapshot(there), there, new).spec_version != 3) is outdated


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (spec("other"), "renaming services is not supported"),
        (replace(spec(), mode=ServiceMode(global_={})), "service mode change is not allowed"),
    ],
)
def test_what_an_update_cannot_do(new: ServiceSpec, words: str) -> None:
    there = existing()
    with pytest.raises(Refused) as caught:
        admit.update(snapshot(there), there, new)
    assert (caught.value.status, caught.value.message) == (501, f"rpc error: code = Unimplemented desc = {words}")


def test_an_update_does_not_collide_with_itself() -> None:
    there = existing(ports(HTTP))
    assert admit.update(snapshot(there), there, ports(HTTP))


def test_a_rollback_swaps_the_specs() -> None:
    first = existing()
    second = admit.update(snapshot(first), first, spec(image="nginx:2"))
    back = admit.update(snapshot(second), second, ServiceSpec(), rollback=True)
    assert back.spec == first.spec
    assert back.previous_spec == second.spec
    assert back.spec_version > second.spec_version
    assert back.update_status == UpdateStatus(
        state=UpdateState.ROLLBACK_STARTED, started_at=99.0, message="manually requested rollback"
    )
    with pytest.raises(Refused) as caught:
        admit.update(snapshot(first), first, ServiceSpec(), rollback=True)
    assert caught.value.status == 400
    assert caught.value.message == (
        f"rpc error: code = FailedPrecondition desc = service {first.id} does not have a previous spec"
    )


def test_removal_is_a_wish_that_the_reaper_fulfils() -> None:
    there = existing()
    assert admit.remove(snapshot(there), there) == replace(there, pending_delete=True)


def test_who_knows_the_specification_may_change_it_whatever_else_was_written() -> None:
    before = Snapshot.of([], rev=7)
    made = replace(admit.create(before, spec()), rev=before.rev + 1)
    assert not admit.is_read(made, before.rev)
    progress = replace(made, rev=made.rev + 5, update_status=UpdateStatus())
    assert admit.is_read(progress, made.rev)
    assert not admit.is_read(progress, progress.rev + 1)
    later = Snapshot.of([progress], rev=progress.rev + 1)
    changed = replace(admit.update(later, progress, spec()), rev=later.rev + 1)
    assert not admit.is_read(changed, progress.rev)
    assert admit.is_read(changed, changed.rev)
