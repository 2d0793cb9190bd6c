"""Sealed payloads: what opens them, what does not, and what is said about it."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from weft.errors import InvalidRequest, Unavailable
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keys import (
    ConsumingKey,
    PublishingKey,
    consuming_keys_document,
    parse_consuming_keys,
    parse_publishing_key,
    publishing_key_document,
)
from weft.messaging.sealing import (
    MAX_ENVELOPE_BYTES,
    MAX_PAYLOAD_BYTES,
    OVERHEAD_BYTES,
    Binding,
    open_sealed,
    seal,
    sealed_epoch,
)

NEWS = Channel(ChannelKind.TOPIC, "news")
BINDING = Binding(NEWS, "m-1", "application/json")
PAYLOAD = b'{"headline": "all quiet"}'

PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLISHING = PublishingKey(PRIVATE.public_key(), publish_until=2e9)
CONSUMING = ConsumingKey(PRIVATE, keep_until=3e9)
KEYS = {CONSUMING.epoch: CONSUMING}

MADE_EARLIER = bytes.fromhex(
    "7765667401eedd883da0a945155550db363b38e5d5ab3060cffb5a780cfe90c3d1161c9fe0a5d1e916c3dd"
    "492b08c28c6a57b9ec851be08bdfc34715b0bba79078b694da28e06e6979e353b74e16d99926337c1dc673"
)


@pytest.mark.parametrize("payload", [b"", b"x", PAYLOAD, random.Random(1).randbytes(MAX_PAYLOAD_BYTES)])
def test_a_payload_comes_back_from_an_envelope_that_is_longer_by_a_constant(payload: bytes) -> None:
    envelope = seal(payload, PUBLISHING, BINDING)
    assert len(envelope) == len(payload) + OVERHEAD_BYTES
    assert len(payload) < 8 or payload not in envelope
    assert open_sealed(envelope, KEYS, BINDING) == payload


def test_the_same_payload_never_looks_the_same() -> None:
    assert seal(PAYLOAD, PUBLISHING, BINDING)[13:] != seal(PAYLOAD, PUBLISHING, BINDING)[13:]


def test_an_envelope_made_by_an_earlier_release_opens() -> None:
    assert open_sealed(MADE_EARLIER, KEYS, BINDING) == PAYLOAD


def test_an_envelope_opens_by_the_letter_of_rfc_9180() -> None:
    """Another implementation needs no more than this module's description says."""
    envelope = seal(PAYLOAD, PUBLISHING, BINDING)
    fields = [b"topic", b"news", b"m-1", b"application/json"]
    info = envelope[:13] + b"".join(len(each).to_bytes(4, "big") + each for each in fields)
    encapsulated, ciphertext = envelope[13:45], envelope[45:]
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    shared = PRIVATE.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    both = encapsulated + PRIVATE.public_key().public_bytes_raw()
    secret = _expand(kem, _extract(kem, b"", b"eae_prk", shared), b"shared_secret", both, 32)
    context = b"\0" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    schedule = _extract(suite, secret, b"secret", b"")
    key = _expand(suite, schedule, b"key", context, 32)
    nonce = _expand(suite, schedule, b"base_nonce", context, 12)
    assert AESGCM(key).decrypt(nonce, ciphertext, b"") == PAYLOAD


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    mac = HMAC(salt or bytes(32), SHA256())
    mac.update(b"HPKE-v1" + suite + label + material)
    return mac.finalize()


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(SHA256(), length, labelled).derive(key)


@pytest.mark.parametrize(
    "elsewhere",
    [
        Binding(Channel(ChannelKind.TOPIC, "gossip"), "m-1", "application/json"),
        Binding(Channel(ChannelKind.QUEUE, "news"), "m-1", "application/json"),
        Binding(NEWS, "m-2", "application/json"),
        Binding(NEWS, "m-1", "text/html"),
        Binding(NEWS, "m-1a", "pplication/json"),
    ],
    ids=str,
)
def test_an_envelope_opens_only_where_and_as_what_it_was_published(elsewhere: Binding) -> None:
    with pytest.raises(InvalidRequest, match="does not open"):
        open_sealed(seal(PAYLOAD, PUBLISHING, BINDING), KEYS, elsewhere)


def test_an_unknown_epoch_is_named() -> None:
    other = ConsumingKey(X25519PrivateKey.generate(), keep_until=3e9)
    with pytest.raises(Unavailable, match=PUBLISHING.epoch):
        open_sealed(seal(PAYLOAD, PUBLISHING, BINDING), {other.epoch: other}, BINDING)


def test_what_a_publisher_holds_opens_nothing() -> None:
    public = X25519PrivateKey.from_private_bytes(PUBLISHING.key.public_bytes_raw())
    with pytest.raises(InvalidRequest, match="does not open"):
        open_sealed(
            seal(PAYLOAD, PUBLISHING, BINDING), {PUBLISHING.epoch: ConsumingKey(public, 3e9)}, BINDING
        )


def test_one_epoch_does_not_pass_for_another() -> None:
    other = X25519PrivateKey.generate()
    keys = {**KEYS, "00" * 8: ConsumingKey(other, keep_until=3e9)}
    renamed = bytearray(seal(PAYLOAD, PUBLISHING, BINDING))
    renamed[5:13] = bytes(8)
    with pytest.raises(InvalidRequest, match="does not open"):
        open_sealed(bytes(renamed), keys, BINDING)
    with pytest.raises(InvalidRequest, match="does not open"):
        open_sealed(bytes(renamed), {"00" * 8: CONSUMING}, BINDING)


def test_no_damage_to_an_envelope_goes_unnoticed() -> None:
    chance = random.Random(7)
    whole = seal(PAYLOAD, PUBLISHING, BINDING)
    damaged = [_flipped(whole, bit) for bit in range(8 * len(whole))]
    damaged += [whole[:length] for length in range(len(whole))]
    damaged += [_mutated(whole, chance) for _ in range(500)]
    damaged += [chance.randbytes(chance.randrange(200)) for _ in range(200)]
    damaged += [whole[:13] + chance.randbytes(chance.randrange(48, 100)) for _ in range(100)]
    for each in damaged:
        with pytest.raises((InvalidRequest, Unavailable)):
            open_sealed(each, KEYS, BINDING)


def _flipped(envelope: bytes, bit: int) -> bytes:
    changed = bytearray(envelope)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def _mutated(envelope: bytes, chance: random.Random) -> bytes:
    """`envelope` with something cut out, put in, doubled or put over it; never as it was."""
    start, end = sorted(chance.randrange(len(envelope) + 1) for _ in range(2))
    filling = chance.choice([b"", chance.randbytes(chance.randrange(1, 20)), envelope[start:end] * 2])
    changed = envelope[:start] + filling + envelope[end:]
    return changed if changed != envelope else envelope + b"\0"


@pytest.mark.parametrize(
    ("envelope", "complaint"),
    [
        (b"", "not sealed"),
        (PAYLOAD, "not sealed"),
        (b"weft\x01", "not whole"),
        (b"weft\x02" + bytes(100), "version 2"),
        (b"weft" + bytes(MAX_ENVELOPE_BYTES), "at most"),
    ],
)
def test_what_is_no_envelope_is_refused_before_any_key_is_asked_for(envelope: bytes, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        sealed_epoch(envelope, BINDING)
    assert "topic/news" in caught.value.detail


def test_what_is_too_large_is_not_sealed() -> None:
    with pytest.raises(InvalidRequest, match="reference"):
        seal(bytes(MAX_PAYLOAD_BYTES + 1), PUBLISHING, BINDING)


def test_a_public_key_that_hides_nothing_is_not_used() -> None:
    weak = PublishingKey(X25519PublicKey.from_public_bytes(bytes(32)), publish_until=2e9)
    with pytest.raises(InvalidRequest, match="cannot be used"):
        seal(PAYLOAD, weak, BINDING)


@pytest.mark.parametrize(
    ("message_id", "content_type"), [("", ""), ("x" * 257, ""), ("m", "x" * 257), ("\ud800", "")]
)
def test_a_binding_has_limits(message_id: str, content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        Binding(NEWS, message_id, content_type)


def test_keys_come_back_from_their_documents() -> None:
    assert parse_publishing_key(publishing_key_document(PUBLISHING)) == PUBLISHING
    [key] = parse_consuming_keys(consuming_keys_document([CONSUMING]))
    assert (key.epoch, key.keep_until) == (CONSUMING.epoch, CONSUMING.keep_until)
    assert key.key.private_bytes_raw() == PRIVATE.private_bytes_raw()


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "00" * 8},
        {"epoch": None},
        {"privateKey": "A" * 44},
        {"privateKey": "AAAA"},
        {"privateKey": "A" * 100_000},
        {"privateKey": 7},
        {"keepUntil": "soon"},
        {"keepUntil": float("nan")},
        {"keepUntil": True},
        {"more": 1},
    ],
    ids=str,
)
def test_a_key_that_is_none_is_refused_without_repeating_it(change: dict[str, object]) -> None:
    [document] = consuming_keys_document([CONSUMING])["keys"]
    with pytest.raises(InvalidRequest) as caught:
        parse_consuming_keys({"keys": [document | change]})
    assert "AAAA" not in caught.value.detail
    assert document["privateKey"] not in repr(caught.value)


@pytest.mark.parametrize(
    "document",
    [None, {}, [], {"keys": 7}, {"keys": [7]}, {"keys": [{}]}, {"keys": [{}] * 10_000}],
    ids=range(7),
)
def test_what_is_no_list_of_keys_is_refused(document: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_consuming_keys(document)


def test_a_private_key_does_not_show() -> None:
    shown = f"{CONSUMING!r} {CONSUMING}"
    for secret in (PRIVATE.private_bytes_raw().hex(), repr(PRIVATE.private_bytes_raw())):
        assert secret not in shown
