"""Secrets and configs as files of this host."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from afterswarm.agent.containers.files import Files, FilesRefused, NotHere, mount_tmpfs
from afterswarm.core.host.container_config import Place
from afterswarm.model.refused import Refused
from afterswarm.model.service import ConfigReference, ContainerSpec, FileTarget, SecretReference, TaskSpec
from afterswarm.model.session import SecretData
from afterswarm.model.task import Task

PLACE = Place(node_id="n1", hostname="swarm-1")
SECRETS = {"s1": SecretData(id="s1", name="password", data=b"sesame")}
CONFIGS = {"c1": SecretData(id="c1", name="web.conf", data=b"listen 80;")}


def a_task(**spec):
    return Task(id="t1", spec=TaskSpec(container_spec=ContainerSpec(**spec)))


def a_secret(**file):
    return SecretReference(secret_id="s1", secret_name="password", file=FileTarget(**file) if file else None)


def a_config(**file):
    return ConfigReference(config_id="c1", config_name="web.conf", file=FileTarget(**file) if file else None)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path, mount=lambda _: None)


def test_a_template_is_carried_out_for_its_task_and_only_there(files):
    host = "{{.Task.Name}} on {{.Node.Hostname}}: {{env `MODE`}} {{secret `password`}} {{config `web.conf`}}"
    configs = {"c2": SecretData(id="c2", name="t", data=host.encode(), templating="golang"), **CONFIGS}
    spec = {
        "env": ["MODE={{.Service.Name}}"],
        "secrets": [a_secret(name="password")],
        "configs": [
            a_config(name="web.conf"),
            ConfigReference(config_id="c2", config_name="t", file=FileTarget(name="/t")),
        ],
    }
    task = replace(a_task(**spec), service_name="shop", slot=2)
    made = files.write(task, SECRETS, configs, place=PLACE)
    assert Path(made["/t"]).read_text() == "shop.2.t1 on swarm-1: shop sesame listen 80;"
    assert Path(made["/web.conf"]).read_bytes() == b"listen 80;"


@pytest.mark.parametrize(
    ("text", "driver", "words"),
    [
        ("{{secret `other`}}", "golang", "at <secret `other`>: error calling secret: secret target other not found"),
        ("{{.Nope}}", "golang", "can't evaluate field Nope"),
        ("x", "jinja", "unrecognized template type"),
    ],
)
def test_a_template_that_cannot_be_carried_out_is_named(files, text, driver, words):
    secrets = {"s1": SecretData(id="s1", name="password", data=text.encode(), templating=driver)}
    with pytest.raises(Refused, match=f"failed to expand templated secret password: .*{re.escape(words)}"):
        files.write(a_task(secrets=[a_secret()]), secrets, {}, place=PLACE)


def test_what_is_no_text_is_a_template_all_the_same(files):
    secrets = {"s1": SecretData(id="s1", name="password", data=b"\xff{{.Task.ID}}\xfe", templating="golang")}
    (path,) = files.write(a_task(secrets=[a_secret()]), secrets, {}, place=PLACE).values()
    assert Path(path).read_bytes() == b"\xfft1\xfe"


def test_targets_are_where_docker_puts_them(files):
    spec = {
        "secrets": [a_secret(), a_secret(name="other"), a_secret(name="/etc/key")],
        "configs": [a_config(), a_config(name="/etc/nginx.conf")],
    }
    made = files.write(a_task(**spec), SECRETS, CONFIGS, place=PLACE)
    assert list(made) == ["/run/secrets/password", "/run/secrets/other", "/etc/key", "/web.conf", "/etc/nginx.conf"]
    assert [Path(p).read_bytes() for p in made.values()] == [b"sesame"] * 3 + [b"listen 80;"] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_owner_and_mode_are_the_users(files):
    (path,) = files.write(
        a_task(secrets=[a_secret(name="p", uid="101", gid="102", mode=0o440)]), SECRETS, {}, place=PLACE
    ).values()
    found = Path(path).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (101, 102, 0o440)


def test_a_mode_of_docker_is_the_default(files):
    (path,) = files.write(a_task(secrets=[a_secret()]), SECRETS, {}, place=PLACE).values()
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o444


def test_nobody_else_on_the_host_can_look(files):
    files.write(a_task(secrets=[a_secret()]), SECRETS, {}, place=PLACE)
    assert stat.S_IMODE(files.root.stat().st_mode) == 0o700


def test_writing_again_keeps_the_inode_that_a_container_mounts(files):
    task = a_task(secrets=[a_secret()])
    (path,) = files.write(task, SECRETS, {}, place=PLACE).values()
    inode = Path(path).stat().st_ino
    assert files.write(task, SECRETS, {}, place=PLACE) == {"/run/secrets/password": path}
    assert Path(path).stat().st_ino == inode


def test_a_secret_that_has_not_come_yet_is_named(files):
    with pytest.raises(NotHere, match=r"waiting for secret password, config web\.conf"):
        files.write(a_task(secrets=[a_secret()], configs=[a_config()]), {}, {}, place=PLACE)
    assert not files.root.exists()


def test_an_owner_by_name_is_refused(files):
    with pytest.raises(FilesRefused, match='"postgres"'):
        files.write(a_task(secrets=[a_secret(name="p", uid="postgres")]), SECRETS, {}, place=PLACE)


def test_a_config_for_the_runtime_is_no_file(files):
    config = ConfigReference(config_id="c9", config_name="credentials", runtime={})
    assert files.write(a_task(configs=[config]), {}, {}, place=PLACE) == {}


def test_files_go_with_their_task(files):
    files.write(a_task(secrets=[a_secret()]), SECRETS, {}, place=PLACE)
    files.keep({"t1"})
    assert (files.root / "t1").exists()
    files.keep({"t2"})
    assert not (files.root / "t1").exists()
    files.write(a_task(secrets=[a_secret()]), SECRETS, {}, place=PLACE)
    files.remove("t1")
    files.remove("t1")
    assert not (files.root / "t1").exists()


def test_where_no_memory_file_system_can_be_made_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake = tmp_path / "mount"
    fake.write_text("#!/bin/sh\necho 'mount: permission denied.' >&2\nexit 32\n")
    fake.chmod(0o755)
    files = Files(tmp_path / "run")
    with pytest.raises(FilesRefused, match=r"permission denied.*root"):
        files.write(a_task(secrets=[a_secret()]), SECRETS, {}, place=PLACE)
    assert list(files.root.iterdir()) == []


@pytest.mark.real
def test_a_real_memory_file_system_is_made_once_and_stays(tmp_path):
    files = Files(tmp_path)
    task = a_task(secrets=[a_secret()])
    try:
        (path,) = files.write(task, SECRETS, {}, place=PLACE).values()
        assert files.root.is_mount()
        kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
        assert kind.stdout.strip() == "tmpfs"
        mount_tmpfs(files.root)
        assert Path(path).read_bytes() == b"sesame"
    finally:
        subprocess.run(["umount", str(files.root)], check=True)
