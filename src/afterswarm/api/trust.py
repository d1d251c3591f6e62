"""`TLSInfo` of the swarm and its nodes: which certificate authority they trust, as the command line compares it.

Subject and public key are cut out of the certificate as they stand, so that no cryptographic library is needed here.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from functools import lru_cache

from afterswarm.core.trust import roots
from afterswarm.model.cluster import Cluster
from afterswarm.model.node import NodeReport
from afterswarm.ports import Json


@lru_cache(maxsize=8)
def _issuer(pem: str) -> tuple[str, str]:
    """Subject and public key of a certificate, each as base64 of its DER."""
    der = ssl.PEM_cert_to_DER_cert(pem)
    _, start, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, start)  # TBSCertificate
    fields: list[bytes] = []
    while len(fields) < 6:
        tag, _, end = _element(der, at)
        if tag != 0xA0:  # the version is optional
            fields.append(der[at:end])
        at = end
    _serial, _algorithm, _issued_by, _validity, subject, public_key = fields
    return b64encode(subject).decode(), b64encode(public_key).decode()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, and where the contents of the DER element at `at` begin and end."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size]), start + size
    return der[at], start, start + length


def tls_info(trusted: str, issuing: str) -> Json:
    """What Docker shows of two root certificates (PEM): the one that is trusted, and the one that signs."""
    if not trusted or not issuing:
        return {}
    subject, public_key = _issuer(issuing)
    return {"TrustRoot": trusted, "CertIssuerSubject": subject, "CertIssuerPublicKey": public_key}


def of_node(cluster: Cluster, report: NodeReport | None) -> Json:
    """As far as it is known. A node that has left for good has no certificate to wait for."""
    issuing = roots.issuing(cluster)[0]
    if report is None or report.left:
        return tls_info(cluster.ca_cert, issuing)
    trusted = roots.named(cluster, report.trust) if report.trust else cluster.ca_cert
    return tls_info(trusted, roots.named(cluster, report.issuer) if report.issuer else issuing)
