"""Secrets and configs: names, sizes, who uses them, and what new data does to these."""

from __future__ import annotations

from base64 import b64encode

import pytest
from msgspec.structs import replace

from afterswarm.core import payloads
from afterswarm.core.admit import secret as admit
from afterswarm.core.admit import service
from afterswarm.model.base import Obj
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, ConfigSpec, Payload, Secret, SecretSpec
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    Driver,
    FileTarget,
    ReplicatedService,
    SecretReference,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from afterswarm.model.snapshot import Snapshot


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def snap(*objects: Obj) -> Snapshot:
    return Snapshot.of(objects, rev=7, now=1.0)


def user(name: str, *, going: bool = False) -> Service:
    container = ContainerSpec(
        image="nginx",
        secrets=[SecretReference(secret_id="s", secret_name="pw", file=FileTarget(name="pw"))],
        configs=[ConfigReference(config_id="c", config_name="conf", file=FileTarget(name="conf"))],
    )
    mode = ServiceMode(replicated=ReplicatedService(replicas=2))
    spec = ServiceSpec(name=name, task_template=TaskSpec(container_spec=container), mode=mode)
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


def test_a_secret_of_a_driver_has_no_data_here() -> None:
    secret, data = admit.create(snap(), SecretSpec(name="pw", driver=Driver(name="vault")))
    assert (secret.spec.driver, data) == (Driver(name="vault"), b"")
    with pytest.raises(Refused, match="secret driver must have a name"):
        admit.create(snap(), SecretSpec(name="pw", driver=Driver()))
    for changed in (SecretSpec(name="pw"), SecretSpec(name="pw", driver=Driver(name="vault"), data="aGk=")):
        with pytest.raises(Refused, match="only updates to Labels are allowed"):
            admit.update(snap(), secret, changed, lambda _id, _sealed: b"")


def test_a_name_is_given_once() -> None:
    there = Secret(id="s", spec=SecretSpec(name="pw"))
    with pytest.raises(Refused, match="AlreadyExists desc = secret pw already exists") as refused:
        admit.create(snap(there), SecretSpec(name="pw", data=b64(b"x")))
    assert refused.value.status == 409
    config = Config(id="c", spec=ConfigSpec(name="pw"))
    assert admit.create(snap(config), SecretSpec(name="pw", data=b64(b"x")))


def unseal(name: str, sealed: str) -> bytes:
    """In place of the cluster key: what is sealed says for what."""
    assert sealed.startswith(f"{name}:")
    return sealed.removeprefix(f"{name}:").encode()


SECRET = Secret(id="s", spec=SecretSpec(name="pw"), sealed="s:hush")
CONFIG = Config(id="c", spec=ConfigSpec(name="conf", data=b64(b"old")))
BOTH = (SECRET, CONFIG)


def test_labels_alone_roll_nothing() -> None:
    for data in ("", b64(b"hush")):
        made = admit.update(
            snap(*BOTH, user("web")), SECRET, SecretSpec(name="pw", labels={"a": "b"}, data=data), unseal
        )
        assert made == admit.Update(
            obj=replace(SECRET, spec=SecretSpec(name="pw", labels={"a": "b"})), data=None, changes=[]
        )
    for data in ("", b64(b"old")):
        spec = ConfigSpec(name="conf", labels={"a": "b"}, data=data)
        config = admit.update_config(snap(*BOTH, user("web")), CONFIG, spec)
        assert (config.obj.spec, config.data, config.changes) == (replace(spec, data=b64(b"old")), None, [])


def test_new_data_is_a_new_version_for_those_that_use_it() -> None:
    web, other = user("web"), Service(id="other", spec=ServiceSpec(name="other"))
    made = admit.update(
        snap(*BOTH, web, other, user("gone", going=True)), SECRET, SecretSpec(name="pw", data=b64(b"new")), unseal
    )
    assert (made.obj.data_version, made.data) == (1, b"new")
    kept, rolled = (change.new for change in made.changes)
    assert kept == Payload(id="s", owner="s", sealed="s:hush")
    assert isinstance(rolled, Service)
    assert payloads.of_spec(rolled.spec) == {("s", 1), ("c", 0)}
    assert (rolled.previous_spec, rolled.spec_version) == (web.spec, 8)


def test_data_that_nobody_uses_is_not_kept() -> None:
    made = admit.update_config(snap(CONFIG), CONFIG, ConfigSpec(name="conf", data=b64(b"new")))
    assert (made.obj.data_version, made.data, made.changes) == (1, b"new", [])


def test_the_same_data_again_is_for_those_that_were_rolled_back() -> None:
    web = user("web")
    made = admit.update_config(snap(*BOTH, web), CONFIG, ConfigSpec(name="conf", data=b64(b"new")))
    newest = replace(made.obj, spec=replace(made.obj.spec, data=b64(b"new")))
    old, rolled = (change.new for change in made.changes)
    assert isinstance(old, Payload)
    assert isinstance(rolled, Service)
    again = ConfigSpec(name="conf", data=b64(b"new"))
    assert admit.update_config(snap(SECRET, newest, old, rolled), newest, again).changes == []
    back = service.update(snap(SECRET, newest, old, rolled), rolled, rolled.spec, rollback=True)
    assert back.spec == web.spec
    (change,) = admit.update_config(snap(SECRET, newest, old, back), newest, again).changes
    assert isinstance(change.new, Service)
    assert change.new.spec == rolled.spec
    equal = admit.update_config(snap(SECRET, newest, old, back), newest, ConfigSpec(name="conf", data=b64(b"old")))
    assert [type(c.obj) for c in equal.changes] == [Payload]  # the tasks have that data, if by another version


def test_a_rolled_back_service_keeps_what_it_went_back_to() -> None:
    newest = replace(CONFIG, data_version=1, spec=ConfigSpec(name="conf", data=b64(b"new")))
    there = snap(SECRET, newest, Payload(id="c", owner="c", data=b64(b"old")))
    scaled = replace(user("web").spec, labels={"a": "b"})
    updated = service.update(there, user("web"), scaled)
    assert (updated.spec_version, payloads.of_spec(updated.spec)) == (0, {("s", 0), ("c", 0)})
    assert payloads.of_spec(service.create(there, user("new").spec).spec) == {("s", 0), ("c", 1)}


def test_a_deployment_of_new_data_and_a_new_service_is_one_step_back() -> None:
    web = user("web")
    there = snap(*BOTH, web)
    both = admit.update(there, SECRET, SecretSpec(name="pw", data=b64(b"new")), unseal).changes[-1].new
    assert isinstance(both, Service)
    newest = replace(SECRET, data_version=1)
    there = snap(newest, CONFIG, both)
    both = admit.update_config(there, CONFIG, ConfigSpec(name="conf", data=b64(b"new"))).changes[-1].new
    assert isinstance(both, Service)
    assert both.previous_spec == web.spec
    there = snap(newest, replace(CONFIG, data_version=1), both)
    same = service.update(there, both, web.spec)
    assert (same.spec, same.previous_spec) == (both.spec, web.spec)
    other = service.update(there, both, replace(web.spec, labels={"a": "b"}))
    assert other.previous_spec == web.spec
    done = replace(both, update_status=UpdateStatus(state=UpdateState.COMPLETED))
    assert service.update(there, done, replace(web.spec, labels={"a": "b"})).previous_spec == both.spec


def test_names_and_sizes_do_not_change() -> None:
    with pytest.raises(Refused, match="only updates to Labels and Data are allowed"):
        admit.update(snap(), SECRET, SecretSpec(name="other"), unseal)
    with pytest.raises(Refused, match="less than 512000 bytes"):
        admit.update(snap(), SECRET, SecretSpec(name="pw", data=b64(b"x" * 512_000)), unseal)


def test_what_is_in_use_stays() -> None:
    secret, config = Secret(id="s", spec=SecretSpec(name="pw")), Config(id="c", spec=ConfigSpec(name="conf"))
    one = snap(secret, config, user("web"))
    with pytest.raises(Refused, match="secret 'pw' is in use by the following service: web"):
        admit.remove(one, secret)
    with pytest.raises(Refused, match="config 'conf' is in use by the following services: db, web"):
        admit.remove(snap(secret, config, user("web"), user("db")), config)


def test_a_service_that_goes_uses_nothing() -> None:
    secret = Secret(id="s", spec=SecretSpec(name="pw"))
    admit.remove(snap(secret, user("web", going=True)), secret)
