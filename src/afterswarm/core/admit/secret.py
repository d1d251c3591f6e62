"""Which secrets and configs may be created, changed and removed. Docker's words and limits.

Other than with Docker, their data may be replaced: the services that use it are brought to the new one. Data is looked
at here only as bytes; sealing it is the shell's business.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core import payloads
from afterswarm.core.admit.service import changed, with_auth
from afterswarm.core.admit.words import invalid
from afterswarm.core.payloads import Unseal
from afterswarm.model.base import Change
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, ConfigSpec, Payload, Secret, SecretSpec, payload_id
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot

MAX_SECRET = 500 * 1024
MAX_CONFIG = 1000 * 1024
_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")

O = TypeVar("O", Secret, Config)  # noqa: E741


def create(snap: Snapshot, spec: SecretSpec) -> tuple[Secret, bytes]:
    """A new secret without its payload, and the payload, which the shell seals for it."""
    _check_name(spec.name)
    if spec.driver is not None and not spec.driver.name:
        raise invalid("secret driver must have a name")
    # What a driver would bring is not asked for before a task needs it: see `schedule.filters`.
    data = b"" if spec.driver else payload("secret", spec.data, MAX_SECRET)
    _check_free("secret", spec.name, snap.secrets)
    return Secret(id=ids.derive("secret", spec.name, snap.rev, snap.now), spec=replace(spec, data="")), data


def create_config(snap: Snapshot, spec: ConfigSpec) -> Config:
    _check_name(spec.name)
    payload("config", spec.data, MAX_CONFIG)
    _check_free("config", spec.name, snap.configs)
    return Config(id=ids.derive("config", spec.name, snap.rev, snap.now), spec=spec)


class Update(msgspec.Struct, Generic[O], frozen=True):
    """The object as it is to be, the data that is new to it, which the shell puts in, and what changes with it."""

    obj: O
    data: bytes | None
    changes: list[Change]


def update(snap: Snapshot, old: Secret, spec: SecretSpec, unseal: Unseal) -> Update[Secret]:
    """New labels; and new data, if `spec` brings any."""
    if spec.driver != old.spec.driver or (spec.driver and spec.data):
        raise invalid("only updates to Labels are allowed")
    labelled = replace(old, spec=replace(old.spec, labels=spec.labels))
    return _update(snap, old, labelled, spec, unseal)


def update_config(snap: Snapshot, old: Config, spec: ConfigSpec) -> Update[Config]:
    """New labels; and new data, if `spec` brings any."""
    labelled = replace(old, spec=replace(old.spec, labels=spec.labels))
    return _update(snap, old, labelled, spec, _not_sealed)


def _update(snap: Snapshot, old: O, labelled: O, spec: SecretSpec | ConfigSpec, unseal: Unseal) -> Update[O]:
    """The services whose tasks see other data are brought to what `spec` says.

    So they are when that is the newest already, and a rollback had taken them back to what was before.
    """
    if spec.name != old.name:
        raise invalid("only updates to Labels and Data are allowed")
    if not spec.data:
        return Update(obj=labelled, data=None, changes=[])
    secret = isinstance(old, Secret)
    data = payload("secret", spec.data, MAX_SECRET) if secret else payload("config", spec.data, MAX_CONFIG)

    def differs(version: int) -> bool:
        holder = payloads.find(snap, (old.id, version))
        if holder is None:
            return True
        templating = holder.templating if isinstance(holder, Payload) else holder.spec.templating
        return templating != spec.templating or payloads.clear(holder, unseal) != data

    new = differs(old.data_version)
    version = old.data_version + new
    kept = new and bool(payloads.in_use(snap, [(old.id, old.data_version)]))
    changes = [Change(None, _archived(old))] if kept else []
    changes += [
        Change(service, _rolled(snap, service, {old.id: version}))
        for _, service in sorted(snap.services.items())
        if not service.pending_delete and any(o == old.id and differs(v) for o, v in payloads.of_spec(service.spec))
    ]
    updated = replace(labelled, data_version=version, spec=replace(labelled.spec, templating=spec.templating))
    return Update(obj=updated, data=data if new else None, changes=changes)


def _rolled(snap: Snapshot, service: Service, versions: Mapping[str, int]) -> Service:
    """A job is not executed again for it: its next tasks have the new data."""
    spec = payloads.at(service.spec, versions)
    if service.job_status is not None:
        return replace(service, spec=spec)
    return with_auth(service, changed(snap, service, spec), "", "spec", rollback=False)


def _archived(old: Secret | Config) -> Payload:
    held = Payload(
        id=payload_id(old.id, old.data_version),
        owner=old.id,
        data_version=old.data_version,
        templating=old.spec.templating,
    )
    return replace(held, sealed=old.sealed) if isinstance(old, Secret) else replace(held, data=old.spec.data)


def _not_sealed(_name: str, sealed: str) -> bytes:
    raise AssertionError(f"a config has nothing sealed, and this has: {sealed}")


def remove(snap: Snapshot, old: Secret | Config) -> list[Change]:
    """It goes with all that was kept of it. Refused while a service uses it that is not being removed itself."""
    users = sorted(
        service.name
        for service in snap.services.values()
        if not service.pending_delete and any(owner == old.id for owner, _ in payloads.of_spec(service.spec))
    )
    if users:
        word, plural = "secret" if isinstance(old, Secret) else "config", "s" if len(users) > 1 else ""
        raise invalid(f"{word} '{old.name}' is in use by the following service{plural}: {', '.join(users)}")
    older = [p for _, p in sorted(snap.payloads.items()) if p.owner == old.id]
    return [Change(obj, None) for obj in (old, *older)]


def payload(word: str, data: str, limit: int) -> bytes:
    """The payload of a specification in clear, if its size is allowed."""
    try:
        clear = b64decode(data, validate=True)
    except ValueError as error:  # also what is no ASCII
        raise Refused(400, f"invalid data: {error}") from error
    if not 0 < len(clear) < limit:
        raise invalid(f"{word} data must be larger than 0 and less than {limit} bytes")
    return clear


def _check_name(name: str) -> None:
    if not name:
        raise invalid("name must be provided")
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )


def _check_free(word: str, name: str, others: Mapping[str, Secret] | Mapping[str, Config]) -> None:
    if any(other.name == name for other in others.values()):
        raise Refused(409, f"rpc error: code = AlreadyExists desc = {word} {name} already exists")
