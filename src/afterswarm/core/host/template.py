"""What the templates of a task can say: its service, its node, itself. They are in host names, environment and mounts.

Source: SwarmKit's `template/context.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from afterswarm.core import template
from afterswarm.core.template.values import Fields
from afterswarm.model.refused import Refused
from afterswarm.model.service import ContainerSpec, Mount, VolumeOptions

Expand = Callable[[str], str]


def context(
    *, service: Mapping[str, Any], node: Mapping[str, Any], platform: Mapping[str, str], task: Mapping[str, str]
) -> Fields:
    return Fields(
        "*template.Context",
        Service=Fields("struct { ID string; Name string; Labels map[string]string }", **service),
        Node=Fields(
            "struct { ID string; Hostname string; Platform template.Platform }",
            **node,
            Platform=Fields("template.Platform", **platform),
        ),
        Task=Fields("struct { ID string; Name string; Slot string }", **task),
    )


def expanded(spec: ContainerSpec, fields: Fields) -> ContainerSpec:
    """The specification with its templates replaced. Raises `Refused`, in Docker's words."""

    def within(what: str) -> Expand:
        def expand(text: str) -> str:
            try:
                return template.expand(text, fields)
            except template.Fault as why:
                raise Refused(400, f"{what}: {why}") from None

        return expand

    return replace(
        spec,
        hostname=within("expanding hostname failed")(spec.hostname),
        env=[_env(entry, within(f'expanding env failed: expanding env "{entry}"')) for entry in spec.env],
        mounts=[_mount(mount, within) for mount in spec.mounts],
    )


def _env(entry: str, expand: Expand) -> str:
    """A variable's name is no template."""
    name, equals, value = entry.partition("=")
    return f"{name}={expand(value)}" if equals else entry


def _mount(mount: Mount, within: Callable[[str], Expand]) -> Mount:
    failed = "expanding mounts failed: expanding"
    return replace(
        mount,
        source=within(f'{failed} mount source "{mount.source}"')(mount.source),
        target=within(f'{failed} mount target "{mount.target}"')(mount.target),
        volume_options=_volume(mount.volume_options, within) if mount.volume_options else None,
    )


def _volume(options: VolumeOptions, within: Callable[[str], Expand]) -> VolumeOptions:
    failed = "expanding mounts failed: expanding volume"
    driver = options.driver_config
    return replace(
        options,
        labels=_map(options.labels, within(f"{failed} labels")),
        driver_config=replace(driver, options=_map(driver.options, within(f"{failed} driver config")))
        if driver
        else None,
    )


def _map(values: Mapping[str, str], expand: Expand) -> dict[str, str]:
    return {key: expand(value) for key, value in values.items()}
