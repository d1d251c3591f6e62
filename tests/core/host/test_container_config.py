"""The create request of a task, field by field, as Docker's engine reads it."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from afterswarm.core.host import container_config
from afterswarm.core.host.container_config import Place, body
from afterswarm.model.refused import Refused
from afterswarm.model.service import Driver, NetworkAttachmentConfig, Platform, PortConfig, TaskSpec
from afterswarm.model.task import Task

PLACE = Place(node_id="n1", hostname="swarm-1", platform=Platform(architecture="x86_64", os="linux"))
TASK = Task(id="t1", service_id="s1", service_name="shop_web", slot=2)


def made(container_spec, *, task=TASK, spec=None, **more):
    """`container_spec` and `spec` in Docker's own JSON, as a client sends them."""
    wanted = msgspec.convert({"ContainerSpec": container_spec, **(spec or {})}, TaskSpec)
    return body(replace(task, spec=wanted), PLACE, **more)


def test_names_and_labels_are_those_that_tools_parse():
    assert container_config.name(TASK) == "shop_web.2.t1"
    assert container_config.name(replace(TASK, slot=0, node_id="n1")) == "shop_web.n1.t1"
    assert made({"Image": "web", "Labels": {"a": "b"}})["Labels"] == {
        "a": "b",
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": "t1",
        "com.docker.swarm.task.name": "shop_web.2.t1",
        "com.docker.swarm.node.id": "n1",
        "com.docker.swarm.service.id": "s1",
        "com.docker.swarm.service.name": "shop_web",
    }


def test_command_is_the_entrypoint_and_args_the_command():
    both = made({"Image": "web", "Command": ["/bin/sh"], "Args": ["-c", "x"]})
    assert (both["Entrypoint"], both["Cmd"]) == (["/bin/sh"], ["-c", "x"])
    neither = made({"Image": "web"})
    assert "Entrypoint" not in neither
    assert "Cmd" not in neither


def test_the_container_of_a_task_is_never_restarted_by_the_engine():
    config = made({"Image": "web"})["HostConfig"]
    assert config["RestartPolicy"] == {"Name": "no"}
    assert config["AutoRemove"] is False


def test_plain_fields():
    got = made(
        {
            "Image": "web",
            "Dir": "/srv",
            "User": "1000:1000",
            "Groups": ["adm"],
            "TTY": True,
            "OpenStdin": True,
            "Init": True,
            "ReadOnly": True,
            "StopSignal": "SIGQUIT",
            "StopGracePeriod": 1_500_000_000,
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 2},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["ALL"],
            "Sysctls": {"net.core.somaxconn": "10"},
            "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}],
            "OomScoreAdj": 5,
            "Hosts": ["10.0.0.9 db database", ""],
            "Privileges": {"NoNewPrivileges": True, "Seccomp": {"Mode": "unconfined"}},
        }
    )
    assert got["WorkingDir"] == "/srv"
    assert got["User"] == "1000:1000"
    assert got["Tty"] is got["OpenStdin"] is True
    assert (got["StopSignal"], got["StopTimeout"]) == ("SIGQUIT", 2)
    assert got["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 2}
    host = got["HostConfig"]
    assert host["Init"] is host["ReadonlyRootfs"] is True
    assert host["GroupAdd"] == ["adm"]
    assert (host["CapAdd"], host["CapDrop"]) == (["CAP_NET_ADMIN"], ["ALL"])
    assert host["Sysctls"] == {"net.core.somaxconn": "10"}
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 20, "Soft": 10}]
    assert host["OomScoreAdj"] == 5
    assert host["ExtraHosts"] == ["db:10.0.0.9", "database:10.0.0.9"]
    assert host["SecurityOpt"] == ["seccomp=unconfined", "no-new-privileges=true"]


def test_limits_are_the_engines_and_reservations_are_not():
    resources = {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 1 << 26, "Pids": 7},
        "Reservations": {"MemoryBytes": 1 << 25},
    }
    host = made({"Image": "web"}, spec={"Resources": resources})["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 1 << 26, 7)
    assert "MemoryReservation" not in host


def test_mounts_of_all_kinds_go_to_the_engine_as_they_are():
    mounts = [
        {"Type": "volume", "Source": "data-{{.Task.Slot}}", "Target": "/data", "VolumeOptions": {"NoCopy": True}},
        {"Type": "bind", "Source": "/etc", "Target": "/e", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
        {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o700}},
    ]
    got = made({"Image": "web", "Mounts": mounts}, files={"/run/secrets/p": "/run/asw/p"})["HostConfig"]["Mounts"]
    assert [m["Source"] for m in got] == ["data-2", "/etc", "", "/run/asw/p"]
    assert got[0]["VolumeOptions"] == {"NoCopy": True}
    assert got[1]["BindOptions"] == {"Propagation": "rslave"}
    assert got[2]["TmpfsOptions"] == {"SizeBytes": 4096, "Mode": 0o700}
    assert got[3] == {"Type": "bind", "Source": "/run/asw/p", "Target": "/run/secrets/p", "ReadOnly": True}
    assert all(None not in m.values() for m in got)


def test_the_first_network_is_given_at_creation_with_its_mac_address_where_old_engines_read_it():
    endpoints = [("backend", {"IPAMConfig": {"IPv4Address": "10.0.1.5"}, "MacAddress": "02:42:0a:00:01:05"})]
    got = made({"Image": "web"}, endpoints=[*endpoints, ("other", {})], dns=["10.0.1.2"])
    assert got["NetworkingConfig"] == {"EndpointsConfig": dict(endpoints)}
    assert got["MacAddress"] == "02:42:0a:00:01:05"
    assert got["HostConfig"]["NetworkMode"] == "backend"
    assert got["HostConfig"]["Dns"] == ["10.0.1.2"]


def test_own_nameservers_are_the_engines_only_without_a_resolver_of_ours():
    spec = {"Image": "web", "DNSConfig": {"Nameservers": ["9.9.9.9"], "Search": ["x"], "Options": ["ndots:1"]}}
    assert made(spec)["HostConfig"]["Dns"] == ["9.9.9.9"]
    with_ours = made(spec, dns=["10.0.1.2"])["HostConfig"]
    assert with_ours["Dns"] == ["10.0.1.2"]
    assert (with_ours["DnsSearch"], with_ours["DnsOptions"]) == (["x"], ["ndots:1"])


def test_host_mode_ports_are_published_by_the_engine():
    ports = [PortConfig(target_port=80, published_port=8080), PortConfig(target_port=53, protocol="udp")]
    got = made({"Image": "web"}, task=replace(TASK, ports=ports))
    assert got["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert got["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostPort": "8080"}], "53/udp": [{"HostPort": ""}]}


def test_logs_go_where_the_service_says():
    got = made({"Image": "web"}, spec={"LogDriver": {"Name": "local", "Options": {"max-size": "1m"}}})
    assert got["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {"max-size": "1m"}}
    assert "LogConfig" not in made({"Image": "web"})["HostConfig"]


def test_logs_go_where_the_swarm_says_when_the_service_does_not():
    task = replace(TASK, log_driver=Driver(name="syslog"))
    assert made({"Image": "web"}, task=task)["HostConfig"]["LogConfig"] == {"Type": "syslog", "Config": {}}
    own = made({"Image": "web"}, task=task, spec={"LogDriver": {"Name": "local"}})
    assert own["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {}}


def test_templates_name_the_node_the_service_and_the_task():
    got = made({"Image": "web", "Hostname": "{{.Node.Hostname}}-{{ .Task.Slot }}", "Env": ["S={{.Service.Name}}"]})
    assert (got["Hostname"], got["Env"]) == ("swarm-1-2", ["S=shop_web"])
    everywhere = replace(TASK, slot=0, node_id="n1")
    assert made({"Image": "web", "Hostname": "{{.Task.Slot}}"}, task=everywhere)["Hostname"] == "n1"


def test_templates_reach_every_field_of_a_mount_and_no_name_of_a_variable():
    labelled = replace(TASK, service_labels={"disk": "fast"})
    options = {"Labels": {"l": "{{.Task.ID}}"}, "DriverConfig": {"Name": "d", "Options": {"o": "{{.Node.ID}}"}}}
    mounts = [{"Type": "volume", "Source": "{{.Task.Name}}", "Target": "/{{.Task.Slot}}", "VolumeOptions": options}]
    env = ["{{.Task.ID}}={{index .Service.Labels `disk`}}", "{{.Task.ID}}"]
    got = made({"Image": "web", "Mounts": mounts, "Env": env}, task=labelled)
    assert got["Env"] == ["{{.Task.ID}}=fast", "{{.Task.ID}}"]
    [mount] = got["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"]) == ("shop_web.2.t1", "/2")
    assert mount["VolumeOptions"] == {"Labels": {"l": "t1"}, "DriverConfig": {"Name": "d", "Options": {"o": "n1"}}}


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"Hostname": "{{.Nope}}"}, "expanding hostname failed: template: expansion:1:2:"),
        (
            {"Env": ["A={{env `HOME`}}"]},
            'expanding env failed: expanding env "A={{env `HOME`}}": template: expansion:1:',
        ),
        ({"Mounts": [{"Source": "{{", "Target": "/x"}]}, 'expanding mounts failed: expanding mount source "{{": templ'),
    ],
)
def test_a_template_that_is_wrong_is_refused_in_dockers_words(spec, where):
    with pytest.raises(Refused) as refused:
        made({"Image": "web", **spec})
    assert refused.value.message.startswith(where)


def test_options_that_services_lack_come_from_labels_of_the_service():
    labelled = replace(TASK, service_labels={"afterswarm.shm-size": "1m", "afterswarm.security-opt": "label=disable"})
    host = made({"Image": "web", "Privileges": {"NoNewPrivileges": True}}, task=labelled)["HostConfig"]
    assert (host["ShmSize"], host["SecurityOpt"]) == (1 << 20, ["no-new-privileges=true", "label=disable"])


def test_privileges_of_all_kinds_are_security_options():
    privileges = {
        "CredentialSpec": {"Config": "c1"},
        "SELinuxContext": {"Disable": True, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
        "Seccomp": {"Mode": "custom", "Profile": "e30="},
        "AppArmor": {"Mode": "disabled"},
    }
    assert made({"Image": "web", "Privileges": privileges})["HostConfig"]["SecurityOpt"] == [
        "credentialspec=config://c1",
        "label=disable",
        "label=user:u",
        "label=role:r",
        "label=type:t",
        "label=level:l",
        "seccomp={}",
        "apparmor=unconfined",
    ]
    usual = {"Seccomp": {"Mode": "default"}, "AppArmor": {"Mode": "default"}}
    assert made({"Image": "web", "Privileges": usual})["HostConfig"]["SecurityOpt"] == []


def test_swap_is_beyond_memory_and_nothing_without_it():
    def host(**resources):
        return made({"Image": "web"}, spec={"Resources": resources})["HostConfig"]

    limits = {"MemoryBytes": 1 << 26}
    assert host(Limits=limits, SwapBytes=1 << 20)["MemorySwap"] == (1 << 26) + (1 << 20)
    assert host(Limits=limits, SwapBytes=0, MemorySwappiness=0) | {
        "MemorySwap": 1 << 26,
        "MemorySwappiness": 0,
    } == host(Limits=limits, SwapBytes=0, MemorySwappiness=0)
    assert host(Limits=limits, SwapBytes=-1)["MemorySwap"] == -1
    assert "MemorySwap" not in host(Limits={"NanoCPUs": 1}, SwapBytes=1)


@pytest.mark.parametrize("target", ["host", "bridge", "none"])
def test_networks_that_every_engine_has(target: str) -> None:
    spec = TaskSpec(networks=[NetworkAttachmentConfig(target=target)])
    made = container_config.body(Task(id="t", spec=spec), container_config.Place(node_id="n"))
    assert made["HostConfig"]["NetworkMode"] == target
