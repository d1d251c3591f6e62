"""Names for new objects: derived and never drawn, so that a plan made twice repeats itself."""

import hashlib

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
LENGTH = 25


def derive(*parts: object) -> str:
    """A 25-character base-36 ID, the shape Docker gives its objects."""
    n = int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest())
    return "".join(ALPHABET[n // 36**i % 36] for i in range(LENGTH))
