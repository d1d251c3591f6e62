"""Make a key and a signing request, as a program of its own: `python -m afterswarm.agent.csr`.

Loading `cryptography` costs more memory than the rest of a worker together, and is needed once in weeks. So the
daemon runs this, and never loads it itself. Standard input: a private key (PEM) to ask for again, or nothing for a
fresh one. Standard output: one JSON object `{"key": PEM, "csr": PEM}`.
"""

from __future__ import annotations

import json
import sys
from typing import NamedTuple


class KeyPair(NamedTuple):
    """A private key and the request to sign its public half, both PEM."""

    key: str
    csr: str


async def make(key: str = "") -> KeyPair:
    """A fresh pair, or a new request for this key, made by a short-lived process. Raises `OSError`."""
    import asyncio  # noqa: PLC0415 - the short-lived process does without

    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=pipe, stdout=pipe)
    output, _ = await process.communicate(key.encode())
    if process.returncode:
        raise OSError(f"making a key failed with exit code {process.returncode}")
    pair = json.loads(output)
    return KeyPair(key=pair["key"], csr=pair["csr"])


def generate(key: str = "") -> KeyPair:
    """The same, made here."""
    from cryptography import x509  # noqa: PLC0415 - this is what the process is for
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    private = serialization.load_pem_private_key(key.encode(), None) if key else ec.generate_private_key(ec.SECP256R1())
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # noqa: S101 - we made it
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    return KeyPair(
        key=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        csr=request.public_bytes(serialization.Encoding.PEM).decode(),
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(generate(sys.stdin.read())._asdict()))
