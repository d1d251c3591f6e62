"""The swarm's certificate authority: one root per swarm, one short-lived certificate per node and role.

A node's certificate says who it is (common name), its role (organisational unit) and its swarm (organisation), as
SwarmKit's do. It serves both ends of a connection. Its alternative names are the node id, the role, and the addresses
that the store's members check: the host's own and 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from afterswarm.core.trust.certificate import UNIT
from afterswarm.model.node import Role

ROOT_LIFETIME = timedelta(days=20 * 365)
BACKDATE = timedelta(hours=1)  # clocks of hosts differ


class BadRequest(Exception):
    """Not a certificate signing request that can be signed."""


class Authority(msgspec.Struct, frozen=True):
    """The root certificate and its key, both PEM."""

    cert: str
    key: str


def found(now: float) -> Authority:
    """A new root."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    start = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(start + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(cert=_pem(certificate), key=_key_pem(key))


def issue(
    authority: Authority,
    csr: str,
    *,
    node_id: str,
    cluster_id: str,
    role: Role,
    addresses: Iterable[str],
    now: float,
    lifetime: float,
) -> str:
    """A certificate (PEM) for the key of this request. Only the key is taken from it; we say what the rest is.

    `lifetime` in seconds. Raises `BadRequest`.
    """
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        valid = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadRequest("not a certificate signing request") from error
    public_key = request.public_key()
    if not valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadRequest("the signing request must be signed by an elliptic curve key")
    root = x509.load_pem_x509_certificate(authority.cert.encode())
    root_key = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - we made it
    start = datetime.fromtimestamp(now, UTC)
    end = min(start + timedelta(seconds=lifetime), root.not_valid_after_utc)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNIT[role]),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(_names(node_id, role, addresses)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    return _pem(certificate)


def fingerprint(csr: str) -> str:
    """A name for the key of a signing request: the same for a request that is sent again. Raises `BadRequest`."""
    try:
        public_key = x509.load_pem_x509_csr(csr.encode()).public_key()
    except ValueError as error:
        raise BadRequest("not a certificate signing request") from error
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def _names(node_id: str, role: Role, addresses: Iterable[str]) -> list[x509.GeneralName]:
    hosts = dict.fromkeys(["127.0.0.1", *(a for a in addresses if a)])
    return [
        x509.DNSName(node_id),
        x509.DNSName(UNIT[role]),
        *(x509.IPAddress(ipaddress.ip_address(h)) for h in hosts),
    ]


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
