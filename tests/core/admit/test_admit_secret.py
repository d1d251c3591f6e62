"""Secrets and configs: names, sizes, who uses them, and that only labels ever change."""

from __future__ import annotations

from base64 import b64encode

import pytest
from msgspec.structs import replace

from afterswarm.core.admit import secret as admit
from afterswarm.model.base import Obj
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, ConfigSpec, Secret, SecretSpec
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    Driver,
    SecretReference,
    Service,
    ServiceSpec,
    TaskSpec,
)
from afterswarm.model.snapshot import Snapshot


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def snap(*objects: Obj) -> Snapshot:
    return Snapshot.of(objects, rev=7, now=1.0)


def user(name: str, *, going: bool = False) -> Service:
    container = ContainerSpec(
        secrets=[SecretReference(secret_id="s", secret_name="pw")],
        configs=[ConfigReference(config_id="c", config_name="conf")],
    )
    spec = ServiceSpec(name=name, task_template=TaskSpec(container_spec=container))
    return Service(id=name, spec=spec, pending_delete=going)


def test_the_payload_is_apart_from_the_secret() -> None:
    secret, payload = admit.create(snap(), SecretSpec(name="pw", labels={"a": "b"}, data=b64(b"hush")))
    assert payload == b"hush"
    assert (secret.spec, secret.sealed) == (SecretSpec(name="pw", labels={"a": "b"}), "")


@pytest.mark.parametrize("name", ["pw", "a", "A-b_c.9", "x" * 64])
def test_good_names(name: str) -> None:
    assert admit.create(snap(), SecretSpec(name=name, data=b64(b"x")))[0].name == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "ä", "x" * 65, "a\n", "a/b", ".a"])
def test_bad_names(name: str) -> None:
    with pytest.raises(Refused) as refused:
        admit.create(snap(), SecretSpec(name=name, data=b64(b"x")))
    assert refused.value.status == 400
    with pytest.raises(Refused):
        admit.create_config(snap(), ConfigSpec(name=name, data=b64(b"x")))


@pytest.mark.parametrize("size", [0, admit.MAX_SECRET])
def test_size_of_a_secret(size: int) -> None:
    with pytest.raises(Refused, match="secret data must be larger than 0 and less than 512000 bytes"):
        admit.create(snap(), SecretSpec(name="pw", data=b64(b"x" * size)))


def test_the_largest_ones_fit() -> None:
    admit.create(snap(), SecretSpec(name="pw", data=b64(b"x" * (admit.MAX_SECRET - 1))))
    admit.create_config(snap(), ConfigSpec(name="pw", data=b64(b"x" * (admit.MAX_CONFIG - 1))))
    with pytest.raises(Refused, match="config data must be larger than 0 and less than 1024000 bytes"):
        admit.create_config(snap(), ConfigSpec(name="pw", data=b64(b"x" * admit.MAX_CONFIG)))


def test_data_that_is_not_base64() -> None:
    with pytest.raises(Refused) as refused:
        admit.create(snap(), SecretSpec(name="pw", data="%%%"))
    assert refused.value.status == 400


def test_drivers_are_refused() -> None:
    with pytest.raises(Refused, match="drivers are not supported"):
        admit.create(snap(), SecretSpec(name="pw", driver=Driver(name="vault")))


def test_a_name_is_given_once() -> None:
    there = Secret(id="s", spec=SecretSpec(name="pw"))
    with pytest.raises(Refused, match="AlreadyExists desc = secret pw already exists") as refused:
        admit.create(snap(there), SecretSpec(name="pw", data=b64(b"x")))
    assert refused.value.status == 409
    config = Config(id="c", spec=ConfigSpec(name="pw"))
    assert admit.create(snap(config), SecretSpec(name="pw", data=b64(b"x")))


def test_only_labels_change() -> None:
    secret = Secret(id="s", spec=SecretSpec(name="pw"), sealed="…")
    changed = admit.update(secret, SecretSpec(name="pw", labels={"a": "b"}), data=b"hush")
    assert changed == replace(secret, spec=SecretSpec(name="pw", labels={"a": "b"}))
    assert admit.update(secret, SecretSpec(name="pw", data=b64(b"hush")), data=b"hush") == secret
    for spec in (SecretSpec(name="other"), SecretSpec(name="pw", data=b64(b"new"))):
        with pytest.raises(Refused, match="only updates to Labels are allowed"):
            admit.update(secret, spec, data=b"hush")


def test_only_labels_of_a_config_change() -> None:
    config = Config(id="c", spec=ConfigSpec(name="conf", data=b64(b"old")))
    changed = admit.update_config(config, ConfigSpec(name="conf", labels={"a": "b"}, data=b64(b"old")))
    assert changed.spec == ConfigSpec(name="conf", labels={"a": "b"}, data=b64(b"old"))
    with pytest.raises(Refused, match="only updates to Labels are allowed"):
        admit.update_config(config, ConfigSpec(name="conf", data=b64(b"new")))


def test_what_is_in_use_stays() -> None:
    secret, config = Secret(id="s", spec=SecretSpec(name="pw")), Config(id="c", spec=ConfigSpec(name="conf"))
    one = snap(secret, config, user("web"))
    with pytest.raises(Refused, match="secret 'pw' is in use by the following service: web"):
        admit.remove(one, secret)
    with pytest.raises(Refused, match="config 'conf' is in use by the following services: db, web"):
        admit.remove_config(snap(secret, config, user("web"), user("db")), config)


def test_a_service_that_goes_uses_nothing() -> None:
    secret = Secret(id="s", spec=SecretSpec(name="pw"))
    admit.remove(snap(secret, user("web", going=True)), secret)
