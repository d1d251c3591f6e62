"""Unlock keys as users see them, in Docker's shape: `SWMKEY-1-<base64 of 32 bytes>`."""

from __future__ import annotations

import base64
import binascii

from afterswarm.model.refused import Refused

KEY_BYTES = 32
PREFIX = "SWMKEY-1-"


def text_of(key: bytes) -> str:
    return PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse(text: str) -> bytes:
    """Raises `Refused` unless the text has the shape of a key."""
    body = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if body == text or len(key) != KEY_BYTES:
        raise Refused(400, "invalid key string")
    return key
