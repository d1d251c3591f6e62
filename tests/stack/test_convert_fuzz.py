"""Whatever a compose file says becomes a stack, is complained about, or is `ODD`, which deployments put into words."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from afterswarm.stack.convert import ODD, convert
from afterswarm.stack.names import Names, Trouble

JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(["1s", "64m"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)
SERVICE: dict[str, Any] = {
    "image": "nginx:1",
    "command": ["nginx"],
    "environment": {"A": "1"},
    "ports": [{"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}],
    "volumes": [{"type": "volume", "source": "data", "target": "/data"}, {"type": "tmpfs", "target": "/t"}],
    "networks": {"back": {"aliases": ["front"]}},
    "secrets": [{"source": "pw", "target": "/run/pw", "mode": "0400"}],
    "configs": [{"source": "conf"}],
    "healthcheck": {"test": ["CMD", "true"], "interval": "5s", "retries": 3},
    "depends_on": {"db": {"condition": "service_healthy", "required": True}},
    "deploy": {
        "mode": "replicated",
        "replicas": 2,
        "placement": {"constraints": ["node.role==manager"], "preferences": [{"spread": "node.labels.a"}]},
        "resources": {"limits": {"cpus": 0.5, "memory": "64m", "pids": 9}},
        "restart_policy": {"condition": "any", "delay": "1s", "max_attempts": 3},
        "update_config": {"parallelism": 2, "delay": "1s", "order": "start-first", "max_failure_ratio": 0.1},
    },
    "ulimits": {"nofile": {"soft": 1, "hard": 2}},
    "sysctls": {"net.core.somaxconn": 512},
    "extra_hosts": ["db=10.1.1.1"],
    "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
    "devices": [{"source": "/dev/fuse", "target": "/dev/fuse", "permissions": "rwm"}],
    "stop_grace_period": "3s",
}
MODEL: dict[str, Any] = {
    "name": "p",
    "services": {"web": SERVICE},
    "networks": {"back": {"driver": "overlay", "ipam": {"config": [{"subnet": "10.9.0.0/24"}]}}},
    "volumes": {"data": {"driver": "local", "driver_opts": {"type": "nfs"}}},
    "secrets": {"pw": {"environment": "KEY"}},
    "configs": {"conf": {"content": "a = 1"}},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [deeper for key in keys for deeper in ((*path, key), *places(value[key], (*path, key)))]


INSIDE = [path for path in places(MODEL) if path[0] == "services" and len(path) > 2]


@settings(max_examples=300, deadline=None)
@given(where=st.sampled_from(INSIDE), what=JUNK)
def test_a_service_with_something_else_in_it(where: tuple[Any, ...], what: Any) -> None:
    model = copy.deepcopy(MODEL)
    *path, last = where
    found: Any = model
    for key in path:
        found = found[key]
    found[last] = what
    trouble = Trouble()
    try:
        made = convert(model, Names("shop", "p"), {"KEY": "value"}, trouble)
    except ODD:
        return
    assert trouble.refused or len(made.services) == 1
