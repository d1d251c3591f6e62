"""From a file with everything in it to what the swarm admits: Compose's spelling is what the conversion expects."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterswarm.core.admit import service_spec
from afterswarm.core.options import table
from afterswarm.stack import reader
from afterswarm.stack.convert import ODD, convert
from afterswarm.stack.names import Names, Trouble
from afterswarm.stack.plan import Running, There, referring
from afterswarm.stack.reader import Source, Unreadable

try:
    reader.compose()
except Unreadable as why:
    pytest.skip(str(why), allow_module_level=True)

EVERYTHING = """
services:
  a:
    image: x
    user: "1000"
    ports: ["127.0.0.1:8080:80", "9000-9002:90-92/udp", {target: 1, published: "2", mode: host, name: foo}]
    expose: [3]
    restart: always
    healthcheck: {test: "curl x", interval: 1m30s, timeout: 500ms, start_interval: 1s, retries: 3}
    ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}}
    blkio_config: {weight: 30, device_read_bps: [{path: /d, rate: 12mb}], weight_device: [{path: /d, weight: 20}]}
    init: true
    sysctls: [net.core.somaxconn=1]
    logging: {driver: json-file, options: {max-size: 1m}}
    storage_opt: {size: 1G}
    group_add: [a, 3]
    security_opt: ["no-new-privileges:true", "seccomp:unconfined"]
    tmpfs: ["/x:size=10m,mode=1777", /yy]
    volumes: ["/anonymous", "data:/b:nocopy", "./x:/y:ro", {type: tmpfs, target: /t, tmpfs: {size: 10m}}]
    platform: linux/arm64
    attach: false
    develop: {watch: []}
    secrets: [{source: r, uid: "1", mode: 0400}, s]
    configs: [c, {source: d, target: /d, mode: 0440}]
    annotations: {a: b}
    cgroup: private
    cgroup_parent: /p
    runtime: runsc
    mem_limit: 1g
    mem_reservation: 512m
    mem_swappiness: 3
    memswap_limit: 2g
    pids_limit: 10
    cpus: 0.5
    oom_kill_disable: true
    oom_score_adj: 3
    cpuset: "0"
    cpu_shares: 3
    cpu_period: 100000
    uts: host
    pid: host
    ipc: shareable
    userns_mode: host
    privileged: true
    devices: ["/dev/null:/dev/x:r", "vendor.com/class=name"]
    device_cgroup_rules: ["c 1:3 mr"]
    gpus: all
    shm_size: 64m
    dns: 1.1.1.1
    dns_opt: [ndots:1]
    dns_search: b
    domainname: x
    hostname: "{{.Node.Hostname}}"
    extra_hosts: ["h:::1", "g:1.2.3.4"]
    scale: 2
    stdin_open: true
    tty: true
    stop_signal: SIGINT
    stop_grace_period: 1h2m3.5s
    working_dir: /w
    cap_add: [net_admin]
    cap_drop: [ALL]
    read_only: true
    entrypoint: sh -c "x y"
    command: a "b c"
    environment: [A, "B=", "C=1"]
    depends_on: {b: {condition: service_healthy, restart: true}, j: {condition: service_completed_successfully}}
    networks: {default: {aliases: [q]}, n: null}
    deploy:
      labels: {l: "1"}
      endpoint_mode: vip
      update_config: {parallelism: 0, delay: 1m30s, order: start-first, failure_action: rollback}
      rollback_config: {monitor: 10s}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 1m}
      placement: {constraints: ["node.role==worker"], preferences: [{spread: node.labels.z}], max_replicas_per_node: 2}
      resources:
        reservations:
          cpus: "0.1"
          memory: 512m
          generic_resources: [{discrete_resource_spec: {kind: ssd, value: 2}}]
  b: {image: b, network_mode: host, healthcheck: {disable: true}}
  j: {image: j, deploy: {mode: replicated-job, replicas: 2}}
  g: {image: g, deploy: {mode: global, endpoint_mode: dnsrr}}
volumes: {data: {driver_opts: {type: nfs}, labels: [l=1]}}
networks: {n: {driver: overlay, attachable: true, internal: true, ipam: {config: [{subnet: 10.1.0.0/24}]}}}
secrets: {r: {environment: PATH}, s: {file: ./compose.yaml}}
configs: {c: {content: "costs $$5"}, d: {file: ./compose.yaml, template_driver: golang}}
"""


def test_everything_at_once(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(EVERYTHING)
    model = reader.read(Source(files=[str(file)]), "Shop")
    trouble = Trouble()
    stack = convert(model.content, Names("Shop", model.project), model.environment, trouble)
    assert (trouble.refused, trouble.notes) == ([], [])
    assert [w.spec.name for w in stack.services] == ["Shop_b", "Shop_g", "Shop_j", "Shop_a"]
    there = Running(
        secrets={s.name: There(f"id-{s.name}", 1, s) for s in stack.secrets},
        configs={c.name: There(f"id-{c.name}", 1, c) for c in stack.configs},
    )
    for wanted in stack.services:
        service_spec.checked(referring(wanted.spec, there))
        table.check(wanted.spec.labels, ",".join(table.POWERS))
    labels = stack.services[-1].spec.labels
    assert len([name for name in labels if name.startswith("afterswarm.")]) == 28
    assert {n.name for n in stack.networks} == {"Shop_default", "Shop_n"}
    assert stack.configs[0].data == "Y29zdHMgJDU="


KEYS = st.sampled_from(
    sorted(
        {
            line.split(":")[0].strip()
            for line in EVERYTHING.splitlines()
            if line.startswith("    ") and ":" in line and line[4] != " "
        }
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.sampled_from(["", "a", "1", "/x", "1s", "host", "a=b", "10%", "8000-9000", "service:b"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["source", "target", "type", "size", "a"]), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_whatever_is_in_a_service_there_is_an_answer(service: dict[str, object]) -> None:
    """Also what Compose would not let through: no other error comes out than those that a deployment explains."""
    with suppress(*ODD):
        convert({"name": "s", "services": {"a": {"image": "x", **service}}}, Names("s", "s"), {}, Trouble())
