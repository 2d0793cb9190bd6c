"""X509-SVIDs are read by the standard, and believed only if a bundle vouches for them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.pki import Pki

from weft.errors import Unauthenticated
from weft.identity.keys import new_key
from weft.identity.svid import InvalidSvid, Reason, Svid, check_leaf, parse_svid, verify_svid
from weft.model.spiffe import SpiffeId, agent_id, parse_spiffe_id

PKI = Pki("a.example")
OTHER = Pki("b.example")
ME = agent_id("a.example", "worker", "w1")


def test_a_good_svid_proves_its_holder() -> None:
    chain, _ = PKI.svid(ME, lifetime=600)
    svid = parse_svid(chain)
    assert svid.id == ME
    assert svid.chain_pem == chain
    assert int(svid.serial, 16) == svid.leaf.serial_number
    assert abs(svid.not_after - (PKI.now + 600)) < 60
    assert verify_svid(svid, PKI.bundles(), now=time.time()) == ME


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (lambda: PKI.svid(ME, lifetime=-10), Reason.EXPIRED),
        (lambda: PKI.svid(ME, not_before=300), Reason.NOT_YET_VALID),
        (lambda: OTHER.svid(agent_id("b.example", "worker", "w1")), Reason.WRONG_TRUST_DOMAIN),
        (lambda: OTHER.svid(ME), Reason.UNKNOWN_AUTHORITY),
        (lambda: Pki("a.example").svid(ME), Reason.UNKNOWN_AUTHORITY),
        (lambda: PKI.svid(ME, self_signed=True), Reason.UNKNOWN_AUTHORITY),
        (lambda: PKI.svid(ME, extra_uris=["spiffe://a.example/agent/x/y"]), Reason.TWO_URI_SANS),
        (lambda: PKI.svid(ME, extra_uris=["https://a.example/"]), Reason.TWO_URI_SANS),
        (lambda: PKI.svid(ME, ca=True), Reason.CA_AS_LEAF),
        (lambda: PKI.svid(""), Reason.NO_SPIFFE_ID),
        (lambda: PKI.svid("spiffe://a.example"), Reason.NO_SPIFFE_ID),
        (lambda: PKI.svid("spiffe://a.example/agent/../control"), Reason.NO_SPIFFE_ID),
        (lambda: PKI.svid("spiffe://A.example/agent/x/y"), Reason.NO_SPIFFE_ID),
        (lambda: PKI.svid("https://a.example/agent/x/y"), Reason.NO_SPIFFE_ID),
        (lambda: PKI.svid(ME, key_usage=False), Reason.MALFORMED),
        (lambda: PKI.svid(ME, usages=[ExtendedKeyUsageOID.SERVER_AUTH]), Reason.MALFORMED),
        (lambda: PKI.svid(ME, san_critical=False), Reason.MALFORMED),
    ],
)
def test_a_bad_svid_is_refused_with_the_reason(
    chain: Callable[[], tuple[bytes, bytes]], reason: Reason
) -> None:
    with pytest.raises(InvalidSvid) as caught:
        verify_svid(parse_svid(chain()[0]), PKI.bundles(), now=time.time())
    assert caught.value.reason is reason
    assert isinstance(caught.value, Unauthenticated)
    assert reason in caught.value.detail


def test_a_federated_root_vouches_for_its_own_trust_domain_only() -> None:
    theirs = agent_id("b.example", "worker", "w1")
    bundles = PKI.bundles(OTHER)
    assert verify_svid(parse_svid(OTHER.svid(theirs)[0]), bundles, now=time.time()) == theirs
    for impostor in (OTHER.svid(ME), PKI.svid(theirs)):
        with pytest.raises(InvalidSvid) as caught:
            verify_svid(parse_svid(impostor[0]), bundles, now=time.time())
        assert caught.value.reason is Reason.UNKNOWN_AUTHORITY


def test_an_intermediate_of_another_trust_domain_signs_nothing_here() -> None:
    pki = Pki("a.example")
    pki.intermediate = pki.authority("intermediate", pki.intermediate_key, uri="spiffe://b.example")
    _refuse(_svid(pki, ME), pki)


def test_what_is_no_authority_signs_nothing() -> None:
    pki = Pki("a.example")
    pki.intermediate = pki.authority("not one", pki.intermediate_key, ca=False)
    _refuse(_svid(pki, ME), pki)


def test_a_leaf_signs_no_further_leaf() -> None:
    pki = Pki("a.example")
    leaf_key = new_key()
    leaf = _svid(pki, ME, key=leaf_key)
    honest = pki.intermediate
    pki.intermediate, pki.intermediate_key = leaf.leaf, leaf_key
    forged = parse_svid(pki.svid(agent_id("a.example", "boss", "b1"))[0])
    _refuse(Svid(forged.id, (*forged.chain, honest)), pki)


def test_a_chain_may_be_no_longer_than_its_issuers_allow() -> None:
    pki = Pki("a.example")
    upper = pki.authority("upper", pki.root_key, pathlen=0)
    short = _svid(pki, ME)
    lower_key = new_key()
    pki.root, pki.root_key, root = upper, pki.root_key, pki.root
    lower = pki.authority("lower", lower_key)
    pki.intermediate, pki.intermediate_key = lower, lower_key
    long = parse_svid(pki.svid(ME)[0])
    pki.root = root
    assert verify_svid(short, pki.bundles(), now=time.time()) == ME
    _refuse(Svid(ME, (*long.chain, upper)), pki)


def test_a_chain_with_an_expired_issuer_is_refused() -> None:
    pki = Pki("a.example")
    pki.intermediate = pki.authority("intermediate", pki.intermediate_key, lifetime=-5)
    with pytest.raises(InvalidSvid) as caught:
        verify_svid(_svid(pki, ME), pki.bundles(), now=time.time())
    assert caught.value.reason is Reason.EXPIRED


def test_a_chain_may_bring_the_root_along_and_must_be_in_order() -> None:
    svid = _svid(PKI, ME)
    assert verify_svid(Svid(ME, (*svid.chain, PKI.root)), PKI.bundles(), now=time.time()) == ME
    _refuse(Svid(ME, (svid.leaf, PKI.root, PKI.intermediate)), PKI)
    _refuse(Svid(ME, (svid.leaf,)), PKI)


def test_who_an_svid_is_for_is_read_from_its_leaf() -> None:
    svid = _svid(PKI, ME)
    assert verify_svid(Svid(parse_spiffe_id("spiffe://a.example/control/x"), svid.chain), PKI.bundles(),
                       now=time.time()) == ME  # fmt: skip


@pytest.mark.parametrize(
    "text", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_chain_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidSvid) as caught:
        parse_svid(text)
    assert caught.value.reason is Reason.MALFORMED


def test_a_chain_with_a_key_or_too_much_in_it_is_refused() -> None:
    chain, key = PKI.svid(ME)
    for text in (chain + key, chain * 3, chain + b"#" * 70_000):
        with pytest.raises(InvalidSvid) as caught:
            parse_svid(text)
        assert caught.value.reason is Reason.MALFORMED
        assert "PRIVATE" not in caught.value.detail


def test_no_byte_of_a_certificate_can_be_changed() -> None:
    der = _svid(PKI, ME).leaf.public_bytes(Encoding.DER)
    issuer = PKI.intermediate.public_bytes(Encoding.PEM)
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 0x41
        leaf = ssl.DER_cert_to_PEM_cert(bytes(changed)).encode()
        with pytest.raises(InvalidSvid):
            verify_svid(parse_svid(leaf + issuer), PKI.bundles(), now=time.time())


def test_the_root_itself_proves_nobody() -> None:
    for authority in (PKI.root, PKI.intermediate):
        with pytest.raises(InvalidSvid) as caught:
            check_leaf(authority)
        assert caught.value.reason is Reason.CA_AS_LEAF


def _svid(pki: Pki, spiffe_id: SpiffeId, **how: object) -> Svid:
    return parse_svid(pki.svid(spiffe_id, **how)[0])  # type: ignore[arg-type]


def _refuse(svid: Svid, pki: Pki) -> None:
    with pytest.raises(InvalidSvid) as caught:
        verify_svid(svid, pki.bundles(), now=time.time())
    assert caught.value.reason is Reason.UNKNOWN_AUTHORITY
