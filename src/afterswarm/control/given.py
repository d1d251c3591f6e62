"""A root certificate that a user brings along (`docker swarm ca --rotate --ca-cert …`): whether it will do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from afterswarm.control.ca import Authority
from afterswarm.model.refused import Refused

LEAST_LEFT = timedelta(days=365)  # SwarmKit's minimum
LEAST_RSA = 2048
INVALID = "rpc error: code = InvalidArgument desc = "


def authority(cert: str, key: str, now: float) -> Authority:
    """Both as we keep them. Raises `Refused`, in Docker's words where it has some."""
    found = _certificate(cert)
    if found.not_valid_after_utc < datetime.fromtimestamp(now, UTC) + LEAST_LEFT:
        raise Refused(400, f"{INVALID}CA certificate expires too soon")
    if found.not_valid_before_utc > datetime.fromtimestamp(now, UTC):
        raise Refused(400, f"{INVALID}CA certificate is not yet valid")
    _check_authority(found)
    private = _key(key)
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    if private.public_key().public_bytes(der, public) != found.public_key().public_bytes(der, public):
        raise Refused(400, f"{INVALID}certificate key mismatch")
    return Authority(
        cert=found.public_bytes(serialization.Encoding.PEM).decode(),
        key=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def _certificate(text: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise Refused(400, f"{INVALID}could not parse the desired CA certificate") from None
    if len(found) != 1:
        raise Refused(400, f"{INVALID}the desired CA certificate cannot contain multiple certificates")
    return found[0]


def _check_authority(certificate: x509.Certificate) -> None:
    """It must be a root that may sign, and that may sign the name of the one which follows it some day."""
    try:
        certificate.verify_directly_issued_by(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise Refused(400, f"{INVALID}the desired CA certificate is not a self-signed root") from None
    try:
        signs = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    if not basic.ca or not signs:
        raise Refused(400, f"{INVALID}the desired CA certificate may not sign certificates")
    if basic.path_length == 0:
        words = "the desired CA certificate has path length 0: it could never be replaced by another one"
        raise Refused(400, f"{INVALID}{words}")


def _key(text: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refused(400, f"{INVALID}malformed private key") from None
    small = isinstance(key, rsa.RSAPrivateKey) and key.key_size < LEAST_RSA
    if small or not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        words = "only RSA keys of 2048 bits and more, and elliptic curve keys, are supported"
        raise Refused(400, f"{INVALID}{words}")
    return key
