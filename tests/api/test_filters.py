"""`?filters=`: both spellings, what is refused, what matches."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from afterswarm.api import filters
from afterswarm.http.message import Request
from afterswarm.model.refused import Refused


def request(wanted: object) -> Request:
    return Request("GET", "/x?filters=" + quote(wanted if isinstance(wanted, str) else json.dumps(wanted)))


@pytest.mark.parametrize("wanted", [{"id": ["a", "b"]}, {"id": {"a": True, "b": True}}])
def test_both_spellings(wanted: object) -> None:
    assert filters.parse(request(wanted), {"id"}) == {"id": ["a", "b"]}


@pytest.mark.parametrize("target", ["/x", "/x?filters=", "/x?filters={}"])
def test_none(target: str) -> None:
    assert filters.parse(Request("GET", target), {"id"}) == {}


def test_an_unknown_filter() -> None:
    with pytest.raises(Refused, match=r"^invalid filter 'colour'$") as refused:
        filters.parse(request({"colour": ["red"]}), {"id"})
    assert refused.value.status == 400


@pytest.mark.parametrize("wanted", ["{", "[]", '{"id": "a"}', '{"id": [1]}'])
def test_what_is_no_filter(wanted: str) -> None:
    with pytest.raises(Refused, match=r"^invalid filter$"):
        filters.parse(request(wanted), {"id"})


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ([], True),
        (["a"], True),
        (["a=1"], True),
        (["a=1", "b"], True),
        (["a=2"], False),
        (["c"], False),
        (["a=1", "c"], False),
        (["b=x=y"], True),
        (["A"], False),
    ],
)
def test_labels(wanted: list[str], matches: bool) -> None:  # noqa: FBT001
    assert filters.labelled({"label": wanted}, "label", {"a": "1", "b": "x=y"}) is matches


def test_values_are_alternatives() -> None:
    wanted = {"name": ["we", "db"]}
    assert filters.prefixed(wanted, "name", "web")
    assert not filters.prefixed(wanted, "name", "aweb")
    assert not filters.exact(wanted, "name", "web")
    assert filters.contained(wanted, "name", "aweb")
    assert filters.exact({}, "name", "anything")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_booleans(text: str, value: bool) -> None:  # noqa: FBT001
    assert filters.truth({"dangling": [text]}, "dangling") is value
    assert filters.truth({}, "dangling") is None


@pytest.mark.parametrize("values", [["maybe"], ["true", "false"]])
def test_no_boolean(values: list[str]) -> None:
    with pytest.raises(Refused, match="invalid filter 'dangling="):
        filters.truth({"dangling": values}, "dangling")
