"""Every key of the compose specification becomes something, or is said not to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterswarm.core.dependencies import LABEL
from afterswarm.core.options import table
from afterswarm.model.service import Mount, Platform, PortConfig, RestartPolicy, ServiceSpec, TmpfsOptions
from afterswarm.stack import convert as converting
from afterswarm.stack import options, template
from afterswarm.stack.convert import Stack, Wanted, convert, in_order
from afterswarm.stack.names import Names, Trouble

SCHEMA = Path(__file__).parents[3] / "shared" / "data" / "compose-spec.json"  # of the compose specification itself

READ = {  # keys of services that no table names: their code is in template.py, mounts.py, files.py and convert.py
    *("build", "cap_add", "cap_drop", "command", "configs", "container_name", "cpus", "credential_spec", "deploy"),
    *("dns", "dns_opt", "dns_search", "entrypoint", "environment", "extra_hosts", "group_add", "healthcheck"),
    *("hostname", "image", "init", "isolation", "labels", "links", "logging", "mem_limit", "network_mode"),
    *("networks", "oom_score_adj", "pids_limit", "platform", "ports", "pull_policy", "read_only", "restart", "scale"),
    *("secrets", "stdin_open", "stop_grace_period", "stop_signal", "sysctls", "tmpfs", "tty", "ulimits", "user"),
    *("volumes", "working_dir"),
}
RESOLVED = {"env_file", "extends", "label_file", "profiles"}  # Compose has done them
HARMLESS = {"attach", "develop", "expose"}  # about `docker compose up` and `watch`; nothing to do for a swarm


def stacked(services: dict[str, Any], **more: Any) -> tuple[Stack, Trouble]:
    trouble = Trouble()
    model = {"name": "p", "services": services, **more}
    return convert(model, Names("Shop", "p"), {"KEY": "value"}, trouble), trouble


def one(**keys: Any) -> ServiceSpec:
    made, trouble = stacked({"web": {"image": "nginx", **keys}})
    assert not trouble.refused
    assert not trouble.notes
    return made.services[0].spec


def container(**keys: Any) -> Any:
    return one(**keys).task_template.container_spec


def label(name: str, **keys: Any) -> str:
    return one(**keys).labels[f"afterswarm.{name}"]


def refused(**keys: Any) -> list[str]:
    return stacked({"web": {"image": "nginx", **keys}})[1].refused


def noted(**keys: Any) -> list[str]:
    return stacked({"web": {"image": "nginx", **keys}})[1].notes


@pytest.mark.skipif(not SCHEMA.exists(), reason="the schema is not here")
def test_no_key_of_a_service_is_forgotten() -> None:
    known = set(json.loads(SCHEMA.read_text())["definitions"]["service"]["properties"])
    tables = {*options.PLAIN, *options.OWN, *converting.IMPOSSIBLE, *converting.UNDONE}
    assert known - READ - RESOLVED - HARMLESS - tables == set()


def test_labels_are_those_that_the_swarm_knows() -> None:
    own = {"blkio-weight", "blkio-weight-device", "device-read-bps", "devices", "device-requests", "security-opt"}
    assert {name for name, _ in options.PLAIN.values()} | own <= set(table.OPTIONS)
    assert f"{options.PREFIX}depends-on" == LABEL


# ---- what becomes of a service ---------------------------------------------------------------------------------


def test_names_and_labels_are_docker_s() -> None:
    spec = one(labels={"a": 1}, deploy={"labels": {"b": "2"}})
    assert spec.name == "Shop_web"
    assert spec.labels == {"b": "2", "com.docker.stack.namespace": "Shop", "com.docker.stack.image": "nginx"}
    found = spec.task_template.container_spec
    assert found is not None
    assert found.labels == {"a": "1", "com.docker.stack.namespace": "Shop"}


@pytest.mark.parametrize(
    ("keys", "name", "text"),
    [
        ({"privileged": True}, "privileged", "true"),
        ({"shm_size": "67108864"}, "shm-size", "67108864"),
        ({"devices": [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"}]}, "devices", "/dev/a:/dev/b:r"),
        ({"devices": [{"source": "/dev/a,b"}, {"source": "v/c=d"}]}, "devices", '["/dev/a,b:/dev/a,b:rwm","v/c=d"]'),
        ({"gpus": [{"count": -1}]}, "device-requests", '[{"Capabilities":[["gpu"]],"Count":-1}]'),
        (
            {
                "deploy": {
                    "resources": {
                        "reservations": {"devices": [{"driver": "n", "device_ids": ["0"], "capabilities": ["x"]}]}
                    }
                }
            },
            "device-requests",
            '[{"Capabilities":[["x"]],"Driver":"n","DeviceIDs":["0"]}]',
        ),
        (
            {"security_opt": ["seccomp:unconfined", "no-new-privileges"]},
            "security-opt",
            "seccomp=unconfined,no-new-privileges",
        ),
        ({"ipc": "host"}, "ipc", "host"),
        ({"cgroup": "private"}, "cgroupns", "private"),
        ({"mem_reservation": "1024"}, "memory-reservation", "1024"),
        ({"memswap_limit": "-1"}, "memory-swap", "-1"),
        ({"mem_swappiness": "0"}, "memory-swappiness", "0"),
        ({"cpu_quota": 50000.0}, "cpu-quota", "50000"),
        ({"storage_opt": {"size": "1G"}}, "storage-opt", "size=1G"),
        ({"annotations": {"a": "x,y"}}, "annotations", '["a=x,y"]'),
        ({"device_cgroup_rules": ["c 1:3 mr"]}, "device-cgroup-rules", "c 1:3 mr"),
        ({"blkio_config": {"weight": 10}}, "blkio-weight", "10"),
        ({"blkio_config": {"device_read_bps": [{"Path": "/d", "Rate": "5"}]}}, "device-read-bps", "/d:5"),
        (
            {"depends_on": {"b": {"condition": "service_healthy", "required": False}, "a": {}}},
            "depends-on",
            "a:started,b:healthy:optional",
        ),
        (
            {"ports": [{"target": 80, "published": "8080", "host_ip": "127.0.0.1", "protocol": "tcp"}]},
            "publish-ip",
            "127.0.0.1:8080/tcp",
        ),
    ],
)
def test_what_services_have_no_field_for_is_a_label(keys: dict[str, Any], name: str, text: str) -> None:
    labels = one(**keys).labels
    assert labels[f"afterswarm.{name}"] == text
    table.applied(labels, {})  # and the swarm can read it


def test_a_seccomp_profile_is_sent_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{ "defaultAction": "x", "a": [1, 2] }')
    text = label("security-opt", security_opt=[f"seccomp:{tmp_path}/p.json"])
    assert json.loads(text) == ['seccomp={"defaultAction":"x","a":[1,2]}']
    assert "none.json" in refused(security_opt=["seccomp=none.json"])[0]


def test_resources() -> None:
    deploy = {
        "resources": {
            "limits": {"cpus": 0.5, "memory": "100"},
            "reservations": {
                "cpus": "0.1",
                "generic_resources": [{"discrete_resource_spec": {"kind": "ssd", "value": 2}}],
            },
        }
    }
    found = one(deploy=deploy, mem_limit="7", pids_limit=9).task_template.resources
    assert found is not None
    assert found.limits is not None
    assert found.reservations is not None
    assert (found.limits.nano_cpus, found.limits.memory_bytes, found.limits.pids) == (500_000_000, 100, 9)
    assert found.reservations.nano_cpus == 100_000_000
    assert found.reservations.generic_resources[0].discrete_resource_spec == {"Kind": "ssd", "Value": 2}
    short = one(cpus=1.5, mem_limit="7", pids_limit=-1).task_template.resources
    assert short is not None
    assert short.limits is not None
    assert (short.limits.nano_cpus, short.limits.memory_bytes, short.limits.pids) == (1_500_000_000, 7, 0)


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ({}, None),
        ({"restart": "no"}, RestartPolicy(condition="none")),
        ({"restart": "unless-stopped"}, RestartPolicy(condition="any")),
        ({"restart": "on-failure:3"}, RestartPolicy(condition="on-failure", max_attempts=3)),
        (
            {"restart": "always", "deploy": {"restart_policy": {"condition": "none", "delay": "1m30s"}}},
            RestartPolicy(condition="none", delay=90 * 10**9),
        ),
    ],
)
def test_restart(keys: dict[str, Any], policy: RestartPolicy | None) -> None:
    assert one(**keys).task_template.restart_policy == policy


def test_who_is_waited_for_to_complete_does_not_start_again() -> None:
    waits = {"condition": "service_completed_successfully"}
    made, _ = stacked({"a": {"image": "x", "depends_on": {"z": waits}}, "z": {"image": "x"}})
    assert [w.spec.name for w in made.services] == ["Shop_z", "Shop_a"], "and is deployed before"
    assert made.services[0].spec.task_template.restart_policy == RestartPolicy(condition="none")


def test_mounts() -> None:
    volumes = [
        {"type": "volume", "source": "v", "target": "/v", "volume": {"nocopy": True}},
        {"type": "volume", "target": "/anonymous"},
        {"type": "bind", "source": "/a", "target": "/b", "read_only": True, "bind": {"propagation": "rslave"}},
        {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "4096"}},
    ]
    made, _ = stacked(
        {"web": {"image": "x", "volumes": volumes, "tmpfs": ["/run:size=64m,mode=1777,noexec", "/x"]}},
        volumes={"v": {"name": "p_v", "driver": "d", "driver_opts": {"o": "1"}, "labels": {"l": "1"}}},
    )
    found = made.services[0].spec.task_template.container_spec
    assert found is not None
    named, anonymous, bind, tmpfs, run, x = found.mounts
    assert named.source == "Shop_v"
    assert named.volume_options is not None
    assert named.volume_options.labels == {"l": "1", "com.docker.stack.namespace": "Shop"}
    assert named.volume_options.driver_config is not None
    assert anonymous == Mount(type="volume", target="/anonymous")
    assert (bind.source, bind.read_only, bind.bind_options and bind.bind_options.propagation) == ("/a", True, "rslave")
    assert tmpfs.tmpfs_options == TmpfsOptions(size_bytes=4096)
    assert run.tmpfs_options == TmpfsOptions(size_bytes=64 << 20, mode=0o1777, options=[["noexec"]])
    assert x == Mount(type="tmpfs", target="/x", tmpfs_options=TmpfsOptions())


def test_external_things_keep_their_names() -> None:
    made, _ = stacked(
        {
            "web": {
                "image": "x",
                "networks": {"n": None, "host": None},
                "secrets": [{"source": "s", "target": "/run/secrets/s"}],
                "configs": [{"source": "c", "mode": "0440"}],
                "volumes": [{"type": "volume", "source": "v", "target": "/v"}],
            }
        },
        networks={"n": {"name": "other", "external": True}, "host": {"name": "host", "external": True}},
        secrets={"s": {"external": True}},
        configs={"c": {"name": "own-name", "content": "hello"}},
        volumes={"v": {"name": "kept", "external": True}},
    )
    template_ = made.services[0].spec.task_template
    spec = template_.container_spec
    assert spec is not None
    assert [(n.target, n.aliases) for n in template_.networks] == [("host", []), ("other", ["web"])]
    assert spec.secrets[0].file is not None
    assert (spec.secrets[0].secret_name, spec.secrets[0].file.name) == ("s", "s")
    assert spec.configs[0].file is not None
    assert (spec.configs[0].config_name, spec.configs[0].file.name, spec.configs[0].file.mode) == (
        "own-name",
        "c",
        0o440,
    )
    assert spec.mounts[0].source == "kept"
    assert (made.networks, made.external_networks, made.secrets) == ([], ["host", "other"], [])
    assert (made.configs[0].name, made.configs[0].data) == ("own-name", "aGVsbG8=")


def test_secrets_from_the_environment() -> None:
    made, trouble = stacked({}, secrets={"a": {"environment": "KEY"}, "b": {"environment": "NOT_SET"}})
    assert made.secrets[0].data == "dmFsdWU="
    assert trouble.refused == ["secret b: environment variable NOT_SET is not set"]


def test_a_container_s_name_is_an_alias() -> None:
    (attached,) = one(container_name="box").task_template.networks
    assert (attached.target, attached.aliases) == ("Shop_default", ["box", "web"])


def test_ports() -> None:
    ports = [
        {"target": 90, "published": "9000", "protocol": "udp", "mode": "host", "name": "n", "app_protocol": "x"},
        {"target": 80, "protocol": "tcp", "mode": "ingress"},
    ]
    endpoint = one(ports=ports).endpoint_spec
    assert endpoint is not None
    assert endpoint.ports == [
        PortConfig(target_port=80),
        PortConfig(name="n", protocol="udp", target_port=90, published_port=9000, publish_mode="host"),
    ]


def test_small_things() -> None:
    spec = container(
        environment={"B": None, "A": "1"},
        extra_hosts=["h=::1"],
        dns_opt=["ndots:1"],
        group_add=["audio", 44],
        cap_add=["net_admin", "CAP_KILL"],
        cap_drop=["ALL", "kill"],
        ulimits={"nofile": 5},
        healthcheck={"disable": True},
        oom_score_adj=3,
        init=True,
    )
    assert (spec.env, spec.hosts, spec.groups) == (["A=1", "B"], ["::1 h"], ["audio", "44"])
    assert (spec.capability_add, spec.capability_drop) == (["CAP_KILL", "CAP_NET_ADMIN"], ["ALL"])
    assert (spec.healthcheck.test, spec.init, spec.oom_score_adj) == (["NONE"], True, 3)
    assert (spec.ulimits[0].soft, spec.ulimits[0].hard) == (5, 5)
    placement = one(platform="linux/arm64/v8").task_template.placement
    assert placement is not None
    assert placement.platforms == [Platform(os="linux", architecture="arm64")]


@pytest.mark.parametrize(
    ("deploy", "words"),
    [
        ({"mode": "replicated", "replicas": 0}, ("replicated", 0)),
        ({"mode": "replicated-job", "replicas": 3}, ("replicated_job", 3)),
        ({"mode": "global"}, ("global_", None)),
        ({"mode": "global-job"}, ("global_job", None)),
    ],
)
def test_modes(deploy: dict[str, Any], words: tuple[str, int | None]) -> None:
    mode = one(deploy=deploy).mode
    name, many = words
    chosen = getattr(mode, name)
    assert chosen is not None
    if many is not None:
        assert many in (getattr(chosen, "replicas", None), getattr(chosen, "total_completions", None))


# ---- what cannot be had ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"network_mode": "service:db"},
        {"ports": [{"target": 80, "published": "80", "host_ip": "::1", "protocol": "tcp"}]},
        {"ipc": "service:db"},
        {"pid": "container:x"},
        {"volumes_from": ["db"]},
        {"post_start": [{"command": "x"}]},
        {"provider": {"type": "x"}},
        {"models": {"m": None}},
        {"use_api_socket": True},
        {"ports": [{"target": 80, "published": "8000-8010", "protocol": "tcp"}]},
        {"deploy": {"mode": "global", "replicas": 2}},
        {"image": "", "build": {"context": "."}},
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(keys: dict[str, Any]) -> None:
    (line,) = refused(**keys)
    assert line.startswith("service web: ")
    assert "\n" not in line


@pytest.mark.parametrize(
    "keys",
    [
        {"mac_address": "02:00:00:00:00:01"},
        {"links": ["db:alias"]},
        {"pull_policy": "never"},
        {"build": {"context": "."}},
        {"networks": {"default": {"ipv4_address": "10.0.0.5"}}},
        {"cpu_count": 2},
        {"volumes": [{"type": "bind", "source": "/a", "target": "/b", "bind": {"selinux": "z"}}]},
    ],
)
def test_what_is_left_out_is_said_in_one_line(keys: dict[str, Any]) -> None:
    (line,) = noted(**keys)
    assert line.startswith("service web: ")


def test_services_that_wait_for_each_other_are_deployed_all_the_same() -> None:
    """Compose refuses them; here nothing hangs."""
    pair = [Wanted(ServiceSpec(name=n), after=[m]) for n, m in (("a", "b"), ("b", "a"))]
    assert sorted(w.spec.name for w in in_order(pair)) == ["a", "b"]
    assert template.template("web", {"image": "x"}, {}, Names("s", "s"), Trouble(), once=False).container_spec
