"""What differs between two specifications of a service, in words; and whether anything does.

Docker's command lines and ours write the same wish in slightly different JSON (null, empty and default are mixed), and
the swarm answers with defaults filled in. So both sides are first made normal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from afterswarm.model.service import SECOND, ReplicatedService, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig

Json = dict[str, Any]

_KEYS = ("Target", "SecretName", "ConfigName", "Name", "PublishedPort")  # by which members of lists are told apart
_LONGEST = 100


def changes(old: ServiceSpec, new: ServiceSpec, networks: Mapping[str, str]) -> list[str]:
    """One line for each field that differs. `networks`: id -> name."""
    before, after = (dict(_flat(normal(spec, networks))) for spec in (old, new))
    lines = []
    for path in sorted(before.keys() | after.keys()):
        was, will = before.get(path), after.get(path)
        if was == will:
            continue
        if was is None:
            lines.append(f"{path}: + {_short(will)}")
        elif will is None:
            lines.append(f"{path}: - {_short(was)}")
        else:
            lines.append(f"{path}: {_short(was)} → {_short(will)}")
    return lines


def same_template(old: ServiceSpec, new: ServiceSpec, networks: Mapping[str, str]) -> bool:
    return bool(_template(old.task_template, networks) == _template(new.task_template, networks))


def normal(spec: ServiceSpec, networks: Mapping[str, str]) -> Json:
    mode = spec.mode
    if mode in (ServiceMode(), ServiceMode(replicated=ReplicatedService())):
        mode = ServiceMode(replicated=ReplicatedService(replicas=1))
    endpoint = spec.endpoint_spec
    if endpoint and endpoint.mode == "vip":
        endpoint = replace(endpoint, mode="")
    rest = replace(
        spec,
        name="",
        task_template=TaskSpec(),
        mode=mode,
        endpoint_spec=endpoint,
        update_config=_rollout(spec.update_config),
        rollback_config=_rollout(spec.rollback_config),
    )
    return {**_pruned(msgspec.to_builtins(rest)), **_template(spec.task_template, networks)}


def _rollout(config: UpdateConfig | None) -> UpdateConfig | None:
    if config is None:
        return None
    filled = replace(
        config,
        parallelism=1 if config.parallelism is None else config.parallelism,
        failure_action=config.failure_action or "pause",
        monitor=config.monitor or 5 * SECOND,
        order=config.order or "stop-first",
    )
    return (
        None
        if filled == UpdateConfig(parallelism=1, failure_action="pause", monitor=5 * SECOND, order="stop-first")
        else filled
    )


def _template(template: TaskSpec, networks: Mapping[str, str]) -> Json:
    """A container's fields stand beside the others: what belongs where is for programs."""
    runtime = "" if template.runtime == "container" else template.runtime
    attached = [replace(n, target=networks.get(n.target, n.target)) for n in template.networks]
    policy = template.restart_policy
    shown = msgspec.to_builtins(
        replace(template, force_update=0, runtime=runtime, networks=sorted(attached, key=lambda n: n.target))
    )
    container = shown.pop("ContainerSpec", {})
    if container.get("Isolation") == "default":
        del container["Isolation"]
    container["Env"] = dict(entry.partition("=")[::2] for entry in container.get("Env", []))
    if policy:
        shown["RestartPolicy"] = {"Condition": "any", **shown["RestartPolicy"]}
    labels = container.pop("Labels", {})
    return dict(_pruned({**shown, **container, "ContainerLabels": labels}))


def _pruned(value: Any) -> Any:
    """Without what says nothing. Zero says something."""
    match value:
        case dict():
            found = {key: _pruned(item) for key, item in value.items()}
            return {key: item for key, item in found.items() if item not in (None, "", [], {}) and item is not False}
        case list():
            return [_pruned(item) for item in value]
        case _:
            return value


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict() if value:
            for key, item in value.items():
                yield from _flat(item, f"{path}.{key}" if path else str(key))
        case list() if value and all(isinstance(item, dict) for item in value):
            for n, item in enumerate(value):
                name = next((item[key] for key in _KEYS if key in item), n)
                yield from _flat(item, f"{path}[{name}]")
        case str():
            yield path, value
        case _:
            yield path, msgspec.json.encode(value).decode()


def _short(text: str | None) -> str:
    words = repr(text)[1:-1] if text else '""'
    return words if len(words) <= _LONGEST else words[:_LONGEST] + "…"
