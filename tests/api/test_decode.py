"""What clients send is read as Go reads it."""

from __future__ import annotations

from typing import Any

import pytest

from afterswarm.api import decode
from afterswarm.http.message import Request
from afterswarm.model.refused import Refused
from afterswarm.model.service import ContainerSpec, Mount, ServiceSpec


async def body(text: str) -> ServiceSpec:
    return await decode.body(Request("POST", "/x", [], text.encode()), ServiceSpec)


@pytest.mark.parametrize("text", ["", "{}", '{"Name": null, "Labels": null, "Mode": null}'])
async def test_absent_in_all_ways(text: str) -> None:
    assert await body(text) == ServiceSpec()


async def test_names_in_any_case() -> None:
    spec = await body(
        """{"name": "web", "mode": {"global": {}}, "TaskTemplate": {"containerspec": {"image": "nginx",
        "mounts": [{"type": "bind", "READONLY": true}], "labels": {"Image": "kept"}}}}"""
    )
    assert spec.name == "web"
    assert spec.mode.global_ == {}
    mounts = [Mount(type="bind", read_only=True)]
    assert spec.task_template.container_spec == ContainerSpec(image="nginx", mounts=mounts, labels={"Image": "kept"})


@pytest.mark.parametrize("text", ['{"Name": "a", "name": "b"}', '{"name": "b", "Name": "a"}'])
async def test_the_exact_spelling_wins(text: str) -> None:
    assert (await body(text)).name == "a"


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"Name": 3}', '{"TaskTemplate": []}', '{"Mode": {"Replicated": 1}}'])
async def test_what_is_wrong(text: str) -> None:
    with pytest.raises(Refused, match="invalid JSON") as refused:
        await body(text)
    assert refused.value.status == 400


async def test_what_is_no_text() -> None:
    with pytest.raises(Refused, match="invalid JSON") as refused:
        await decode.body(Request("POST", "/x", [], b'{"Name": "\xa3"}'), ServiceSpec)
    assert refused.value.status == 400


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²"])
def test_versions(text: str) -> None:
    assert decode.version(Request("POST", "/x?version=7"), "node") == 7
    with pytest.raises(Refused, match=f"invalid node version '{text}'"):
        decode.version(Request("POST", f"/x?version={text}"), "node")


@pytest.mark.parametrize("text", [str(2**64), "9" * 5000])
def test_versions_that_no_object_can_have(text: str) -> None:
    assert decode.version(Request("POST", f"/x?version={'0' * 5000}7"), "node") == 7
    with pytest.raises(Refused, match="value out of range"):
        decode.version(Request("POST", f"/x?version={text}"), "node")


@pytest.mark.parametrize("depth", [900, 100_000])
async def test_a_body_that_is_too_deep(depth: int) -> None:
    with pytest.raises(Refused, match="exceeded max depth"):
        await body('{"a":' * depth + "1" + "}" * depth)


def test_nulls_deep_down() -> None:
    found: Any = decode.without_nulls({"a": None, "b": [{"c": None, "d": 0}], "e": {}})
    assert found == {"b": [{"d": 0}], "e": {}}
