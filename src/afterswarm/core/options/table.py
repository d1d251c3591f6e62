"""Every option label: how its value is read, where it goes in the engine's create request, what must allow it.

docs/labels.md is the same table for people; a test holds the two together. Labels stay a service's own: they reach
hosts with its tasks (`Task.service_labels`), and a change of one replaces the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from afterswarm.core.options import values
from afterswarm.model.refused import Refused

Json = dict[str, Any]
PREFIX = "afterswarm."
PULL_POLICY = f"{PREFIX}pull-policy"  # what `core.host.container` does about the image
ALLOW = f"{PREFIX}allow"  # a label of the swarm: which of `POWERS` services may use
PRIVILEGED, DEVICES, NAMESPACES = POWERS = ("privileged", "devices", "host-namespaces")


class Option(msgspec.Struct, frozen=True):
    """`read` makes a part of the create request of a label's value. `power`: what must be allowed for this value."""

    read: Callable[[str], Json]
    power: Callable[[str], str] = lambda _: ""


def _host(field: str, read: Callable[[str], Any], power: Callable[[str], str] = lambda _: "") -> Option:
    """A field of `HostConfig`."""
    return Option(lambda text: {"HostConfig": {field: read(text)}}, power)


def _devices(text: str) -> Json:
    paths, names = values.devices(text)
    config: Json = {"Devices": paths} if paths else {}
    if names:
        config["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": names}]
    return {"HostConfig": config}


def _namespace(*words: str) -> Callable[[str], str]:
    """Of another container's namespace nothing is said here: which host that container is on cannot be known."""
    return values.one_of("host", *words)


def _pull_policy(text: str) -> Json:
    """Nothing in the request: it is about what comes before."""
    values.one_of("always", "missing", "never")(text)
    return {}


def _of_the_host(text: str) -> str:
    return NAMESPACES if text == "host" else ""


def _always(power: str) -> Callable[[str], str]:
    return lambda _: power


_LOTS = 1 << 40
_anything = values.number(-(1 << 40), _LOTS)

OPTIONS: dict[str, Option] = {
    "pull-policy": Option(_pull_policy),
    "privileged": _host("Privileged", values.switch, lambda text: PRIVILEGED if text.lower() != "false" else ""),
    "security-opt": _host(
        "SecurityOpt", values.many, lambda text: PRIVILEGED if "systempaths" in text else ""
    ),  # the others are within everybody's reach as `Privileges`, as in Docker
    "devices": Option(_devices, _always(DEVICES)),
    "gpus": Option(lambda text: {"HostConfig": {"DeviceRequests": [values.gpus(text)]}}, _always(DEVICES)),
    "device-requests": _host("DeviceRequests", values.requests, _always(DEVICES)),
    "device-cgroup-rules": _host("DeviceCgroupRules", values.rules, _always(DEVICES)),
    "pid": _host("PidMode", _namespace(), _of_the_host),
    "ipc": _host("IpcMode", _namespace("private", "shareable", "none"), _of_the_host),
    "uts": _host("UTSMode", _namespace(), _of_the_host),
    "userns": _host("UsernsMode", _namespace(), _of_the_host),
    "cgroupns": _host("CgroupnsMode", _namespace("private"), _of_the_host),
    "cgroup-parent": _host("CgroupParent", values.word),
    "runtime": _host("Runtime", values.word),
    "shm-size": _host("ShmSize", values.size),
    "storage-opt": _host("StorageOpt", values.pairs),
    "annotations": _host("Annotations", values.pairs),
    "domainname": Option(lambda text: {"Domainname": values.word(text)}),
    "group-add": _host("GroupAdd", values.many),
    "dns-option": _host("DnsOptions", values.many),
    "oom-score-adj": _host("OomScoreAdj", values.number(-1000, 1000)),
    "oom-kill-disable": _host("OomKillDisable", values.switch),
    "memory-reservation": _host("MemoryReservation", values.size),
    "memory-swap": _host("MemorySwap", lambda text: -1 if text == "-1" else values.size(text)),
    "memory-swappiness": _host("MemorySwappiness", values.number(0, 100)),
    "cpuset-cpus": _host("CpusetCpus", values.word),
    "cpuset-mems": _host("CpusetMems", values.word),
    "cpu-shares": _host("CpuShares", values.number(0, 262_144)),
    "cpu-period": _host("CpuPeriod", values.number(0, 1_000_000)),
    "cpu-quota": _host("CpuQuota", _anything),
    "cpu-rt-period": _host("CpuRealtimePeriod", _anything),
    "cpu-rt-runtime": _host("CpuRealtimeRuntime", _anything),
    "blkio-weight": _host("BlkioWeight", values.number(10, 1000)),
    "blkio-weight-device": _host("BlkioWeightDevice", values.weights),
    "device-read-bps": _host("BlkioDeviceReadBps", values.rates(values.size)),
    "device-write-bps": _host("BlkioDeviceWriteBps", values.rates(values.size)),
    "device-read-iops": _host("BlkioDeviceReadIOps", values.rates(values.number(0, _LOTS))),
    "device-write-iops": _host("BlkioDeviceWriteIOps", values.rates(values.number(0, _LOTS))),
}


def chosen(labels: Mapping[str, str]) -> dict[str, str]:
    """The option labels among these, without their prefix."""
    return {
        name: text
        for label, text in sorted(labels.items())
        if label.startswith(PREFIX) and (name := label.removeprefix(PREFIX)) in OPTIONS
    }


def applied(labels: Mapping[str, str], body: Json) -> Json:
    """The create request `body` with what the labels say. Raises `Refused` (400) for a value that is none."""
    for name, text in chosen(labels).items():
        try:
            body = _merged(body, OPTIONS[name].read(text))
        except ValueError as why:
            raise Refused(400, f"invalid label {PREFIX}{name}={text}: expected {why}") from why
    return body


def check(labels: Mapping[str, str], allowed: str) -> None:
    """Raises `Refused`: 400 for a bad value, 403 for what the swarm's own label `afterswarm.allow` does not name."""
    applied(labels, {})
    powers = {power.strip() for power in allowed.split(",")}
    for name, text in chosen(labels).items():
        power = OPTIONS[name].power(text)
        if power and power not in powers:
            raise Refused(
                403,
                f"label {PREFIX}{name}={text}: this swarm does not allow {power}; "
                f"`afterswarm policy allow {power}` on a manager does",
            )


def _merged(under: Json, over: Json) -> Json:
    """Members of objects one by one; lists after one another."""
    result = dict(under)
    for key, value in over.items():
        below = under.get(key)
        match below, value:
            case dict(), dict():
                result[key] = _merged(below, value)
            case list(), list():
                result[key] = [*below, *value]
            case _:
                result[key] = value
    return result
