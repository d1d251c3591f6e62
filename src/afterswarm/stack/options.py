"""Compose keys that services of a swarm have no field for, as labels of the service (docs/labels.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from afterswarm.stack.names import Trouble
from afterswarm.stack.values import listed, listed_pairs

Json = dict[str, Any]
PREFIX = "afterswarm."


def _switch(value: object) -> str:
    return "true" if value in (True, "true") else ""


def _whole(value: object) -> str:
    return str(int(float(str(value))))


PLAIN: dict[str, tuple[str, Callable[[Any], str]]] = {  # key -> label, and how its value is written there
    "annotations": ("annotations", listed_pairs),
    "cgroup": ("cgroupns", str),
    "cgroup_parent": ("cgroup-parent", str),
    "cpu_period": ("cpu-period", _whole),
    "cpu_quota": ("cpu-quota", _whole),
    "cpu_rt_period": ("cpu-rt-period", _whole),
    "cpu_rt_runtime": ("cpu-rt-runtime", _whole),
    "cpu_shares": ("cpu-shares", _whole),
    "cpuset": ("cpuset-cpus", str),
    "device_cgroup_rules": ("device-cgroup-rules", listed),
    "domainname": ("domainname", str),
    "ipc": ("ipc", str),
    "mem_reservation": ("memory-reservation", str),
    "mem_swappiness": ("memory-swappiness", _whole),
    "memswap_limit": ("memory-swap", str),
    "oom_kill_disable": ("oom-kill-disable", _switch),
    "pid": ("pid", str),
    "privileged": ("privileged", _switch),
    "runtime": ("runtime", str),
    "shm_size": ("shm-size", str),
    "storage_opt": ("storage-opt", listed_pairs),
    "userns_mode": ("userns", str),
    "uts": ("uts", str),
}
OWN = ("blkio_config", "depends_on", "devices", "gpus", "security_opt")  # keys that are read below
_RATES = ("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops")
_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}
_ANYWHERE = ("", "0.0.0.0", "::")


def labels(key: str, service: Json, trouble: Trouble) -> dict[str, str]:
    """The labels that say what fields of a service cannot."""
    found = {
        label: write(service[word]) for word, (label, write) in PLAIN.items() if service.get(word) not in (None, [], {})
    }
    for word in ("ipc", "pid"):
        if found.get(word, "").partition(":")[0] in ("service", "container"):
            trouble.refuse(key, f"{word}: {found.pop(word)} cannot be had: the two may run on different hosts")
    found |= dict(_blkio(service.get("blkio_config") or {}))
    if devices := service.get("devices"):
        found["devices"] = listed([_device(device) for device in devices])
    found |= _gpus(service)
    if options := service.get("security_opt"):
        found["security-opt"] = listed([_security(key, option, trouble) for option in options])
    found["depends-on"] = _depends_on(service.get("depends_on") or {})
    found["publish-ip"] = _publish_ip(key, service.get("ports") or [], trouble)
    return {f"{PREFIX}{label}": text for label, text in sorted(found.items()) if text}


def _device(device: Json) -> str:
    source, target = str(device["source"]), str(device.get("target") or device["source"])
    if not source.startswith("/"):
        return source  # a name of the Container Device Interface
    return f"{source}:{target}:{device.get('permissions') or 'rwm'}"


def _gpus(service: Json) -> dict[str, str]:
    """`gpus`, and the devices that `deploy` reserves, which are one thing to the engine."""
    reservations = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    wanted = [{"capabilities": ["gpu"], **gpu} for gpu in service.get("gpus") or []]
    wanted += reservations.get("devices") or []
    if not wanted:
        return {}
    return {"device-requests": msgspec.json.encode([_request(device) for device in wanted]).decode()}


def _request(device: Json) -> Json:
    count = device.get("count", 0 if device.get("device_ids") else -1)
    request: Json = {"Capabilities": [device.get("capabilities") or ["gpu"]]}
    if device.get("driver"):
        request["Driver"] = device["driver"]
    if device.get("device_ids"):
        request["DeviceIDs"] = device["device_ids"]
    else:
        request["Count"] = -1 if count == "all" else int(count)
    if device.get("options"):
        request["Options"] = {key: str(value) for key, value in device["options"].items()}
    return request


def _security(key: str, option: str, trouble: Trouble) -> str:
    """A seccomp profile is sent as it is written in its file here: hosts do not have the file."""
    mark = "=" if "=" in option else ":"
    word, _, value = option.partition(mark)
    if word != "seccomp" or value in ("unconfined", "builtin"):
        return f"{word}={value}" if value else word
    try:
        profile = Path(value).read_bytes()
        return f"seccomp={msgspec.json.encode(msgspec.json.decode(profile)).decode()}"
    except (OSError, msgspec.DecodeError) as why:
        trouble.refuse(key, f"security_opt: {option}: {why}")
        return option


def _blkio(config: Json) -> Iterator[tuple[str, str]]:
    """Compose spells the members of these lists in two ways."""
    if weight := config.get("weight"):
        yield "blkio-weight", str(weight)
    for word, label in (("weight_device", "blkio-weight-device"), *((rate, rate.replace("_", "-")) for rate in _RATES)):
        items = [{name.lower(): value for name, value in item.items()} for item in config.get(word) or []]
        if items:
            yield label, listed([f"{item['path']}:{item.get('rate', item.get('weight'))}" for item in items])


def _depends_on(wanted: Json) -> str:
    return ",".join(_dependency(name, how) for name, how in sorted(wanted.items()))


def _dependency(name: str, how: Json) -> str:
    condition = _CONDITIONS[how.get("condition", "service_started")]
    return f"{name}:{condition}" if how.get("required", True) else f"{name}:{condition}:optional"


def _publish_ip(key: str, ports: list[Json], trouble: Trouble) -> str:
    found = set()
    for port in ports:
        address = port.get("host_ip", "")
        if ":" in address and address not in _ANYWHERE:
            trouble.refuse(key, f"ports: {address}: published ports answer on IPv4 addresses only")
        elif address not in _ANYWHERE:
            found.add(f"{address}:{port.get('published') or 0}/{port['protocol']}")
    return ",".join(sorted(found))
