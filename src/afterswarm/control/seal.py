"""Sealing what rests in the store: AES-256-GCM with the cluster key, which only managers' disks hold.

The id of the object is bound as associated data, so that a sealed text moved to another object does not open.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12


class Unreadable(Exception):
    """Sealed with another key, for another object, or damaged."""


def new_key() -> bytes:
    """A fresh cluster key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, object_id: str, data: bytes) -> str:
    """Base64 of nonce and ciphertext."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, data, object_id.encode())).decode()


def unseal(key: bytes, object_id: str, sealed: str) -> bytes:
    """What was sealed for this object with this key; raises `Unreadable`."""
    try:
        raw = base64.b64decode(sealed, validate=True)
        return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], object_id.encode())
    except (InvalidTag, ValueError) as error:
        raise Unreadable(object_id) from error
