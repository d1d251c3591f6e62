"""Rows SV: options of containers, said by real command lines, kept, shown, changed by their `-add` and `-rm` twins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


async def spec_of(cli: Any, name: str = "web") -> Any:
    return json.loads(await cli("service", "inspect", name))[0]["Spec"]


async def container_of(cli: Any, name: str = "web") -> Any:
    return (await spec_of(cli, name))["TaskTemplate"]["ContainerSpec"]


async def create(cli: Any, *flags: str, image: str = "nginx:1", command: tuple[str, ...] = ()) -> None:
    await cli("service", "create", "-d", "-q", "--no-resolve-image", "--name", "web", *flags, image, *command)


async def update(cli: Any, *flags: str) -> Any:
    await cli("service", "update", "-d", "-q", "--no-resolve-image", *flags, "web")
    return await container_of(cli)


def wanted(**container: Any) -> dict[str, Any]:
    return {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", **container}}}


@pytest.mark.row("SV-01")
async def test_sv_01_names(cli: Any, api: Any) -> None:
    await create(cli)
    assert "already exists" in await cli.fails("service", "create", "-d", "--no-resolve-image", "--name", "web", "x")
    long = "n" * 64
    assert "63 characters or fewer" in await cli.fails("service", "create", "--no-resolve-image", "--name", long, "x")
    words = await cli.fails("service", "create", "--no-resolve-image", "--name", "a/b", "x")
    assert "name must be valid as a DNS name component" in words
    service = await api.ok("GET", "/services/web")
    renamed = {**service["Spec"], "Name": "other"}
    status, words = await api.fails("POST", f"/services/web/update?version={service['Version']['Index']}", renamed)
    assert (status, words) == (501, "rpc error: code = Unimplemented desc = renaming services is not supported")
    assert len(await cli("service", "create", "-d", "-q", "--no-resolve-image", "nginx:1")) == 25


@pytest.mark.row("SV-02", "SV-03")
async def test_sv_02_03_labels_of_services_and_of_containers(cli: Any) -> None:
    await create(cli, "-l", "a=1", "--label", "b=2", "--container-label", "c=3")
    assert (await spec_of(cli))["Labels"] == {"a": "1", "b": "2"}
    got = await update(
        cli, "--label-add", "d=4", "--label-rm", "a", "--container-label-add", "e=5", "--container-label-rm", "c"
    )
    assert (await spec_of(cli))["Labels"] == {"b": "2", "d": "4"}
    assert got["Labels"] == {"e": "5"}


@pytest.mark.row("SV-04")
async def test_sv_04_images(cli: Any, api: Any) -> None:
    await create(cli)
    assert (await update(cli, "--image", "nginx:2"))["Image"] == "nginx:2"
    words = 'rpc error: code = InvalidArgument desc = ContainerSpec: "Not An Image" is not a valid repository/tag'
    assert words in await cli.fails("service", "create", "--no-resolve-image", "Not An Image")
    status, words = await api.fails("POST", "/services/create", {"Name": "x", "TaskTemplate": {"ContainerSpec": {}}})
    assert (status, words.split(" desc = ")[1]) == (400, "ContainerSpec: image reference must be provided")


@pytest.mark.row("SV-05")
async def test_sv_05_the_command_line_pins_the_digest_and_asks_for_it_by_way_of_us(
    cli: Any, engine: Any, api: Any
) -> None:
    engine.digests["nginx:1"] = "sha256:" + "a" * 64
    await cli("service", "create", "-d", "-q", "--name", "web", "nginx:1")
    template = (await spec_of(cli))["TaskTemplate"]
    assert template["ContainerSpec"]["Image"] == "nginx:1@sha256:" + "a" * 64
    assert template["Placement"]["Platforms"] == [{"Architecture": "amd64", "OS": "linux"}]
    said = await cli("service", "create", "-d", "-q", "--name", "local", "only-here:1")
    assert "could not be accessed on a registry to record" in said
    assert (await container_of(cli, "local"))["Image"] == "only-here:1"
    await cli("service", "create", "-d", "-q", "--no-resolve-image", "--name", "plain", "nginx:1")
    assert (await container_of(cli, "plain"))["Image"] == "nginx:1"


@pytest.mark.row("SV-05", client="the API")
async def test_sv_05_clients_from_before_1_30_leave_it_to_the_server(api: Any, engine: Any) -> None:
    engine.digests["nginx:latest"] = engine.digests["nginx"] = "sha256:" + "a" * 64
    spec = wanted() | {"TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}}
    answer = await api.ok("POST", "/v1.29/services/create", spec)
    assert answer["Warnings"] == []
    assert (await api.ok("GET", "/services/web"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == (
        "nginx:latest@sha256:" + "a" * 64
    )
    version = (await api.ok("GET", "/services/web"))["Version"]["Index"]
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = "none:1"
    answer = await api.ok("POST", f"/v1.29/services/web/update?version={version}", spec)
    assert answer["Warnings"][0].startswith("image none:1 could not be accessed on a registry to record\nits digest.")


@pytest.mark.row("SV-07")
async def test_sv_07_images_are_always_asked_for_and_one_that_is_here_will_do(cli: Any, live: Any) -> None:
    engines = [agent.engine for agent in live.agents.values()]
    for engine in engines:
        engine.images.add("missing:here")  # from elsewhere: the registry does not have it
    flags = ("-q", "--no-resolve-image", "--update-monitor", "100ms", "--restart-condition", "none")
    await cli("service", "create", *flags, "--name", "web", "--mode", "global", "missing:here")
    assert [of for e in engines for call, of in e.calls if call == "pull"] == ["missing:here"] * 3
    assert [len(e.running()) for e in engines] == [1, 1, 1]


@pytest.mark.row("SV-08", "SV-09", "SV-10", "SV-11")
async def test_sv_08_to_11_commands_environment_user(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE=1\n# no\n")
    await create(
        cli, "--entrypoint", "/bin/sh -c", "-e", "A=1", "--env-file", str(tmp_path / "env"), "-w", "/srv",
        "-u", "1000", "--group", "adm", "--group", "44", command=("echo", "x"),
    )  # fmt: skip
    got = await container_of(cli)
    assert (got["Command"], got["Args"]) == (["/bin/sh", "-c"], ["echo", "x"])
    assert (sorted(got["Env"]), got["Dir"], got["User"]) == (["A=1", "FROM_FILE=1"], "/srv", "1000")
    assert got["Groups"] == ["adm", "44"]
    got = await update(
        cli, "--args", "echo y", "--env-add", "B=2", "--env-rm", "A", "--workdir", "/", "--user", "ann",
        "--group-add", "video", "--group-rm", "adm", "--entrypoint", "/bin/true",
    )  # fmt: skip
    assert (got["Command"], got["Args"]) == (["/bin/true"], ["echo", "y"])
    assert (sorted(got["Env"]), got["Dir"], got["User"]) == (["B=2", "FROM_FILE=1"], "/", "ann")
    assert sorted(got["Groups"]) == ["44", "video"]


@pytest.mark.row("SV-12", "SV-13", "SV-14", "SV-15", "SV-16")
async def test_sv_12_to_16_hostname_terminal_init_stopping_read_only(cli: Any) -> None:
    await create(
        cli, "--hostname", "h", "-t", "--init", "--stop-signal", "SIGUSR1", "--stop-grace-period", "1m", "--read-only"
    )
    got = await container_of(cli)
    assert (got["Hostname"], got["TTY"], got["Init"], got["ReadOnly"]) == ("h", True, True, True)
    assert (got["StopSignal"], got["StopGracePeriod"]) == ("SIGUSR1", 60_000_000_000)
    got = await update(
        cli, "--hostname", "i", "--tty=false", "--init=false", "--read-only=false", "--stop-grace-period", "1s",
        "--stop-signal", "SIGINT",
    )  # fmt: skip
    shown = (got["Hostname"], got.get("TTY", False), got["Init"], got.get("ReadOnly", False))
    assert shown == (
        "i",
        False,
        False,
        False,
    )
    assert (got["StopSignal"], got["StopGracePeriod"]) == ("SIGINT", 1_000_000_000)


@pytest.mark.row("SV-17", "SV-18")
async def test_sv_17_18_hosts_and_dns(cli: Any) -> None:
    await create(
        cli, "--host", "db:10.0.0.9", "--host", "web:10.0.0.8", "--dns", "10.1.1.1", "--dns-search", "a.b",
        "--dns-option", "ndots:1",
    )  # fmt: skip
    got = await container_of(cli)
    assert sorted(got["Hosts"]) == ["10.0.0.8 web", "10.0.0.9 db"]
    assert got["DNSConfig"] == {"Nameservers": ["10.1.1.1"], "Search": ["a.b"], "Options": ["ndots:1"]}
    got = await update(
        cli, "--host-add", "x:10.0.0.7", "--host-rm", "db:10.0.0.9", "--dns-add", "10.1.1.2", "--dns-rm", "10.1.1.1",
        "--dns-search-add", "c.d", "--dns-search-rm", "a.b", "--dns-option-add", "timeout:1",
        "--dns-option-rm", "ndots:1",
    )  # fmt: skip
    assert sorted(got["Hosts"]) == ["10.0.0.7 x", "10.0.0.8 web"]
    assert got["DNSConfig"] == {"Nameservers": ["10.1.1.2"], "Search": ["c.d"], "Options": ["timeout:1"]}


@pytest.mark.row("SV-19", "SV-20", "SV-21")
async def test_sv_19_to_21_capabilities_sysctls_ulimits(cli: Any) -> None:
    await create(
        cli, "--cap-add", "net_admin", "--cap-drop", "ALL", "--sysctl", "net.core.somaxconn=1",
        "--sysctl", "kernel.msgmax=2", "--ulimit", "nofile=1:2",
    )  # fmt: skip
    got = await container_of(cli)
    assert (got["CapabilityAdd"], got["CapabilityDrop"]) == (["CAP_NET_ADMIN"], ["ALL"])
    assert got["Sysctls"] == {"net.core.somaxconn": "1", "kernel.msgmax": "2"}
    assert got["Ulimits"] == [{"Name": "nofile", "Hard": 2, "Soft": 1}]
    got = await update(
        cli, "--cap-add", "CAP_SYS_TIME", "--cap-drop", "net_admin", "--sysctl-add", "net.ipv4.ip_forward=1",
        "--sysctl-rm", "kernel.msgmax", "--ulimit-add", "nproc=3", "--ulimit-rm", "nofile",
    )  # fmt: skip
    assert got["CapabilityAdd"] == ["CAP_SYS_TIME"]
    assert got["Sysctls"] == {"net.core.somaxconn": "1", "net.ipv4.ip_forward": "1"}
    assert got["Ulimits"] == [{"Name": "nproc", "Hard": 3, "Soft": 3}]


@pytest.mark.row("SV-22", client="docker 28.2")
async def test_sv_22_what_is_killed_first(newest: Any) -> None:
    await create(newest, "--oom-score-adj", "500")
    assert (await container_of(newest))["OomScoreAdj"] == 500
    assert (await update(newest, "--oom-score-adj", "-5"))["OomScoreAdj"] == -5


@pytest.mark.row("SV-23", client="the API")
async def test_sv_23_privileges(api: Any) -> None:
    privileges = {
        "SELinuxContext": {"Disable": True, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
        "Seccomp": {"Mode": "custom", "Profile": "e30="},
        "AppArmor": {"Mode": "disabled"},
        "NoNewPrivileges": True,
        "CredentialSpec": {"File": "spec.json"},
    }
    await api.ok("POST", "/services/create", wanted(Privileges=privileges))
    shown = (await api.ok("GET", "/services/web"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Privileges"]
    assert shown == privileges
    both = {"CredentialSpec": {"File": "a", "Registry": "b"}}
    status, words = await api.fails("POST", "/services/create", wanted(Privileges=both) | {"Name": "x"})
    assert (status, words) == (
        400, 'invalid CredentialSpec: cannot specify both "file" and "registry" credential specs',
    )  # fmt: skip
    status, words = await api.fails("POST", "/services/create", wanted(Privileges={"Seccomp": {"Profile": "%"}}))
    assert (status, words.startswith("invalid JSON")) == (400, True)


@pytest.mark.row("SV-23")
async def test_sv_23_credential_specs_on_the_command_line(cli: Any) -> None:
    await create(cli, "--credential-spec", "file://spec.json")
    assert (await container_of(cli))["Privileges"]["CredentialSpec"]["File"] == "spec.json"


@pytest.mark.row(
    "SV-24", differs="there are no hosts with Windows: an engine on Linux refuses the container, and the task says so"
)
async def test_sv_24_isolation(cli: Any, api: Any) -> None:
    await create(cli)
    assert (await container_of(cli))["Isolation"] == "default"
    assert (await update(cli, "--isolation", "hyperv"))["Isolation"] == "hyperv"
    service = await api.ok("GET", "/services/web")
    await api.ok("POST", f"/services/web/update?version={service['Version']['Index']}", service["Spec"])
    assert (await api.ok("GET", "/services/web"))["Spec"] == service["Spec"], "what is shown can be sent back"


@pytest.mark.row("SV-25")
async def test_sv_25_log_drivers(cli: Any) -> None:
    await create(cli, "--log-driver", "syslog", "--log-opt", "tag=x")
    driver = {"Name": "syslog", "Options": {"tag": "x"}}
    assert (await spec_of(cli))["TaskTemplate"]["LogDriver"] == driver
    await update(cli, "--log-driver", "none")
    assert (await spec_of(cli))["TaskTemplate"]["LogDriver"]["Name"] == "none"


@pytest.mark.row("SV-25", client="the API")
async def test_sv_25_the_swarms_own_log_driver_is_for_services_that_name_none(
    api: Any, live: Any, eventually: Any
) -> None:
    swarm = await api.ok("GET", "/swarm")
    settings = swarm["Spec"] | {"TaskDefaults": {"LogDriver": {"Name": "local", "Options": {"max-size": "1m"}}}}
    await api.ok("POST", f"/swarm/update?version={swarm['Version']['Index']}", settings)
    await api.ok("POST", "/services/create", wanted())
    own = wanted() | {"Name": "own"}
    own["TaskTemplate"]["LogDriver"] = {"Name": "json-file"}
    await api.ok("POST", "/services/create", own)

    async def drivers() -> Any:
        made = [c for a in live.agents.values() for c in a.engine.made.values() if c.running]
        return len(made) == 2 and {c.name.split(".")[0]: c.body["HostConfig"]["LogConfig"] for c in made}

    assert await eventually(drivers) == {
        "web": {"Type": "local", "Config": {"max-size": "1m"}},
        "own": {"Type": "json-file", "Config": {}},
    }


@pytest.mark.row("SV-26", "SV-29")
async def test_sv_26_29_force_makes_new_tasks_of_the_same(cli: Any, live: Any, eventually: Any) -> None:
    await cli("service", "create", "-q", "--name", "web", "--update-monitor", "100ms", "nginx:1")
    (before,) = [c for a in live.agents.values() for c in a.engine.running()]
    assert before.split(".")[:2] == ["web", "1"]
    assert len(before.split(".")[2]) == 25
    await cli("service", "update", "-q", "--force", "web")
    assert (await spec_of(cli))["TaskTemplate"]["ForceUpdate"] == 1
    (after,) = [c for a in live.agents.values() for c in a.engine.running()]
    assert before != after


@pytest.mark.row(
    "SV-27",
    client="the API",
    differs="plugin services are refused as by an engine without experimental features, with status 400",
)
async def test_sv_27_runtimes(api: Any) -> None:
    async def fails(**template: Any) -> tuple[int, str]:
        found: tuple[int, str] = await api.fails("POST", "/services/create", {"Name": "x", "TaskTemplate": template})
        return found

    plugin = {"Name": "p", "Remote": "p:1"}
    assert await fails(Runtime="plugin", PluginSpec=plugin) == (
        400, 'runtime type "plugin" only supported in experimental',
    )  # fmt: skip
    assert await fails(Runtime="plugin") == (400, "mismatched Runtime and *Spec fields")
    assert await fails(Runtime="container") == (400, "mismatched Runtime and *Spec fields")
    assert await fails(Runtime="attachment", NetworkAttachmentSpec={"ContainerID": "x"}) == (400, "unsupported runtime")


@pytest.mark.row("SV-28")
async def test_sv_28_templates_that_are_wrong_are_refused_at_once(cli: Any) -> None:
    words = await cli.fails("service", "create", "--no-resolve-image", "--hostname", "{{.Nope}}", "nginx:1")
    assert "InvalidArgument desc = expanding hostname failed: template: expansion:1:2: executing" in words
    words = await cli.fails("service", "create", "--no-resolve-image", "-e", "A={{env `X`}}", "nginx:1")
    assert 'function "env" not defined' in words
    await create(cli, "--hostname", "{{.Service.Name}}-{{.Task.Slot}}", "-e", 'T={{index .Service.Labels "t"}}')


@pytest.mark.row("SV-31", client="the API")
async def test_sv_31_swap(api: Any, live: Any, eventually: Any) -> None:
    spec = wanted()
    swap = {"SwapBytes": 1 << 20, "MemorySwappiness": 5}
    spec["TaskTemplate"]["Resources"] = swap
    status, words = await api.fails("POST", "/services/create", spec)
    assert (status, words) == (400, "memory swap provided, but no memory-limit was set")
    spec["TaskTemplate"]["Resources"] = {"Limits": {"MemoryBytes": 1 << 26}, **swap}
    await api.ok("POST", "/services/create", spec)
    shown = (await api.ok("GET", "/services/web"))["Spec"]["TaskTemplate"]["Resources"]
    assert (shown["SwapBytes"], shown["MemorySwappiness"]) == (1 << 20, 5)

    async def made() -> Any:
        return [c.body["HostConfig"] for a in live.agents.values() for c in a.engine.made.values()]

    [host] = await eventually(made)
    assert (host["MemorySwap"], host["MemorySwappiness"]) == ((1 << 26) + (1 << 20), 5)
