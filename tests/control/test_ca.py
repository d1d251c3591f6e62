"""Certificates do what TLS and the store ask of them, and sealed things open only where they belong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from afterswarm.agent.trust import csr
from afterswarm.control import ca
from afterswarm.model.node import Role

NOW = datetime(2026, 5, 1, tzinfo=UTC).timestamp()
DAY = 86_400.0


@pytest.fixture(scope="module")
def authority() -> ca.Authority:
    return ca.found(NOW)


def issue(authority: ca.Authority, request: str, lifetime: float = 90 * DAY) -> x509.Certificate:
    text = ca.issue(
        authority,
        request,
        node_id="node1",
        cluster_id="swarm1",
        role=Role.MANAGER,
        addresses=["10.0.0.5", ""],
        now=NOW,
        lifetime=lifetime,
    )
    return x509.load_pem_x509_certificate(text.encode())


def test_a_root_for_twenty_years(authority: ca.Authority) -> None:
    root = x509.load_pem_x509_certificate(authority.cert.encode())
    assert root.subject.rfc4514_string() == "CN=swarm-ca"
    assert root.not_valid_after_utc.timestamp() == pytest.approx(NOW + 20 * 365 * DAY)
    root.verify_directly_issued_by(root)


def test_a_node_s_certificate_says_who_it_is_and_where(authority: ca.Authority) -> None:
    made = issue(authority, csr.generate().csr)
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.cert.encode()))
    assert {a.oid: a.value for a in made.subject} == {
        NameOID.COMMON_NAME: "node1",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "swarm-manager",
        NameOID.ORGANIZATION_NAME: "swarm1",
    }
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node1", "swarm-manager"]
    assert [str(i) for i in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.0.0.5"]
    usage = set(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert made.not_valid_before_utc.timestamp() == NOW - 3600
    assert made.not_valid_after_utc.timestamp() == NOW + 90 * DAY


def test_a_certificate_never_outlives_its_root(authority: ca.Authority) -> None:
    root = x509.load_pem_x509_certificate(authority.cert.encode())
    assert issue(authority, csr.generate().csr, lifetime=1e10).not_valid_after_utc == root.not_valid_after_utc


def test_what_is_no_request_is_refused(authority: ca.Authority) -> None:
    with pytest.raises(ca.BadRequest):
        issue(authority, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")


def test_a_request_made_again_for_a_key_is_for_the_same_node() -> None:
    first = csr.generate()
    again = csr.generate(first.key)
    assert again.key == first.key
    assert ca.fingerprint(again.csr) == ca.fingerprint(first.csr)
    assert ca.fingerprint(csr.generate().csr) != ca.fingerprint(first.csr)


async def test_the_key_is_made_by_a_process_of_its_own() -> None:
    first = await csr.make()
    again = await csr.make(first.key)
    assert again.key == first.key
    assert ca.fingerprint(again.csr) == ca.fingerprint(first.csr)
