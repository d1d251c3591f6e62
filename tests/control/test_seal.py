"""What is sealed opens with the same key, for the same object, unchanged; and not otherwise."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterswarm.control import seal

KEY = bytes(range(32))


@given(st.text(), st.binary())
def test_what_was_sealed_opens(object_id: str, data: bytes) -> None:
    sealed = seal.seal(KEY, object_id, data)
    assert seal.unseal(KEY, object_id, sealed) == data
    assert seal.seal(KEY, object_id, data) != sealed


@given(st.binary(), st.data())
def test_nothing_else_does(data: bytes, draw: st.DataObject) -> None:
    sealed = seal.seal(KEY, "a", data)
    raw = bytearray(base64.b64decode(sealed))
    raw[draw.draw(st.integers(0, len(raw) - 1))] ^= draw.draw(st.integers(1, 255))
    for key, object_id, text in (
        (KEY, "b", sealed),
        (seal.new_key(), "a", sealed),
        (KEY, "a", base64.b64encode(raw).decode()),
        (KEY, "a", "not base64!"),
        (KEY, "a", ""),
    ):
        with pytest.raises(seal.Unreadable):
            seal.unseal(key, object_id, text)
