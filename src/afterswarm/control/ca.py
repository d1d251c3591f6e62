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
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from afterswarm.core.trust.certificate import UNIT
from afterswarm.model.node import Role

ROOT_LIFETIME = timedelta(days=20 * 365)
BACKDATE = timedelta(hours=1)  # clocks of hosts differ


SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class BadRequest(Exception):
    """Not a certificate signing request that can be signed."""


class Authority(msgspec.Struct, frozen=True):
    """The root certificate and its key, both PEM."""

    cert: str
    key: str


def found(now: float) -> Authority:
    """A new root. Its path length is not limited: should it be followed by another one, it signs that one's name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    start = datetime.fromtimestamp(now, UTC)
    certificate = _ca(name, name, key.public_key(), start - BACKDATE, start + ROOT_LIFETIME)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return Authority(
        cert=_pem(certificate.add_extension(identifier, critical=False).sign(key, hashes.SHA256())), key=_key_pem(key)
    )


def cross(old: Authority, cert: str) -> str:
    """The root certificate `cert` as signed by the old root: whoever trusts the old one can trust what it issues."""
    signer, key = _signer(old)
    new = x509.load_pem_x509_certificate(cert.encode())
    end = min(new.not_valid_after_utc, signer.not_valid_after_utc)
    begin = max(new.not_valid_before_utc, signer.not_valid_before_utc)
    made = _ca(new.subject, signer.subject, _public(new), begin, end)
    made = made.add_extension(_identifier(new), critical=False)
    made = made.add_extension(_of_issuer(signer), critical=False)
    return _pem(made.sign(key, hashes.SHA256()))


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
    chain: Iterable[str] = (),
) -> str:
    """A certificate (PEM) for the key of this request. Only the key is taken from it; we say what the rest is.

    `lifetime` in seconds. `chain` follows it (see `core.trust.roots`). Raises `BadRequest`.
    """
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        valid = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadRequest("not a certificate signing request") from error
    public_key = request.public_key()
    if not valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadRequest("the signing request must be signed by an elliptic curve key")
    root, root_key = _signer(authority)
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
        .add_extension(_of_issuer(root), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    return "".join([_pem(certificate), *chain])


def same_key(one: str, other: str) -> bool:
    """Whether two root certificates (PEM) are for the same key."""
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    first, second = (
        x509.load_pem_x509_certificate(pem.encode()).public_key().public_bytes(serialization.Encoding.DER, public)
        for pem in (one, other)
    )
    return first == second


def fingerprint(csr: str) -> str:
    """A name for the key of a signing request: the same for a request that is sent again. Raises `BadRequest`."""
    try:
        public_key = x509.load_pem_x509_csr(csr.encode()).public_key()
    except ValueError as error:
        raise BadRequest("not a certificate signing request") from error
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def _signer(authority: Authority) -> tuple[x509.Certificate, SigningKey]:
    key = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)  # noqa: S101 - we made or checked it
    return x509.load_pem_x509_certificate(authority.cert.encode()), key


def _public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)  # noqa: S101 - we made or checked it
    return key


def _ca(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(ca=True), critical=True)
    )


def _identifier(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """As the certificate has it: somebody else's may be made in another way."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(_public(certificate))


def _of_issuer(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_identifier(root))


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
