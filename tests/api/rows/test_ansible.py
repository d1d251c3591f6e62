"""Ansible's community.docker, unmodified: each module does its work, and the second time it has nothing to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: docker_swarm
      community.docker.docker_swarm: {state: present, task_history_retention_limit: 4}
    - name: docker_node
      community.docker.docker_node: {hostname: swarm-3, labels: {disk: ssd}, labels_state: merge, availability: active}
    - name: docker_network
      community.docker.docker_network: {name: back, driver: overlay, attachable: true, scope: swarm}
    - name: docker_secret
      community.docker.docker_secret: {name: pw, data: hush, labels: {tier: db}}
      register: pw
    - name: docker_config
      community.docker.docker_config: {name: conf, data: "a = 1"}
      register: conf
    - name: docker_swarm_service
      community.docker.docker_swarm_service:
        name: web
        image: nginx:1
        resolve_image: false
        replicas: 2
        env: {A: "1", B: "two"}
        labels: {team: a}
        container_labels: {tier: front}
        args: [nginx, -g, daemon off;]
        user: "1000:1000"
        working_dir: /srv
        hostname: "{{ '{{' }}.Task.Name{{ '}}' }}"
        hosts: {db: 10.1.2.3}
        dns: [10.1.1.1]
        dns_search: [example.org]
        cap_drop: [NET_RAW]
        sysctls: {net.core.somaxconn: "512"}
        init: true
        read_only: true
        stop_grace_period: 3s
        stop_signal: SIGINT
        healthcheck: {test: [CMD, "true"], interval: 5s, timeout: 2s, retries: 3, start_period: 1s}
        limits: {cpus: 0.5, memory: 64M}
        reservations: {cpus: 0.1, memory: 16M}
        logging: {driver: json-file, options: {max-size: 1m}}
        mounts:
          - {source: data, target: /data, type: volume, labels: {a: b}}
          - {target: /tmp, type: tmpfs, tmpfs_size: 16M}
        networks: [{name: back, aliases: [front]}]
        publish: [{published_port: 8080, target_port: 80, protocol: tcp, mode: ingress}]
        placement: {constraints: [node.platform.os == linux], replicas_max_per_node: 2}
        restart_config: {condition: any, delay: 1s, max_attempts: 3, window: 10s}
        update_config: {parallelism: 2, delay: 1s, order: start-first, failure_action: rollback, monitor: 1s}
        rollback_config: {parallelism: 1, order: stop-first}
        secrets: [{secret_id: "{{ pw.secret_id }}", secret_name: pw, filename: /run/secrets/pw, mode: 0400}]
        configs: [{config_id: "{{ conf.config_id }}", config_name: conf, filename: /etc/app.conf}]
    - name: docker_swarm_service global
      community.docker.docker_swarm_service: {name: agent, image: "agent:1", resolve_image: false, mode: global}
    - name: docker_stack
      community.docker.docker_stack:
        name: clinic
        compose:
          - {version: "3.9", services: {app: {image: "app:1", deploy: {replicas: 2}}}, networks: {front: {}}}
        resolve_image: never
"""
LOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: docker_swarm_info
      community.docker.docker_swarm_info: {nodes: true, services: true, tasks: true, verbose_output: true}
    - name: docker_node_info
      community.docker.docker_node_info: {}
    - name: docker_swarm_service_info
      community.docker.docker_swarm_service_info: {name: web}
    - name: docker_network_info
      community.docker.docker_network_info: {name: back}
    - name: docker_stack_info
      community.docker.docker_stack_info: {}
    - name: docker_stack_task_info
      community.docker.docker_stack_task_info: {name: clinic}
    - name: docker_host_info
      community.docker.docker_host_info: {}
"""
END = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: docker_stack
      community.docker.docker_stack: {name: clinic, state: absent, absent_retries: 10, absent_retries_interval: 1}
    - name: docker_swarm_service
      community.docker.docker_swarm_service: {name: web, state: absent}
    - name: docker_swarm_service global
      community.docker.docker_swarm_service: {name: agent, state: absent}
    - name: docker_secret
      community.docker.docker_secret: {name: pw, state: absent}
    - name: docker_config
      community.docker.docker_config: {name: conf, state: absent}
    - name: docker_network
      community.docker.docker_network: {name: back, state: absent}
"""


class Ansible:
    """Plays on this machine; answers with what each task said of itself."""

    def __init__(self, sock: Path, folder: Path) -> None:
        self._folder = folder
        self._env = os.environ | {
            "DOCKER_HOST": f"unix://{sock}",
            "HOME": str(folder),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
            "ANSIBLE_REMOTE_TEMP": str(folder / "ansible-there"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_PIPELINING": "true",
            "LC_ALL": "C.UTF-8",
        }

    async def play(self, text: str) -> dict[str, Any]:
        (self._folder / "play.yml").write_text(text)
        program = Path(sys.executable).with_name("ansible-playbook")
        words = ("-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", "play.yml")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            program, *words, cwd=self._folder, env=self._env, stdout=pipe, stderr=pipe
        )
        out, err = await process.communicate()
        assert out.startswith(b"{"), (out, err)
        (play,) = json.loads(out)["plays"]
        said = {task["task"]["name"]: task["hosts"]["localhost"] for task in play["tasks"]}
        failed = {name: task.get("msg") or task for name, task in said.items() if task.get("failed")}
        assert not failed
        assert process.returncode == 0, err
        return said


@pytest.mark.row("CL-03", client="Ansible community.docker")
async def test_cl_03_ansible(live: Any, sock: Path, tmp_path: Path) -> None:
    ansible = Ansible(sock, tmp_path)
    first = await ansible.play(PLAY)
    assert {name for name, task in first.items() if not task["changed"]} == set()
    second = await ansible.play(PLAY)
    assert {name: task for name, task in second.items() if task["changed"]} == {}

    seen = await ansible.play(LOOK)
    assert sorted(n["Description"]["Hostname"] for n in seen["docker_node_info"]["nodes"]) == [
        "swarm-1",
        "swarm-2",
        "swarm-3",
    ]
    swarm = seen["docker_swarm_info"]
    assert (swarm["docker_swarm_active"], swarm["docker_swarm_manager"]) == (True, True)
    assert len(swarm["nodes"]) == len(swarm["services"]) == 3
    assert seen["docker_swarm_service_info"]["service"]["Spec"]["Name"] == "web"
    assert seen["docker_network_info"]["exists"]
    assert [s["Name"] for s in seen["docker_stack_info"]["results"]] == ["clinic"]
    assert seen["docker_stack_task_info"]["results"]

    ended = await ansible.play(END)
    assert {name for name, task in ended.items() if not task["changed"]} == set()


DATA = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: docker_secret
      community.docker.docker_secret: {name: pw, data: "%(data)s"}
    - name: docker_config
      community.docker.docker_config: {name: conf, data: "%(data)s"}
    - name: docker_secret with versions
      community.docker.docker_secret: {name: key, data: "%(data)s", rolling_versions: true, versions_to_keep: 2}
      register: key
    - name: docker_config with versions
      community.docker.docker_config: {name: motd, data: "%(data)s", rolling_versions: true, versions_to_keep: 2}
    - name: docker_swarm_service
      community.docker.docker_swarm_service:
        name: web
        image: nginx:1
        resolve_image: false
        secrets: [{secret_id: "{{ key.secret_id }}", secret_name: "{{ key.secret_name }}", filename: /key}]
"""


@pytest.mark.row("CL-03", client="Ansible community.docker")
async def test_cl_03_new_data_by_new_objects(live: Any, api: Any, sock: Path, tmp_path: Path) -> None:
    """The module removes and creates again, or gives each version a name of its own."""
    ansible = Ansible(sock, tmp_path)
    for data in ("old", "new"):
        said = await ansible.play(DATA % {"data": data})
        assert {name for name, task in said.items() if not task["changed"]} == set()
    for kind, names in (("secrets", ["key_v1", "key_v2", "pw"]), ("configs", ["conf", "motd_v1", "motd_v2"])):
        assert sorted(o["Spec"]["Name"] for o in await api.ok("GET", f"/{kind}")) == names
