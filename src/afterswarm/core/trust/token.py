"""Join tokens, in Docker's shape: `SWMTKN-1-<digest of the CA>-<secret>`.

The digest lets a joining host check who it talks to *before* it sends the secret. As SwarmKit does (ca/config.go),
the digest is the SHA-256 of the root certificate's PEM bytes; both numbers are in base 36, padded with zeros.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from afterswarm.ids import ALPHABET
from afterswarm.model.refused import Refused

SECRET_BYTES = 16
_DIGEST_LENGTH = 50
_SECRET_LENGTH = 25
_SHAPE = re.compile(r"SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})")


class JoinToken(msgspec.Struct, frozen=True):
    """A token taken apart. `digest` is hexadecimal; `secret` stays the text that it is in the token."""

    digest: str
    secret: str


def parse(text: str) -> JoinToken:
    """Raises `Refused` unless the text has the shape of a token."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise Refused(500, "invalid join token")
    number = int(match[1], 36)
    if number >= 1 << 256:
        raise Refused(500, "invalid join token")
    return JoinToken(digest=f"{number:064x}", secret=match[2])


def text_of(ca_pem: str, secret: bytes) -> str:
    """The token for this root certificate and these 16 secret bytes."""
    digest = _base36(int(digest_of(ca_pem), 16), _DIGEST_LENGTH)
    return f"SWMTKN-1-{digest}-{_base36(int.from_bytes(secret), _SECRET_LENGTH)}"


def digest_of(ca_pem: str) -> str:
    """Hexadecimal SHA-256 of a root certificate, as tokens pin it."""
    return hashlib.sha256(ca_pem.encode()).hexdigest()


def _base36(number: int, length: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = ALPHABET[digit] + digits
    return digits.rjust(length, "0")
