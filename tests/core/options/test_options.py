"""Labels in place of options that services lack: what the engine gets, what is refused, and by whose leave."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from afterswarm.core import dependencies, publishing
from afterswarm.core.dns import named_ports
from afterswarm.core.options import traffic
from afterswarm.core.options.table import ALLOW, OPTIONS, POWERS, PREFIX, applied, check
from afterswarm.core.schedule import volumes
from afterswarm.model import floating
from afterswarm.model.refused import Refused

DOCS = Path(__file__).parents[3] / "docs" / "labels.md"
GOOD = {
    "privileged=true": {"Privileged": True},
    "security-opt=apparmor=unconfined,label=disable": {"SecurityOpt": ["apparmor=unconfined", "label=disable"]},
    'security-opt=["seccomp={\\"a\\": [1, 2]}"]': {"SecurityOpt": ['seccomp={"a": [1, 2]}']},
    "devices=/dev/a:/dev/b:rw,/dev/c:r,/dev/d:/dev/e,v.com/x=1": {
        "Devices": [
            {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"},
            {"PathOnHost": "/dev/c", "PathInContainer": "/dev/c", "CgroupPermissions": "r"},
            {"PathOnHost": "/dev/d", "PathInContainer": "/dev/e", "CgroupPermissions": "rwm"},
        ],
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["v.com/x=1"]}],
    },
    "gpus=all": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
    'gpus="device=0,2","capabilities=compute,utility",driver=nvidia': {
        "DeviceRequests": [
            {"DeviceIDs": ["0", "2"], "Capabilities": [["gpu", "compute", "utility"]], "Driver": "nvidia"}
        ]
    },
    'device-requests=[{"Driver": "x", "Count": 1}]': {"DeviceRequests": [{"Driver": "x", "Count": 1}]},
    "device-cgroup-rules=c 42:* rmw,b 8:1 r": {"DeviceCgroupRules": ["c 42:* rmw", "b 8:1 r"]},
    "pid=host": {"PidMode": "host"},
    "ipc=shareable": {"IpcMode": "shareable"},
    "shm-size=1.5k": {"ShmSize": 1536},
    "shm-size=64MiB": {"ShmSize": 64 << 20},
    "storage-opt=size=10G": {"StorageOpt": {"size": "10G"}},
    "memory-swap=-1": {"MemorySwap": -1},
    "blkio-weight-device=/dev/sda:200": {"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}]},
    "device-read-bps=/dev/sda:1mb,/dev/b:2": {
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1 << 20}, {"Path": "/dev/b", "Rate": 2}]
    },
    "cpu-quota=-1": {"CpuQuota": -1},
}
BAD = [
    "privileged=yes", "shm-size=64 lots", "shm-size=", "devices=dev/a", "devices=/dev/a:/b:q", "devices=/dev/a:b",
    "devices=/a:/b:rw:x", "gpus=many", "gpus=count=1,device=0", "gpus=", "device-requests={}",
    'device-requests=[{"Nonsense": 1}]', "device-cgroup-rules=everything", "pid=container:x", "ipc=mine",
    "storage-opt=size", "oom-score-adj=1001", "cpuset-cpus= ", "blkio-weight=5", "device-read-bps=sda:1",
    "group-add=[1]", "group-add=a,,b", "memory-swappiness=1e3", 'security-opt=["a"',
]  # fmt: skip


def labels(text: str) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {f"afterswarm.{key}": value}


@pytest.mark.parametrize("text", GOOD)
def test_a_label_is_what_the_engine_gets(text):
    assert applied(labels(text), {})["HostConfig"] == GOOD[text]


def test_labels_come_on_top_of_what_the_service_says():
    body = {"Image": "x", "HostConfig": {"GroupAdd": ["adm"], "OomScoreAdj": 0}}
    got = applied({"afterswarm.group-add": "44", "afterswarm.oom-score-adj": "5", "other": "label"}, body)
    assert got == {"Image": "x", "HostConfig": {"GroupAdd": ["adm", "44"], "OomScoreAdj": 5}}
    assert applied({"afterswarm.domainname": "example.org"}, body) == {**body, "Domainname": "example.org"}


@pytest.mark.parametrize("text", BAD)
def test_a_value_that_is_none_is_refused_with_the_label_and_what_was_expected(text):
    with pytest.raises(Refused, match=f"invalid label afterswarm.{re.escape(text)}: expected ") as refused:
        check(labels(text), ",".join(POWERS))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("text", "power"),
    [
        ("privileged=true", "privileged"),
        ("security-opt=systempaths=unconfined", "privileged"),
        ("devices=/dev/a", "devices"),
        ("gpus=all", "devices"),
        ("device-requests=[]", "devices"),
        ("device-cgroup-rules=a *:* rwm", "devices"),
        ("pid=host", "host-namespaces"),
        ("ipc=host", "host-namespaces"),
        ("uts=host", "host-namespaces"),
        ("userns=host", "host-namespaces"),
        ("cgroupns=host", "host-namespaces"),
    ],
)
def test_power_over_the_host_needs_the_swarms_leave(text, power):
    with pytest.raises(Refused, match=f"`afterswarm policy allow {power}`") as refused:
        check(labels(text), ",".join(p for p in POWERS if p != power))
    assert refused.value.status == 403
    check(labels(text), power)


def test_what_gives_no_power_needs_no_leave():
    for text in ("privileged=false", "ipc=private", "cgroupns=private", "shm-size=1m", "security-opt=label=disable"):
        check(labels(text), "")


def test_the_page_for_people_has_every_label_and_no_other():
    rows = [line.split("|")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `afterswarm.")]
    known = (dependencies.LABEL, named_ports.LABEL, publishing.LABEL, traffic.DRAIN, traffic.MESH, volumes.LABEL)
    known += (ALLOW, floating.LABEL, floating.LABEL)  # of the swarm, and of nodes
    others = [label.removeprefix(PREFIX) for label in known]
    assert sorted(re.findall(r"`afterswarm\.([\w-]+)`", " ".join(rows))) == sorted([*OPTIONS, *others])
