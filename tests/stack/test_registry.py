"""Credentials and digests, as the docker command line finds them."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from afterswarm.http.errors import HttpError
from afterswarm.model.service import ContainerSpec, Platform, ServiceSpec, TaskSpec
from afterswarm.stack import registry


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("nginx", registry.HUB),
        ("user/app:1", registry.HUB),
        ("docker.io/library/nginx", registry.HUB),
        ("localhost/app", "localhost"),
        ("reg.example.org:5000/a/b@sha256:1", "reg.example.org:5000"),
    ],
)
def test_whose_credentials(image: str, server: str) -> None:
    assert registry.server(image) == server


@pytest.mark.parametrize(
    ("image", "familiar"),
    [("nginx", "nginx:latest"), ("docker.io/library/nginx:1", "nginx:1"), ("r:5000/a", "r:5000/a:latest")],
)
def test_familiar_names(image: str, familiar: str) -> None:
    assert registry.familiar(image) == familiar


def test_credentials_are_read_from_docker_s_file(tmp_path: Path) -> None:
    assert registry.auth("r.io/x", tmp_path) == ""
    auths = {"r.io": {"auth": b64encode(b"me:pass:word").decode()}, "t.io": {"identitytoken": "t"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert read("r.io/x", tmp_path) == {"username": "me", "password": "pass:word", "serveraddress": "r.io"}
    assert read("t.io/x", tmp_path)["identitytoken"] == "t"
    assert registry.auth("other.io/x", tmp_path) == ""


def test_credentials_are_asked_of_a_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-toy"
    helper.write_text('#!/bin/sh\nread server\necho "{\\"Username\\":\\"me\\",\\"Secret\\":\\"for $server\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"r.io": "toy"}, "credsStore": "none"}))
    assert read("r.io/x", tmp_path)["password"] == "for r.io"
    assert registry.auth("nginx", tmp_path) == "", "a helper that is not there has none"


def read(image: str, folder: Path) -> Any:
    return json.loads(urlsafe_b64decode(registry.auth(image, folder)))


class Told:
    """In place of the swarm: what a registry says."""

    def __init__(self, said: Any) -> None:
        self._said = said

    async def distribution(self, _image: str, _auth: str) -> Any:
        if isinstance(self._said, Exception):
            raise self._said
        return self._said


async def test_an_image_is_pinned_to_its_digest() -> None:
    spec = ServiceSpec(name="w", task_template=TaskSpec(container_spec=ContainerSpec(image="nginx")))
    said = {"Descriptor": {"digest": "sha256:1"}, "Platforms": [{"os": "linux", "architecture": "arm"}]}
    made, words = await registry.resolved(Told(said), spec, "")  # type: ignore[arg-type]
    assert not words
    assert made.task_template.container_spec == ContainerSpec(image="nginx:latest@sha256:1")
    assert made.task_template.placement is not None
    assert made.task_template.placement.platforms == [Platform(os="linux", architecture="")]
    assert (await registry.resolved(Told(None), made, ""))[0] == made, "once is enough"  # type: ignore[arg-type]
    kept, words = await registry.resolved(Told(HttpError(500, "no")), spec, "")  # type: ignore[arg-type]
    assert kept == spec
    assert "could not be accessed on a registry" in words
