"""The swarm itself, by both command lines: what is asked of the daemon, what is kept and shown, what is refused.

What takes a second host, or a real store, is in tests/e2e/test_rows_cluster.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from afterswarm.api.host import LocalInfo
from afterswarm.core.trust.token import digest_of
from afterswarm.model.cluster import Cluster
from afterswarm.model.node import NodeState
from afterswarm.model.refused import Refused

ONE = "one" + "0" * 22
TOKEN = r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}"
KEY = r"SWMKEY-1-[A-Za-z0-9+/]{43}"
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
MINIMUM = "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s"


def asked(api: Any) -> Any:
    """The only request that came through to the daemon."""
    (request,) = api.host.calls
    return request


async def spec(cli: Any) -> Any:
    return json.loads(await cli("info", "--format", "{{json .Swarm.Cluster.Spec}}"))


# ---- in and out ------------------------------------------------------------------------------------------------------


@pytest.mark.row("SW-01")
async def test_sw_01_init_and_a_second_one(cli: Any, api: Any, rooted: None) -> None:
    api.host.become(LocalInfo())
    said = await cli("swarm", "init", "--advertise-addr", "10.77.0.1")
    assert f"Swarm initialized: current node ({ONE}) is now a manager." in said
    assert asked(api).listen_addr == "0.0.0.0:2377"
    assert "This node is already part of a swarm." in await cli.fails("swarm", "init")
    assert "This node is already part of a swarm." in await cli.fails("swarm", "join", "--token", "t", "10.77.0.9")


@pytest.mark.row("SW-02", "SW-03", "SW-04", "SW-05", "SW-06", "SW-07")
async def test_sw_02_flags_of_init(cli: Any, api: Any, rooted: None) -> None:
    api.host.become(LocalInfo())
    await cli(
        "swarm", "init", "--listen-addr", "10.77.0.1:2377", "--advertise-addr", "eth0", "--data-path-addr", "eth1",
        "--data-path-port", "7777", "--default-addr-pool", "10.20.0.0/16", "--default-addr-pool", "10.30.0.0/16",
        "--default-addr-pool-mask-length", "26", "--availability", "drain",
    )  # fmt: skip
    wanted = asked(api)
    assert (wanted.listen_addr, wanted.advertise_addr, wanted.data_path_addr) == ("10.77.0.1:2377", "eth0", "eth1")
    assert (wanted.data_path_port, wanted.availability) == (7777, "drain")
    assert (wanted.default_addr_pool, wanted.subnet_size) == (["10.20.0.0/16", "10.30.0.0/16"], 26)


@pytest.mark.row("SW-05", "SW-06", "SW-07")
async def test_sw_05_flags_that_are_refused(cli: Any, api: Any) -> None:
    api.host.become(LocalInfo())
    for flags in (
        ("--data-path-port", "1023"),
        ("--data-path-port", "49152"),
        ("--default-addr-pool", "10.0.0.0/8", "--default-addr-pool", "10.1.0.0/16"),
        ("--default-addr-pool-mask-length", "31"),
        ("--availability", "maybe"),
    ):
        assert await cli.fails("swarm", "init", *flags)
    assert api.host.calls == []


@pytest.mark.row("SW-15")
async def test_sw_15_join(cli: Any, api: Any) -> None:
    api.host.become(LocalInfo())
    flags = ("--advertise-addr", "eth0:2377", "--data-path-addr", "eth1", "--availability", "pause")
    await cli("swarm", "join", "--token", "T", *flags, "10.77.0.1:2377")
    wanted = asked(api)
    assert (wanted.join_token, wanted.remote_addrs) == ("T", ["10.77.0.1:2377"])
    assert (wanted.advertise_addr, wanted.data_path_addr, wanted.availability) == ("eth0:2377", "eth1", "pause")
    api.host.refusal = Refused(503, "Timeout was reached before node joined. The attempt to join the swarm …")
    assert "Timeout was reached" in await cli.fails("swarm", "join", "--token", "T", "10.77.0.1")


@pytest.mark.row("SW-17")
async def test_sw_17_leave(cli: Any, api: Any) -> None:
    said = await cli.fails("swarm", "leave")
    assert "You are attempting to leave the swarm on a node that is participating as a manager." in said
    assert "Removing this node leaves 1 managers out of 2. Without a Raft quorum" in said
    assert await cli("swarm", "leave", "--force") == "Node left the swarm."
    api.host.become(LocalInfo())
    assert "This node is not part of a swarm" in await cli.fails("swarm", "leave")


@pytest.mark.row("SW-14")
async def test_sw_14_only_a_manager_makes_a_swarm_anew(cli: Any, api: Any, rooted: None) -> None:
    api.host.state = replace(api.host.state, manager=True)
    await cli("swarm", "init", "--force-new-cluster", "--advertise-addr", "10.77.0.1")
    assert asked(api).force_new_cluster
    api.host.become(LocalInfo(state="active"), "three")
    assert "This node is not a swarm manager" in await cli.fails("swarm", "init", "--force-new-cluster")


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.row("SW-09", "SW-12", "SW-13", "SW-18", "SW-19")
async def test_sw_19_settings_are_kept_and_shown(cli: Any, api: Any) -> None:
    await cli(
        "swarm", "update", "--cert-expiry", "48h", "--dispatcher-heartbeat", "7s", "--task-history-limit", "-1",
        "--max-snapshots", "3", "--snapshot-interval", "900",
    )  # fmt: skip
    found = await spec(cli)
    assert found["CAConfig"]["NodeCertExpiry"] == 48 * 3600 * 10**9
    assert found["Dispatcher"]["HeartbeatPeriod"] == 7 * 10**9
    assert found["Orchestration"]["TaskHistoryRetentionLimit"] == -1
    assert (found["Raft"]["KeepOldSnapshots"], found["Raft"]["SnapshotInterval"]) == (3, 900)
    assert (found["Raft"]["LogEntriesForSlowFollowers"], found["Raft"]["HeartbeatTick"]) == (500, 1)
    shown = await cli("info")
    for line in ("Task History Retention Limit: -1", "Heartbeat Period: 7 seconds", "Expiry Duration: 2 days"):
        assert line in shown
    rev = api.stored(Cluster)[0].rev
    for flags, words in (
        (("--cert-expiry", "59m"), MINIMUM),
        (("--dispatcher-heartbeat", "-1s"), "heartbeat time period cannot be a negative duration"),
    ):
        assert words in await cli.fails("swarm", "update", *flags)
    assert api.stored(Cluster)[0].rev == rev


@pytest.mark.row("SW-11", differs="kept and shown; a silent node is called down after 2 s, whatever the period is")
async def test_sw_11_heartbeats(cli: Any, api: Any) -> None:
    await cli("swarm", "update", "--dispatcher-heartbeat", "9s")
    assert "Heartbeat Period: 9 seconds" in await cli("info")


@pytest.mark.row("SW-18", "SW-19")
async def test_sw_19_who_is_late_is_refused(api: Any) -> None:
    seen = await api.ok("GET", "/swarm")
    target = f"/swarm/update?version={seen['Version']['Index']}"
    await api.ok("POST", target, seen["Spec"] | {"Labels": {"a": "b"}})
    assert await api.fails("POST", target, seen["Spec"]) == (
        500,
        "rpc error: code = Unknown desc = update out of sequence",
    )
    assert (await api.fails("POST", "/swarm/update", seen["Spec"]))[0] == 400
    assert (await api.ok("GET", "/swarm"))["Spec"]["Labels"] == {"a": "b"}
    api.host.become(LocalInfo(state="active"), "three")
    assert "Worker nodes can't be used to view" in (await api.fails("GET", "/swarm"))[1]


@pytest.mark.row(
    "SW-10", differs="accepted, kept and shown; certificates go on being signed by the swarm's own authority"
)
async def test_sw_10_external_authorities(cli: Any, api: Any, rooted: None) -> None:
    await cli("swarm", "update", "--external-ca", "protocol=cfssl,url=https://ca.example/sign,extra=1")
    (found,) = (await spec(cli))["CAConfig"]["ExternalCAs"]
    assert (found["Protocol"], found["URL"], found["Options"]) == ("cfssl", "https://ca.example/sign", {"extra": "1"})
    api.host.become(LocalInfo())
    await cli("swarm", "init", "--external-ca", "protocol=cfssl,url=https://ca.example/sign")
    assert asked(api).spec.ca_config.external_cas[0].url == "https://ca.example/sign"


@pytest.mark.row("SW-16")
async def test_sw_16_join_tokens(cli: Any, api: Any, rooted: None) -> None:
    worker = await cli("swarm", "join-token", "-q", "--rotate", "worker")
    manager = await cli("swarm", "join-token", "-q", "--rotate", "manager")
    assert re.fullmatch(TOKEN, worker)
    assert (worker != manager, worker[:60]) == (True, manager[:60])
    assert int(worker.split("-")[2], 36) == int(digest_of(api.stored(Cluster)[0].ca_cert), 16)
    assert await cli("swarm", "join-token", "-q", "worker") == worker
    said = await cli("swarm", "join-token", "--rotate", "worker")
    assert "Successfully rotated worker join token." in said
    assert worker not in said


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.row("SW-08", "SW-20")
async def test_sw_20_unlock_keys(cli: Any, api: Any) -> None:
    assert "no unlock key is set" in await cli.fails("swarm", "unlock-key")
    assert "cannot rotate because autolock is not turned on" in await cli.fails("swarm", "unlock-key", "--rotate")
    said = await cli("swarm", "update", "--autolock")
    (first,) = re.findall(KEY, said)
    assert await cli("swarm", "unlock-key", "-q") == first
    (second,) = re.findall(KEY, await cli("swarm", "unlock-key", "--rotate"))
    assert second != first
    assert "swarm is not locked" in await cli.fails("swarm", "unlock")
    await cli("swarm", "update", "--autolock=false")
    assert "no unlock key is set" in await cli.fails("swarm", "unlock-key")
    assert api.stored(Cluster)[0].unlock_key == ""


@pytest.mark.row("SW-20")
async def test_sw_20_a_locked_manager(cli: Any, api: Any) -> None:
    api.host.become(LocalInfo(state="locked", manager=True), ONE)
    assert "Swarm: locked" in await cli("info")
    for command in (("node", "ls"), ("service", "ls"), ("swarm", "unlock-key"), ("swarm", "ca")):
        assert LOCKED in await cli.fails(*command)
    assert "Swarm is encrypted and locked." in await cli.fails("swarm", "leave")
    await cli("swarm", "unlock", stdin="SWMKEY-1-x\n")
    assert asked(api) == ("unlock", "SWMKEY-1-x")
    api.host.refusal = Refused(401, "swarm could not be unlocked: invalid key provided")
    code, said = await cli.run("swarm", "unlock", stdin="SWMKEY-1-y\n")
    assert (code, "swarm could not be unlocked: invalid key provided" in said) == (1, True)


@pytest.mark.row("SW-21")
async def test_sw_21_a_new_root(cli: Any, api: Any, rooted: None, live: Any, tmp_path: Path) -> None:
    old, token = await cli("swarm", "ca"), await cli("swarm", "join-token", "-q", "worker")
    assert old == api.stored(Cluster)[0].ca_cert.strip()
    said = await cli("swarm", "ca", "--rotate", "--cert-expiry", "36h")
    new = await cli("swarm", "ca")
    assert said.endswith(new)
    assert "desired root digest: sha256:" in said
    assert (new != old, token != await cli("swarm", "join-token", "-q", "worker")) == (True, True)
    assert (await spec(cli))["CAConfig"]["NodeCertExpiry"] == 36 * 3600 * 10**9
    assert set((await cli("node", "ls", "--format", "{{.TLSStatus}}")).split()) == {"Ready"}
    seen = json.loads(await cli("node", "inspect", "self", "--format", "{{json .Description.TLSInfo}}"))
    assert seen == json.loads(await cli("info", "--format", "{{json .Swarm.Cluster.TLSInfo}}"))
    assert seen["TrustRoot"].strip() == new
    mine, key = own_root(tmp_path, api.host.clock.now())
    said = await cli("swarm", "ca", "--rotate", "-q", "--ca-cert", mine, "--ca-key", key)
    assert await cli("swarm", "ca") == Path(mine).read_text().strip()
    kept = (await api.ok("GET", "/swarm"))["Spec"]["CAConfig"]
    assert ("SigningCAKey" in kept, "SigningCACert" in kept) == (False, False)
    assert "BEGIN" not in json.dumps(kept)


@pytest.mark.row("SW-21")
async def test_sw_21_a_host_that_is_off_keeps_the_old_root_alive(
    cli: Any, api: Any, rooted: None, live: Any, eventually: Any
) -> None:
    live.power_cut("swarm-3")
    await cli("swarm", "ca", "--rotate", "-d")

    async def waits() -> bool:
        shown = await cli("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}")
        return sorted(line for line in shown.splitlines() if not line.endswith("Ready")) == ["swarm-3 Needs Rotation"]

    async def over() -> bool:
        return (await cli("info", "--format", "{{.Swarm.Cluster.RootRotationInProgress}}")) == "false"

    await eventually(waits)
    assert not await over()
    live.boot("swarm-3")
    await eventually(over)


@pytest.mark.row("SW-21")
async def test_sw_21_what_is_refused(cli: Any, api: Any, rooted: None, tmp_path: Path) -> None:
    mine, _ = own_root(tmp_path, api.host.clock.now())
    _, other = own_root(tmp_path, api.host.clock.now(), "other")
    late, of_late = own_root(tmp_path, api.host.clock.now(), "late", days=30)
    rev = api.stored(Cluster)[0].rev
    for flags, words in (
        (
            ("--ca-cert", mine, "--external-ca", "protocol=cfssl,url=https://ca.example"),
            "there must be at least one valid, reachable external CA corresponding to the desired CA",
        ),
        (("--ca-cert", mine, "--ca-key", other), "certificate key mismatch"),
        (("--ca-cert", late, "--ca-key", of_late), "CA certificate expires too soon"),
        (("--cert-expiry", "1m"), MINIMUM),
    ):
        assert words in await cli.fails("swarm", "ca", "--rotate", *flags)
    assert api.stored(Cluster)[0].rev == rev


def own_root(folder: Path, now: float, name: str = "own", days: float = 4000) -> tuple[str, str]:
    """Paths of a root certificate and its key, as `openssl req -x509` makes them."""
    import datetime as dt  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime.fromtimestamp(now - 60, dt.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 7, start, start + dt.timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(text)
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


# ---- without a majority ----------------------------------------------------------------------------------------------


@pytest.mark.row("SW-25")
async def test_sw_25_a_demotion_that_costs_the_majority(cli: Any, api: Any) -> None:
    from afterswarm.model.node import Node  # noqa: PLC0415

    me = next(n for n in api.stored(Node) if n.id == ONE)
    await api.write(replace(me, state=NodeState.DOWN))
    assert "this would result in a loss of quorum" in await cli.fails("node", "demote", "swarm-2")
