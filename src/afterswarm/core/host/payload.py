"""Secrets and configs that are templates themselves (`--template-driver golang`), carried out for one task on its host.

Besides what every template of a task can say, they can have its environment, and its other secrets and configs by the
names of their files. Source: SwarmKit's `template/context.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from afterswarm.core import template
from afterswarm.core.host.container_config import Place, spec_of, template_fields
from afterswarm.core.host.template import expanded as expanded_spec
from afterswarm.core.template.functions import Misuse
from afterswarm.model.refused import Refused
from afterswarm.model.secret import payload_id
from afterswarm.model.service import ConfigReference, SecretReference
from afterswarm.model.session import SecretData
from afterswarm.model.task import Task

GOLANG = "golang"
Held = Mapping[str, SecretData]
R = TypeVar("R", SecretReference, ConfigReference)


def expanded(kind: str, data: SecretData, task: Task, place: Place, held: tuple[Held, Held]) -> bytes:
    """What the task is to find in the file. `held`: secrets and configs that are here. Raises `Refused`."""
    if not data.templating:
        return data.data
    failed = f"failed to expand templated {kind} {data.name}"
    if data.templating != GOLANG:
        raise Refused(400, f"{failed}: unrecognized template type")
    fields = template_fields(task, place)
    spec = spec_of(task)
    environment = dict(e.split("=", 1) for e in reversed(expanded_spec(spec, fields).env) if "=" in e)
    functions = {
        "env": lambda name: environment.get(_text(name), ""),
        "secret": lambda target: _of_file("secret", _text(target), spec.secrets, _secret, held[0]),
        "config": lambda target: _of_file("config", _text(target), spec.configs, _config, held[1]),
    }
    try:
        text = template.expand(data.data.decode(errors="surrogateescape"), fields, functions)
    except template.Fault as why:
        raise Refused(400, f"{failed}: {why}") from None
    return text.encode(errors="surrogateescape")


def _of_file(kind: str, target: str, references: list[R], key: Callable[[R], str], held: Held) -> str:
    for reference in references:
        if reference.file and reference.file.name == target:
            found = held.get(key(reference))
            if found is None:
                raise Misuse(f"{kind} {target} is not here yet")
            return found.data.decode(errors="surrogateescape")
    raise Misuse(f"{kind} target {target} not found")


def _secret(reference: SecretReference) -> str:
    return payload_id(reference.secret_id, reference.data_version)


def _config(reference: ConfigReference) -> str:
    return payload_id(reference.config_id, reference.data_version)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Misuse("wrong type for value; expected string")
    return value
