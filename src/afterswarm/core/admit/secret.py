"""Which secrets and configs may be created, changed and removed. Docker's words and limits.

Payloads are looked at here only as bytes; sealing them is the shell's business.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from afterswarm import ids
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, ConfigSpec, Secret, SecretSpec
from afterswarm.model.service import ContainerSpec
from afterswarm.model.snapshot import Snapshot

MAX_SECRET = 500 * 1024
MAX_CONFIG = 1000 * 1024
_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")


def invalid(why: str) -> Refused:
    return Refused(400, f"rpc error: code = InvalidArgument desc = {why}")


def create(snap: Snapshot, spec: SecretSpec) -> tuple[Secret, bytes]:
    """A new secret without its payload, and the payload, which the shell seals for it."""
    _check_name(spec.name)
    if spec.driver is not None:
        raise invalid("secret drivers are not supported: leave out --driver and give the secret's data")
    data = payload("secret", spec.data, MAX_SECRET)
    _check_free("secret", spec.name, snap.secrets)
    return Secret(id=ids.derive("secret", spec.name, snap.rev, snap.now), spec=replace(spec, data="")), data


def create_config(snap: Snapshot, spec: ConfigSpec) -> Config:
    _check_name(spec.name)
    payload("config", spec.data, MAX_CONFIG)
    _check_free("config", spec.name, snap.configs)
    return Config(id=ids.derive("config", spec.name, snap.rev, snap.now), spec=spec)


def update(secret: Secret, spec: SecretSpec, *, data: bytes) -> Secret:
    """The secret with these labels. Nothing else may change; `data` is its payload in clear."""
    if spec.name != secret.name or (spec.data and payload("secret", spec.data, MAX_SECRET) != data):
        raise invalid("only updates to Labels are allowed")
    return replace(secret, spec=replace(secret.spec, labels=spec.labels))


def update_config(config: Config, spec: ConfigSpec) -> Config:
    """The config with these labels. Nothing else may change."""
    if spec.name != config.name or (spec.data and _decoded(spec.data) != _decoded(config.spec.data)):
        raise invalid("only updates to Labels are allowed")
    return replace(config, spec=replace(config.spec, labels=spec.labels))


def remove(snap: Snapshot, secret: Secret) -> None:
    """Refused while a service uses it."""
    _check_unused("secret", secret.name, _services_with(snap, secret.id, _secret_ids))


def remove_config(snap: Snapshot, config: Config) -> None:
    """Refused while a service uses it."""
    _check_unused("config", config.name, _services_with(snap, config.id, _config_ids))


def payload(word: str, data: str, limit: int) -> bytes:
    """The payload of a specification in clear, if its size is allowed."""
    clear = _decoded(data)
    if not 0 < len(clear) < limit:
        raise invalid(f"{word} data must be larger than 0 and less than {limit} bytes")
    return clear


def _decoded(data: str) -> bytes:
    try:
        return b64decode(data, validate=True)
    except binascii.Error as error:
        raise Refused(400, f"invalid data: {error}") from error


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


def _check_unused(word: str, name: str, services: list[str]) -> None:
    if services:
        plural = "s" if len(services) > 1 else ""
        raise invalid(f"{word} '{name}' is in use by the following service{plural}: {', '.join(services)}")


def _secret_ids(container: ContainerSpec) -> Iterable[str]:
    return (ref.secret_id for ref in container.secrets)


def _config_ids(container: ContainerSpec) -> Iterable[str]:
    return (ref.config_id for ref in container.configs)


def _services_with(snap: Snapshot, obj_id: str, ids_of: Callable[[ContainerSpec], Iterable[str]]) -> list[str]:
    """Names of the services that use it; one that is being removed does not count."""
    return sorted(
        service.name
        for service in snap.services.values()
        if not service.pending_delete
        and (container := service.spec.task_template.container_spec)
        and obj_id in ids_of(container)
    )
