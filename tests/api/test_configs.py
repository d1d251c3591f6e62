"""`/configs`: as secrets, in the open."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from afterswarm.model.secret import Config, ConfigSpec

DATA = b64encode(b"hush").decode()


async def create(api: Any, name: str = "pw", **more: Any) -> str:
    answer = await api.ok("POST", "/v1.41/configs/create", {"Name": name, "Labels": None, "Data": DATA, **more})
    return str(answer["ID"])


async def test_a_config_is_shown_with_its_data(api: Any) -> None:
    key = await create(api)
    assert (await api.ok("GET", f"/configs/{key}"))["Spec"] == {"Name": "pw", "Labels": {}, "Data": DATA}


async def test_names_are_taken_once(api: Any) -> None:
    await create(api)
    status, message = await api.fails("POST", "/configs/create", {"Name": "pw", "Data": DATA})
    assert (status, message) == (409, "rpc error: code = AlreadyExists desc = config pw already exists")
    assert len(api.stored(Config)) == 1


async def test_found_by_id_name_and_the_beginning_of_its_id(api: Any) -> None:
    key = await create(api)
    for term in (key, "pw", key[:6]):
        assert (await api.ok("GET", f"/configs/{term}"))["ID"] == key
    assert await api.fails("GET", "/configs/nope") == (404, "config nope not found")


async def test_a_name_wins_over_the_beginning_of_an_id(api: Any) -> None:
    await api.write(Config(id="!1"), Config(id="!2"), Config(id="x", spec=ConfigSpec(name="!")))
    assert (await api.ok("GET", "/configs/!"))["ID"] == "x"
    await api.ok("DELETE", "/configs/x")
    assert await api.fails("GET", "/configs/!") == (400, "config ! is ambiguous (2 matches found)")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ('{"name":["pa"]}', ["pab", "pac"]),
        ('{"names":["pab"]}', ["pab"]),
        ('{"name":{"x":true}}', ["x"]),
        ('{"label":["l"]}', ["pab"]),
        ('{"label":["l=2"]}', []),
    ],
)
async def test_filters(api: Any, filters: str, names: list[str]) -> None:
    await create(api, "pab", Labels={"l": "1"})
    await create(api, "pac")
    await create(api, "x")
    found = await api.ok("GET", f"/configs?filters={filters}")
    assert sorted(s["Spec"]["Name"] for s in found) == names


async def test_labels_and_data_change(api: Any) -> None:
    key = await create(api)
    rev = api.stored(Config)[0].rev
    await api.ok("POST", f"/configs/pw/update?version={rev}", {"Name": "pw", "Labels": {"a": "b"}, "Data": DATA})
    assert (await api.ok("GET", "/configs/pw"))["Spec"]["Labels"] == {"a": "b"}
    rev = api.stored(Config)[0].rev
    new = b64encode(b"new").decode()
    await api.ok("POST", f"/configs/pw/update?version={rev}", {"Name": "pw", "Data": new})
    shown = await api.ok("GET", "/configs/pw")
    assert (shown["ID"], shown["Spec"]) == (key, {"Name": "pw", "Labels": {}, "Data": new})


async def test_an_old_version_is_out_of_sequence(api: Any) -> None:
    await create(api)
    status, message = await api.fails("POST", "/configs/pw/update?version=1", {"Name": "pw"})
    assert (status, message) == (500, "rpc error: code = Unknown desc = update out of sequence")
    status, message = await api.fails("POST", "/configs/pw/update", {"Name": "pw"})
    assert status == 400
    assert message.startswith("invalid config version ''")


async def test_removed(api: Any) -> None:
    await create(api)
    assert (await api("DELETE", "/configs/pw"))[0] == 204
    assert api.stored(Config) == []
    await create(api)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"Name": 3}'])
async def test_what_is_no_config(api: Any, body: bytes) -> None:
    status, message = await api.fails("POST", "/configs/create", body)
    assert status == 400
    assert message.startswith("invalid JSON")
