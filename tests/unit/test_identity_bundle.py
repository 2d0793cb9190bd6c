"""Trust bundles hold roots of the trust domain they are for, and nothing else; keys are of known kinds."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.pki import Pki

from weft.errors import InvalidRequest
from weft.identity.bundle import TrustBundles, parse_bundle
from weft.identity.keys import check_public_key, key_pem, new_key, parse_key

PKI = Pki("a.example")
OTHER = Pki("b.example")


def test_bundles_survive_their_trip_as_json_and_pem() -> None:
    bundles = PKI.bundles(OTHER, revision=7)
    assert TrustBundles.from_json(bundles.to_json()) == bundles
    assert parse_bundle("a.example", bundles.own.pem) == bundles.own
    assert bundles.of("b.example") == OTHER.bundle()
    assert bundles.of("c.example") is None


def test_a_bundle_takes_no_leaf_no_key_and_no_root_of_another_trust_domain() -> None:
    chain, key = PKI.svid("spiffe://a.example/agent/x/y")
    for pem in (b"", chain, PKI.bundle().pem + key, OTHER.bundle().pem, PKI.bundle().pem + b" " * 300_000):
        with pytest.raises(InvalidRequest):
            parse_bundle("a.example", pem)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("own"),
        lambda document: document.update(revision="7"),
        lambda document: document.update(revision=-1),
        lambda document: document["own"].update(trustDomain="B.example"),
        lambda document: document["own"].update(roots=[]),
        lambda document: document["own"].update(roots=["AAAA"]),
        lambda document: document["own"].update(roots=[7]),
        lambda document: document["federated"].append(document["own"]),
        lambda document: document["federated"].append(document["federated"][0]),
        lambda document: document["federated"].append("b.example"),
        lambda document: document["federated"][0].update(trustDomain="c.example"),
    ],
)
def test_bundles_that_make_no_sense_are_refused(change: object) -> None:
    document = json.loads(PKI.bundles(OTHER).to_json())
    assert callable(change)
    change(document)
    with pytest.raises(InvalidRequest):
        TrustBundles.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"own":', " " * 5_000_000])
def test_what_are_no_bundles_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        TrustBundles.from_json(text)


def test_a_private_key_survives_its_trip_as_pem() -> None:
    key = new_key()
    assert parse_key(key_pem(key)).private_numbers() == key.private_numbers()


def test_what_is_no_private_key_is_refused_without_repeating_it() -> None:
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for text in (b"", b"hunter2", key_pem(new_key())[:-40], b"#" * 20_000, edwards):
        with pytest.raises(InvalidRequest) as caught:
            parse_key(text)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_weak_and_strange_keys_are_refused() -> None:
    for good in (
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ):
        check_public_key(good.public_key())
    for bad in (
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP224R1()),
        rsa.generate_private_key(65537, 1024),
    ):
        with pytest.raises(InvalidRequest):
            check_public_key(bad.public_key())
