"""A host's guests, as its managers believe and as its engine shows them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from afterswarm.core.host import guests
from afterswarm.model.guest import Guest, Said
from afterswarm.model.task import Attachment

OURS = {"open": "net1", "wide": "net2"}
ID = "0123456789abcdef"
GUEST = Guest(id="g1", node_id="n1", attachment=Attachment(network_id="net1", address="10.0.1.2/24"))


def shown(running: bool = True, **networks: Any) -> guests.Found:  # noqa: FBT001, FBT002 - reads well here
    inspect = {
        "Id": ID,
        "Name": "/solo",
        "State": {"Running": running, "Pid": 42 if running else 0},
        "Config": {"Hostname": "box"},
        "HostConfig": {"Dns": ["9.9.9.9"]},
        "NetworkSettings": {"Networks": networks or {"open": endpoint("10.0.1.2")}},
    }
    return guests.found(inspect, OURS)


def endpoint(address: str, **more: Any) -> dict[str, Any]:
    return {"IPAMConfig": {"IPv4Address": address}, "Aliases": ["alpha", ID[:12]], **more}


def test_what_managers_do_not_know_yet() -> None:
    said = guests.news([GUEST], [shown()], ())
    attachment = replace(GUEST.attachment, aliases=[ID[:12], "alpha", "box"])
    known = replace(GUEST, container_id=ID, name="solo", running=True, attachment=attachment)
    assert said == Said(changed=[known])
    assert guests.news([known], [shown()], ()) == Said()
    assert guests.news([known], [shown(running=False)], ()) == Said(changed=[replace(known, running=False)])


def test_a_container_that_is_gone_or_elsewhere_gives_its_address_back() -> None:
    assert guests.news([GUEST], [], ()) == Said(gone=["g1"])
    assert guests.news([GUEST], [], {"g1"}) == Said(), "it is being made"
    assert guests.news([GUEST], [shown(open=endpoint("10.0.1.9"))], ()) == Said(gone=["g1"])
    assert guests.news([GUEST], [shown(wide=endpoint("10.0.1.2"))], ()) == Said(gone=["g1"])


def test_an_engine_that_shows_no_configuration_shows_the_address() -> None:
    assert guests.places({"open": {"IPAddress": "10.0.1.2"}, "bridge": endpoint("172.17.0.2"), "wide": None}, OURS) == {
        guests.Place("net1", "10.0.1.2"): ()
    }


def test_a_container_in_networks_of_its_engine_has_another_way_out() -> None:
    assert not shown().outward
    assert not shown(open=endpoint("10.0.1.2"), none={}).outward
    assert shown(open=endpoint("10.0.1.2"), bridge=endpoint("172.17.0.2")).outward


def test_one_pseudo_task_for_each_container() -> None:
    second = replace(GUEST, id="g2", container_id=ID, attachment=replace(GUEST.attachment, network_id="net2"))
    tasks = guests.as_tasks(
        [second, replace(GUEST, container_id=ID, name_servers=["9.9.9.9"]), replace(GUEST, id="g3")]
    )
    assert [(t.id, [a.network_id for a in t.attachments]) for t in tasks] == [(ID, ["net1", "net2"]), ("g3", ["net1"])]
    assert tasks[0].spec.container_spec
    assert tasks[0].spec.container_spec.dns_config
    assert tasks[0].spec.container_spec.dns_config.nameservers == ["9.9.9.9"]
