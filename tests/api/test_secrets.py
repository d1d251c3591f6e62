"""`/secrets` and what it never shows."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from afterswarm.model.secret import Payload, Secret, SecretSpec

DATA = b64encode(b"hush").decode()


async def create(api: Any, name: str = "pw", **more: Any) -> str:
    answer = await api.ok("POST", "/v1.41/secrets/create", {"Name": name, "Labels": None, "Data": DATA, **more})
    return str(answer["ID"])


async def test_a_secret_is_stored_sealed_and_shown_without_its_data(api: Any) -> None:
    key = await create(api, Labels={"tier": "db"})
    (stored,) = api.stored(Secret)
    assert DATA not in repr(stored)
    assert b"hush" not in stored.sealed.encode()
    assert api.host.unseal(key, stored.sealed) == b"hush"
    shown = await api.ok("GET", f"/secrets/{key}")
    assert shown == {
        "ID": key,
        "Version": {"Index": stored.rev},
        "CreatedAt": "2023-11-14T22:13:20Z",
        "UpdatedAt": "2023-11-14T22:13:20Z",
        "Spec": {"Name": "pw", "Labels": {"tier": "db"}},
    }


async def test_names_are_taken_once(api: Any) -> None:
    await create(api)
    status, message = await api.fails("POST", "/secrets/create", {"Name": "pw", "Data": DATA})
    assert (status, message) == (409, "rpc error: code = AlreadyExists desc = secret pw already exists")
    assert len(api.stored(Secret)) == 1


async def test_found_by_id_name_and_the_beginning_of_its_id(api: Any) -> None:
    key = await create(api)
    for term in (key, "pw", key[:6]):
        assert (await api.ok("GET", f"/secrets/{term}"))["ID"] == key
    assert await api.fails("GET", "/secrets/nope") == (404, "secret nope not found")


async def test_a_name_wins_over_the_beginning_of_an_id(api: Any) -> None:
    await api.write(Secret(id="!1"), Secret(id="!2"), Secret(id="x", spec=SecretSpec(name="!")))
    assert (await api.ok("GET", "/secrets/!"))["ID"] == "x"
    await api.ok("DELETE", "/secrets/x")
    assert await api.fails("GET", "/secrets/!") == (400, "secret ! is ambiguous (2 matches found)")


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
    found = await api.ok("GET", f"/secrets?filters={filters}")
    assert sorted(s["Spec"]["Name"] for s in found) == names


async def test_labels_and_data_change(api: Any) -> None:
    key = await create(api)
    rev = api.stored(Secret)[0].rev
    await api.ok("POST", f"/secrets/pw/update?version={rev}", {"Name": "pw", "Labels": {"a": "b"}, "Data": DATA})
    assert (await api.ok("GET", "/secrets/pw"))["Spec"]["Labels"] == {"a": "b"}
    assert api.host.unseal(key, api.stored(Secret)[0].sealed) == b"hush"
    rev = api.stored(Secret)[0].rev
    await api.ok("POST", f"/secrets/pw/update?version={rev}", {"Name": "pw", "Data": b64encode(b"new").decode()})
    assert api.host.unseal(f"{key}.1", api.stored(Secret)[0].sealed) == b"new"
    assert api.stored(Payload) == []
    assert (await api.ok("GET", "/secrets/pw"))["Spec"] == {"Name": "pw", "Labels": {}}


async def test_an_old_version_is_out_of_sequence(api: Any) -> None:
    await create(api)
    status, message = await api.fails("POST", "/secrets/pw/update?version=1", {"Name": "pw"})
    assert (status, message) == (500, "rpc error: code = Unknown desc = update out of sequence")
    status, message = await api.fails("POST", "/secrets/pw/update", {"Name": "pw"})
    assert status == 400
    assert message.startswith("invalid secret version ''")


async def test_removed(api: Any) -> None:
    await create(api)
    assert (await api("DELETE", "/secrets/pw"))[0] == 204
    assert api.stored(Secret) == []
    await create(api)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"Name": 3}'])
async def test_what_is_no_secret(api: Any, body: bytes) -> None:
    status, message = await api.fails("POST", "/secrets/create", body)
    assert status == 400
    assert message.startswith("invalid JSON")


async def test_data_that_is_no_base64(api: Any) -> None:
    for data in ("a", "=", "\x80", "é"):
        status, words = await api.fails("POST", "/secrets/create", {"Name": "pw", "Data": data})
        assert (status, words.startswith("invalid data: ")) == (400, True)
