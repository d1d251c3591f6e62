"""Rows NW: networks and ports by the docker command lines. What only real hosts show is in tests/e2e."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from afterswarm.model.guest import Guest
from afterswarm.model.network import Network

LABEL = "io.afterswarm.network"
VXLANS = "com.docker.network.driver.overlay.vxlanid_list"


async def inspect(cli: Any, name: str, *options: str) -> Any:
    [found] = json.loads(await cli("network", "inspect", *options, name))
    return found


async def service(cli: Any, name: str) -> Any:
    [found] = json.loads(await cli("service", "inspect", name))
    return found


async def names(cli: Any, *filters: str) -> set[str]:
    options = [word for each in filters for word in ("--filter", each)]
    return set((await cli("network", "ls", "--format", "{{.Name}}", *options)).split())


async def serve(cli: Any, name: str, *options: str) -> None:
    await cli("service", "create", "-d", "--no-resolve-image", "--name", name, *options, "app")


@pytest.mark.row("NW-01", "NW-16")
async def test_nw_01_create(live: Any, cli: Any, eventually: Any) -> None:
    made = await cli(
        "network", "create", "-d", "overlay", "--attachable", "--internal", "--subnet", "10.5.0.0/22", "--gateway",
        "10.5.0.9", "--ip-range", "10.5.2.0/24", "--aux-address", "router=10.5.2.3", "--label", "tier=db", "back",
    )  # fmt: skip
    assert len(made) == 25
    shown = await inspect(cli, "back")
    assert (shown["Id"], shown["Driver"], shown["Scope"]) == (made, "overlay", "swarm")
    assert (shown["Attachable"], shown["Internal"], shown["Ingress"]) == (True, True, False)
    assert shown["Labels"] == {"tier": "db"}
    [pool] = shown["IPAM"]["Config"]
    assert pool == {
        "Subnet": "10.5.0.0/22",
        "IPRange": "10.5.2.0/24",
        "Gateway": "10.5.0.9",
        "AuxiliaryAddresses": {"router": "10.5.2.3"},
    }
    await serve(cli, "web", "--network", "back", "--replicas", "2")

    async def addresses() -> Any:
        tasks = json.loads(await cli("service", "ps", "-q", "web") and "[]")
        found = (await cli("service", "ps", "-q", "--filter", "desired-state=running", "web")).split()
        tasks = json.loads(await cli("inspect", "--type", "task", *found))
        return len(tasks) == 2 and [t["NetworksAttachments"][0]["Addresses"][0] for t in tasks]

    given = await eventually(addresses)
    assert all(a.startswith("10.5.2.") and a.endswith("/22") for a in given), "from the range, not the router's"
    assert "10.5.2.3/22" not in given


@pytest.mark.row("NW-01")
async def test_nw_01_what_is_refused(api: Any, cli: Any) -> None:
    async def refused(*options: str) -> str:
        return str(await cli.fails("network", "create", "-d", "overlay", *options, "wrong"))

    assert "Pool overlaps with other one on this address space" in await refused("--subnet", "10.0.0.0/16")
    assert "invalid subnet" in await refused("--subnet", "10.1.0.0.0/24")
    assert "ingress network (" in (words := await refused("--ingress"))
    assert "is already present" in words
    assert "ingress network cannot be attachable" in await refused("--ingress", "--attachable")
    await cli("network", "create", "-d", "overlay", "taken")
    assert "network with name taken already exists" in await cli.fails("network", "create", "-d", "overlay", "taken")
    assert "predefined" in await cli.fails("network", "create", "-d", "overlay", "--scope", "swarm", "host")
    assert "several IPv4 subnets" in await refused("--subnet", "10.1.0.0/24", "--subnet", "10.2.0.0/24")
    assert {n.name for n in api.stored(Network)} == {"ingress", "taken"}


@pytest.mark.row("NW-02")
async def test_nw_02_options(live: Any, cli: Any, eventually: Any) -> None:
    driver = "com.docker.network.driver"
    await cli("network", "create", "-d", "overlay", "-o", f"{driver}.mtu=1400", "-o", f"{VXLANS}=4999", "tuned")
    shown = await inspect(cli, "tuned")
    assert shown["Options"] == {f"{driver}.mtu": "1400", VXLANS: "4999"}
    await cli("network", "create", "-d", "overlay", "plain")

    async def vni() -> Any:
        return (await inspect(cli, "plain"))["Options"].get(VXLANS)

    assert int(await eventually(vni)) >= 4096
    words = await cli.fails("network", "create", "-d", "overlay", "-o", f"{VXLANS}=4999", "again")
    assert "vxlan id 4999 is in use" in words


@pytest.mark.row("NW-02")
async def test_nw_02_encrypted(api: Any, cli: Any) -> None:
    await cli("network", "create", "-d", "overlay", "--opt", "encrypted", "secret")
    assert "encrypted" in (await inspect(cli, "secret"))["Options"]


@pytest.mark.row("NW-19")
async def test_nw_19_ipv6(live: Any, cli: Any, eventually: Any) -> None:
    await cli("network", "create", "-d", "overlay", "--ipv6", "--subnet", "fd00:5::/64", "six")
    await cli("network", "create", "-d", "overlay", "--ipv6", "drawn")

    async def pools(name: str) -> Any:
        shown = await inspect(cli, name)
        assert shown["EnableIPv6"] is True
        return len(shown["IPAM"]["Config"]) == 2 and shown["IPAM"]["Config"]

    first, second = await eventually(lambda: pools("six"))
    assert ":" not in first["Subnet"]
    assert second == {"Subnet": "fd00:5::/64", "Gateway": "fd00:5::1"}
    assert (await eventually(lambda: pools("drawn")))[1]["Subnet"].startswith("fd")
    await serve(cli, "web", "--network", "six")
    addresses = json.loads(await cli("service", "inspect", "web"))[0]["Endpoint"]["VirtualIPs"]
    assert [":" in ip["Addr"] for ip in addresses] == [False, True]
    task = (await cli("service", "ps", "-q", "--no-trunc", "web")).split()[0]
    [there] = json.loads(await cli("inspect", "--type", "task", task))[0]["NetworksAttachments"]
    assert [":" in address for address in there["Addresses"]] == [False, True]
    words = await cli.fails("network", "create", "-d", "overlay", "--ipv6", "--subnet", "fd00:5::/80", "again")
    assert "Pool overlaps" in words


@pytest.mark.row("NW-03")
async def test_nw_03_remove(live: Any, api: Any, cli: Any, engine: Any) -> None:
    await cli("network", "create", "-d", "overlay", "back")
    await serve(cli, "web", "--network", "back")
    words = await cli.fails("network", "rm", "back")
    assert "in use by service" in words
    await cli("service", "rm", "web")
    assert await cli("network", "rm", "back") == "back"
    assert "nope" in await cli.fails("network", "rm", "nope")
    await cli("network", "create", "-d", "overlay", "spare")
    assert "spare" in await cli("network", "prune", "-f")
    assert "spare" not in await names(cli)


@pytest.mark.row("NW-03")
async def test_nw_03_lookups(api: Any, cli: Any) -> None:
    made = await cli("network", "create", "-d", "overlay", "back")
    assert (await inspect(cli, made[:8]))["Name"] == "back"
    ingress = next(n for n in api.stored(Network) if n.spec.ingress)
    twins = [replace(ingress, id=f"{made[:6]}{n}", spec=replace(ingress.spec, name=f"t{n}")) for n in "ab"]
    await api.write(*(replace(t, spec=replace(t.spec, ingress=False)) for t in twins))
    assert "ambiguous" in await cli.fails("network", "inspect", made[:6])
    assert await cli("network", "rm", made[:8]) == made[:8]


@pytest.mark.row("NW-04")
async def test_nw_04_inspect(live: Any, cli: Any, eventually: Any) -> None:
    await cli("network", "create", "-d", "overlay", "back")
    await serve(cli, "web", "--network", "back", "--replicas", "3")

    async def full() -> Any:
        shown = await inspect(cli, "back", "--verbose")
        return len(shown["Services"].get("web", {}).get("Tasks", [])) == 3 and shown

    shown = await eventually(full)
    web = shown["Services"]["web"]
    assert web["VIP"].startswith("10.0.1.")
    assert {t["Info"]["Host IP"] for t in web["Tasks"]} == {p["IP"] for p in shown["Peers"]}
    assert len({t["EndpointIP"] for t in web["Tasks"]}) == 3


@pytest.mark.row("NW-05", "NW-17", "NW-08")
async def test_nw_05_networks_of_a_service(live: Any, cli: Any, eventually: Any) -> None:
    for name in ("front", "back", "side"):
        await cli("network", "create", "-d", "overlay", name)
    await serve(cli, "web", "--network", "name=front,alias=www,alias=site,driver-opt=a=b", "--network", "back")
    ids = {name: (await inspect(cli, name))["Id"] for name in ("front", "back", "side")}
    asked = (await service(cli, "web"))["Spec"]["TaskTemplate"]["Networks"]
    assert next(n for n in asked if n["Target"] == ids["front"]) == {
        "Target": ids["front"],
        "Aliases": ["www", "site"],
        "DriverOpts": {"a": "b"},
    }

    async def virtual(*networks: str) -> Any:
        found = (await service(cli, "web"))["Endpoint"].get("VirtualIPs") or []
        return {v["NetworkID"] for v in found} == {ids[n] for n in networks} and found

    found = await eventually(lambda: virtual("front", "back"))
    kept = next(v for v in found if v["NetworkID"] == ids["back"])
    await cli("service", "update", "-d", "--network-rm", "front", "--network-add", "side", "web")
    assert kept in await eventually(lambda: virtual("back", "side")), "an address stays as long as its network does"
    assert "nope" in await cli.fails("service", "update", "-d", "--network-add", "nope", "web")
    words = await cli.fails("service", "update", "-d", "--network-add", "ingress", "web")
    assert "cannot be explicitly attached to the ingress network" in words


@pytest.mark.row("NW-06")
async def test_nw_06_create_with_an_overlay_network(
    live: Any, api: Any, cli: Any, engine: Any, eventually: Any
) -> None:
    await cli("network", "create", "-d", "overlay", "--attachable", "open")

    async def subnet() -> Any:
        return next(n for n in api.stored(Network) if n.name == "open").subnet

    await eventually(subnet)
    await cli("create", "--name", "solo", "--network", "open", "--network-alias", "alpha", "app")
    body = engine.containers["solo"]
    endpoint = body["NetworkingConfig"]["EndpointsConfig"]["open"]
    [guest] = api.stored(Guest)
    address = guest.attachment.address.partition("/")[0]
    assert endpoint["IPAMConfig"]["IPv4Address"] == address
    assert endpoint["Aliases"] == ["alpha"]
    assert body["HostConfig"]["NetworkMode"] == "open"
    assert body["HostConfig"]["Dns"] == [
        next(n for n in api.stored(Network) if n.name == "open").gateways[api.host.node_id]
    ]
    assert "is already in use" in await cli.fails("create", "--name", "solo", "--network", "open", "app")
    assert len(api.stored(Guest)) == 1, "what was not made holds no address"
    assert "is in use by task" in await cli.fails("network", "rm", "open")
    await cli("create", "--name", "other", "app")
    await cli("network", "connect", "--ip", "10.0.1.200", "open", "other")
    network, sent = engine.connected[-1]
    assert (network, sent["Container"]) == ("open", "other")
    assert sent["EndpointConfig"]["IPAMConfig"]["IPv4Address"] == "10.0.1.200"
    assert "Address already in use" in await cli.fails("create", "--network", "open", "--ip", "10.0.1.200", "app")
    assert "No such container" in await cli.fails("network", "connect", "open", "nobody")


@pytest.mark.row("NW-06")
async def test_nw_06_not_attachable(live: Any, cli: Any, engine: Any) -> None:
    await cli("network", "create", "-d", "overlay", "shut")
    words = "Could not attach to network shut: rpc error: code = PermissionDenied desc = network shut not manually"
    assert words in await cli.fails("create", "--network", "shut", "app")
    await cli("create", "--name", "solo", "app")
    assert words in await cli.fails("network", "connect", "shut", "solo")
    assert "ingress not manually attachable" in await cli.fails("create", "--network", "ingress", "app")


@pytest.mark.row(
    "NW-06", differs="a stopped container keeps its address until it is removed; `--mac-address` is refused"
)
async def test_nw_06_mac_address(live: Any, cli: Any) -> None:
    await cli("network", "create", "-d", "overlay", "--attachable", "open")
    status, out = await cli.run("create", "--network", "open", "--mac-address", "02:42:0a:00:00:99", "app")
    assert status != 0
    assert "is given by the swarm" in out or "requires API version 1.44" in out


@pytest.mark.row("NW-07")
async def test_nw_07_predefined(live: Any, api: Any, cli: Any, engine: Any, eventually: Any) -> None:
    for name in ("host", "none"):
        engine.add(name, driver={"none": "null"}.get(name, name))
    for name in ("host", "bridge", "none"):
        await serve(cli, f"on-{name}", "--network", name)
        [asked] = (await service(cli, f"on-{name}"))["Spec"]["TaskTemplate"]["Networks"]
        assert asked["Target"]

    async def running() -> Any:
        said = await cli("service", "ls", "--format", "{{.Replicas}}")
        return said.split() == ["1/1"] * 3

    await eventually(running)
    modes = {c.name.partition(".")[0]: c.body["HostConfig"].get("NetworkMode") for a in live.agents.values()
             for c in a.engine.made.values()}  # fmt: skip
    assert modes == {"on-host": "host", "on-bridge": "bridge", "on-none": "none"}


@pytest.mark.row("NW-07")
async def test_nw_07_networks_of_each_host(live: Any, api: Any, cli: Any, eventually: Any) -> None:
    await cli("network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "conf", "--attachable", "lan")
    shown = await inspect(cli, "lan")
    assert (shown["Driver"], shown["Scope"], shown["ConfigFrom"]) == ("macvlan", "swarm", {"Network": "conf"})
    assert "lan" in await names(cli, "driver=macvlan")
    conf = {"Name": "conf", "ConfigOnly": True, "IPAM": {"Config": [{"Subnet": "192.168.55.0/24"}]}}
    for agent in live.agents.values():
        await agent.engine.create_network({**conf, "Options": {"parent": "eth0"}})
    await serve(cli, "web", "--network", "lan")

    async def running() -> Any:
        return await cli("service", "ls", "--format", "{{.Replicas}}") == "1/1"

    await eventually(running)
    [network] = [n for a in live.agents.values() for n in a.engine.nets.values() if n["Name"] == "lan"]
    assert (network["Driver"], network["Options"]) == ("macvlan", {"parent": "eth0"})
    assert network["IPAM"] == conf["IPAM"]
    assert not (await service(cli, "web"))["Endpoint"].get("VirtualIPs")
    await cli("network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "nowhere", "lost")
    await serve(cli, "lost", "--network", "lost")

    async def said() -> Any:
        return "configuration network nowhere not found" in await cli("service", "ps", "--no-trunc", "lost")

    await eventually(said)


@pytest.mark.row("NW-09")
async def test_nw_09_dnsrr(live: Any, cli: Any, eventually: Any) -> None:
    await cli("network", "create", "-d", "overlay", "back")
    await serve(cli, "web", "--network", "back", "--endpoint-mode", "dnsrr")
    shown = await service(cli, "web")
    assert shown["Spec"]["EndpointSpec"]["Mode"] == "dnsrr"
    assert not shown["Endpoint"].get("VirtualIPs")
    words = await cli.fails(
        "service", "create", "-d", "--no-resolve-image", "--endpoint-mode", "dnsrr", "-p", "80:80", "app"
    )
    assert "port published with ingress mode can't be used with dnsrr mode" in words
    await serve(cli, "own", "--endpoint-mode", "dnsrr", "-p", "published=81,target=80,mode=host")


@pytest.mark.row("NW-11", "NW-12")
async def test_nw_11_ports(live: Any, cli: Any, eventually: Any) -> None:
    await serve(
        cli, "web", "-p", "8080:80", "-p", "9000-9002:90-92/udp", "-p", "published=7000,target=70,protocol=sctp",
        "-p", "published=8443,target=443,mode=host", "-p", "53",
    )  # fmt: skip

    async def drawn() -> Any:
        ports = (await service(cli, "web"))["Endpoint"].get("Ports") or []
        return all(p.get("PublishedPort") for p in ports) and ports

    ports = await eventually(drawn)
    found = {(p["Protocol"], p["TargetPort"]): (p["PublishedPort"], p["PublishMode"]) for p in ports}
    number, mode = found.pop(("tcp", 53))
    assert 30000 <= number <= 32767
    assert mode == "ingress"
    assert found == {
        ("tcp", 80): (8080, "ingress"),
        ("udp", 90): (9000, "ingress"),
        ("udp", 91): (9001, "ingress"),
        ("udp", 92): (9002, "ingress"),
        ("sctp", 70): (7000, "ingress"),
        ("tcp", 443): (8443, "host"),
    }
    listed = await cli("service", "ls", "--format", "{{.Ports}}")
    assert "*:8080->80/tcp" in listed
    assert f"*:{number}->53/tcp" in listed
    create = ("service", "create", "-d", "--no-resolve-image", "--name", "other")
    words = await cli.fails(*create, "-p", "8080:81", "app")
    assert "port '8080' is already in use by service 'web' (" in words
    assert ") as an ingress port" in words
    assert ") as a host-published port" in await cli.fails(*create, "-p", "8443:1", "app")
    await cli(*create, "-p", "published=8443,target=443,mode=host", "app")  # the scheduler keeps them apart
    await cli("service", "update", "-d", "--publish-rm", "80", "--publish-add", "8081:80", "web")

    async def moved() -> Any:
        ports = (await service(cli, "web"))["Endpoint"]["Ports"]
        numbers = {p["PublishedPort"] for p in ports}
        return 8081 in numbers and numbers

    numbers = await eventually(moved)
    assert 8080 not in numbers
    assert number in numbers, "what was drawn stays"
    twice = await cli.fails(*create, "-p", "1:1", "-p", "1:2", "app")
    assert "duplicate published ports provided" in twice


@pytest.mark.row("NW-13")
async def test_nw_13_an_address_in_publish(live: Any, cli: Any) -> None:
    code, out = await cli.run(
        "service", "create", "-d", "--no-resolve-image", "--name", "web", "-p", "127.0.0.1:80:80", "app"
    )
    if code == 0:
        assert "ignoring IP-address (127.0.0.1:80:80/tcp)" in out or "ignoring IP-address (127.0.0.1:80:80)" in out
        [port] = (await service(cli, "web"))["Spec"]["EndpointSpec"]["Ports"]
        assert port["PublishedPort"] == 80
    else:
        assert "hostip is not supported" in out.lower()


@pytest.mark.row("NW-14")
async def test_nw_14_the_ingress_network_anew(live: Any, api: Any, cli: Any, eventually: Any) -> None:
    await serve(cli, "web", "-p", "8080:80")
    _, out = await cli.run("network", "rm", "ingress", stdin="y\n")
    assert "ingress network cannot be removed because service" in out
    await cli("service", "update", "-d", "--publish-rm", "80", "web")

    async def removed() -> Any:
        await cli.run("network", "rm", "ingress", stdin="y\n")
        return "ingress" not in await names(cli)

    await eventually(removed)
    words = await cli.fails("service", "update", "-d", "--publish-add", "8080:80", "web")
    assert "no ingress network is present" in words
    await cli(
        "network", "create", "-d", "overlay", "--ingress", "--subnet", "10.11.0.0/16", "--gateway", "10.11.0.2", "mesh"
    )
    assert (await inspect(cli, "mesh"))["Ingress"] is True
    await cli("service", "update", "-d", "--publish-add", "8080:80", "web")

    async def attached() -> Any:
        found = (await service(cli, "web"))["Endpoint"].get("VirtualIPs") or []
        return any(v["Addr"].startswith("10.11.") for v in found)

    await eventually(attached)


@pytest.mark.row("NW-18")
async def test_nw_18_filters(api: Any, cli: Any, engine: Any) -> None:
    made = await cli("network", "create", "-d", "overlay", "--label", "tier=db", "back")
    engine.networks.clear()
    for chosen, found in (
        ("driver=overlay", {"back", "ingress"}),
        ("driver=macvlan", set()),
        ("scope=swarm", {"back", "ingress"}),
        ("scope=local", set()),
        (f"id={made[:10]}", {"back"}),
        ("label=tier", {"back"}),
        ("label=tier=db", {"back"}),
        ("label=tier=x", set()),
        ("name=bac", {"back"}),
        ("type=custom", {"back", "ingress"}),
        ("type=builtin", set()),
        ("dangling=false", set()),
    ):
        assert await names(cli, chosen) == found, chosen
    assert "invalid filter" in (await cli.fails("network", "ls", "--filter", "colour=red")).lower()
