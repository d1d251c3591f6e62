"""Tokens have Docker's shape, and pin the root certificate."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterswarm.core.trust import token
from afterswarm.model.refused import Refused


@given(st.text(), st.binary(min_size=16, max_size=16))
def test_what_is_made_can_be_taken_apart(ca: str, secret: bytes) -> None:
    text = token.text_of(ca, secret)
    parsed = token.parse(text)
    prefix, version, digest, rest = text.split("-")
    assert (prefix, version, len(digest), len(rest)) == ("SWMTKN", "1", 50, 25)
    assert parsed.digest == hashlib.sha256(ca.encode()).hexdigest()
    assert int(parsed.secret, 36) == int.from_bytes(secret)


def test_a_token_of_docker_itself() -> None:
    """From Docker's documentation of `swarm init`."""
    parsed = token.parse("SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx")
    assert parsed.secret == "1awxwuwd3z9j1z3puu7rcgdbx"
    assert len(parsed.digest) == 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SWMTKN-1-abc-def",
        "SWMTKN-2-1-" + "0" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "z" * 50 + "-" + "0" * 25,  # more than 256 bits
        "swmtkn-1-" + "0" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "0" * 50 + "-" + "0" * 25 + "-x",
    ],
)
def test_anything_else_is_refused_in_docker_s_words(text: str) -> None:
    with pytest.raises(Refused, match=r"^invalid join token$"):
        token.parse(text)
