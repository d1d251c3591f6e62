"""Volumes and tmpfs of a compose service as mounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from afterswarm.model.service import BindOptions, Driver, ImageOptions, Mount, TmpfsOptions, VolumeOptions
from afterswarm.stack.names import Names, Trouble
from afterswarm.stack.values import size

Json = dict[str, Any]

_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def mounts(key: str, service: Json, volumes: Json, names: Names, trouble: Trouble) -> list[Mount]:
    found = [_mount(key, wanted, volumes, names, trouble) for wanted in service.get("volumes") or []]
    return [*found, *_tmpfs(service)]


def _mount(key: str, wanted: Json, volumes: Json, names: Names, trouble: Trouble) -> Mount:
    mount = {
        "type": wanted["type"],
        "source": wanted.get("source", ""),
        "target": wanted.get("target", ""),
        "read_only": bool(wanted.get("read_only")),
        "consistency": wanted.get("consistency", ""),
    }
    match wanted["type"]:
        case "volume" if mount["source"]:
            volume = volumes.get(mount["source"]) or {}
            mount["source"] = names.of(mount["source"], volume)
            mount["volume_options"] = _volume(wanted.get("volume") or {}, volume, names)
        case "cluster" if mount["source"]:
            volume = volumes.get(mount["source"]) or {}
            mount["source"] = (
                mount["source"] if mount["source"].startswith("group:") else names.of(mount["source"], volume)
            )
            mount["cluster_options"] = {}
        case "bind":
            mount["bind_options"] = _bind(key, wanted, trouble)
        case "tmpfs":
            given = wanted.get("tmpfs") or {}
            mount["tmpfs_options"] = TmpfsOptions(size_bytes=size(given.get("size")), mode=size(given.get("mode")))
        case "image":
            mount["image_options"] = ImageOptions(subpath=(wanted.get("image") or {}).get("subpath", ""))
        case _:
            pass
    return Mount(**mount)


def _volume(given: Json, volume: Json, names: Names) -> VolumeOptions:
    options = VolumeOptions(no_copy=bool(given.get("nocopy")), subpath=given.get("subpath", ""))
    if volume.get("external"):
        return options
    driver, driver_opts = volume.get("driver", ""), volume.get("driver_opts")
    return VolumeOptions(
        no_copy=options.no_copy,
        subpath=options.subpath,
        labels=names.labels({**(given.get("labels") or {}), **(volume.get("labels") or {})}),
        driver_config=Driver(name=driver, options=dict(driver_opts or {})) if driver or driver_opts else None,
    )


def _bind(key: str, wanted: Json, trouble: Trouble) -> BindOptions | None:
    given = wanted.get("bind") or {}
    if given.get("selinux"):
        trouble.note(
            key, f"volumes: {wanted['target']}: selinux: a mount of a swarm has no relabelling; label the host's files"
        )
    recursive = given.get("recursive", "")
    options = BindOptions(
        propagation=given.get("propagation", ""),
        non_recursive=recursive == "disabled",
        create_mountpoint=given.get("create_host_path") in (True, "true"),
        read_only_non_recursive=recursive == "writable",
        read_only_force_recursive=recursive == "readonly",
    )
    return options if given else None


def _tmpfs(service: Json) -> Iterator[Mount]:
    """`/run:size=64m,mode=1777`: what an engine takes from a mount of a service is its size, its mode and options."""
    for text in service.get("tmpfs") or []:
        target, _, rest = text.partition(":")
        given = dict(word.partition("=")[::2] for word in rest.split(",") if word)
        amount, mode = given.pop("size", ""), given.pop("mode", "")
        number = int(amount.rstrip("bkmgBKMG") or 0) * _UNITS.get(amount.lower().rstrip("b")[-1:], 1)
        further = [[key, value] if value else [key] for key, value in given.items()]
        yield Mount(
            type="tmpfs",
            target=target,
            tmpfs_options=TmpfsOptions(size_bytes=number, mode=int(mode or "0", 8), options=further),
        )
