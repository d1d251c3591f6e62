"""Secrets and configs: the objects of a stack, and how its services refer to them (by name; ids come when deployed)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from afterswarm.model.secret import ConfigSpec, SecretSpec
from afterswarm.model.service import ConfigReference, Driver, FileTarget, SecretReference
from afterswarm.stack.names import Names, Trouble
from afterswarm.stack.values import mode

Json = dict[str, Any]

_SECRETS = "/run/secrets/"  # where Compose writes relative targets out to; Docker leaves that to the host


def secrets_of(service: Json, model: Json, names: Names) -> list[SecretReference]:
    declared = model.get("secrets") or {}
    found = [
        SecretReference(
            secret_name=names.of(given["source"], declared.get(given["source"])),
            file=_target(given, str(given.get("target") or given["source"]).removeprefix(_SECRETS)),
        )
        for given in service.get("secrets") or []
    ]
    return sorted(found, key=lambda s: s.secret_name)


def configs_of(service: Json, model: Json, names: Names) -> list[ConfigReference]:
    declared = model.get("configs") or {}
    found = [
        ConfigReference(
            config_name=names.of(given["source"], declared.get(given["source"])),
            file=_target(given, str(given.get("target") or given["source"])),
        )
        for given in service.get("configs") or []
    ]
    if credential := (service.get("credential_spec") or {}).get("config"):
        found.append(ConfigReference(config_name=names.of(credential, declared.get(credential)), runtime={}))
    return sorted(found, key=lambda c: c.config_name)


def _target(given: Json, name: str) -> FileTarget:
    return FileTarget(
        name=name, uid=str(given.get("uid") or "0"), gid=str(given.get("gid") or "0"), mode=mode(given.get("mode"))
    )


class Payloads:
    """Where the data of secrets and configs comes from. `read` is given the path of a file."""

    def __init__(
        self, environment: Mapping[str, str], trouble: Trouble, read: Callable[[str], bytes] | None = None
    ) -> None:
        self._environment = environment
        self._trouble = trouble
        self._read = read or (lambda path: Path(path).read_bytes())

    def of(self, kind: str, key: str, item: Json) -> str:
        """Base64, as the API takes it."""
        return b64encode(self._clear(kind, key, item)).decode()

    def _clear(self, kind: str, key: str, item: Json) -> bytes:
        if "content" in item:
            return str(item["content"]).encode()
        if variable := item.get("environment"):
            if variable in self._environment:
                return self._environment[variable].encode()
            self._trouble.refused.append(f"{kind} {key}: environment variable {variable} is not set")
        elif file := item.get("file"):
            try:
                return self._read(file)
            except OSError as why:
                self._trouble.refused.append(f"{kind} {key}: {why}")
        return b""


def secrets(model: Json, names: Names, payloads: Payloads) -> list[SecretSpec]:
    """Those of the stack itself; external ones are not its own."""
    return [
        SecretSpec(
            name=names.of(key, item),
            labels=names.labels(item.get("labels")),
            data="" if item.get("driver") else payloads.of("secret", key, item),
            driver=_driver(item),
            templating=Driver(name=item["template_driver"]) if item.get("template_driver") else None,
        )
        for key, item in sorted((model.get("secrets") or {}).items())
        if not item.get("external")
    ]


def configs(model: Json, names: Names, payloads: Payloads) -> list[ConfigSpec]:
    return [
        ConfigSpec(
            name=names.of(key, item),
            labels=names.labels(item.get("labels")),
            data=payloads.of("config", key, item),
            templating=Driver(name=item["template_driver"]) if item.get("template_driver") else None,
        )
        for key, item in sorted((model.get("configs") or {}).items())
        if not item.get("external")
    ]


def _driver(item: Json) -> Driver | None:
    options = {key: str(value) for key, value in (item.get("driver_opts") or {}).items()}
    return Driver(name=item["driver"], options=options) if item.get("driver") else None
