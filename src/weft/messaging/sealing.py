"""Payloads sealed end to end: by a publisher, for the consumers of one topic or queue, past the broker.

The seal is HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. An envelope is

| bytes | what |
|---|---|
| 4 | `weft` |
| 1 | version: 1 |
| 8 | the epoch whose key it is sealed for |
| 32 | encapsulated key |
| rest | ciphertext: as long as the payload, and 16 bytes of tag |

so it is 61 bytes longer than the payload. HPKE's `info` holds the first 13 bytes, then the binding: kind and
name of the channel, message id, content type, each preceded by its length (4 bytes, big endian). So an
envelope opens only where and as what it was published.

What this is not: proof of who sealed it. Whoever holds the public key can seal; who may publish at all is
enforced by the broker's permissions. The broker sees sizes, times, subjects, ids and content types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from weft.errors import InvalidRequest, Unavailable
from weft.messaging.channel import Channel
from weft.messaging.keys import EPOCH_BYTES, ConsumingKey, PublishingKey

OVERHEAD_BYTES = 61
"""How much longer an envelope is than its payload."""

MAX_ENVELOPE_BYTES = 1024 * 1024
"""A larger envelope is neither made nor opened. NATS by default takes as much, headers included."""

MAX_PAYLOAD_BYTES = MAX_ENVELOPE_BYTES - OVERHEAD_BYTES
"""A larger payload is not sealed."""

MAX_MESSAGE_ID_BYTES = 256
MAX_CONTENT_TYPE_BYTES = 256

_MAGIC = b"weft"
_VERSION = 1
_HEADER_BYTES = len(_MAGIC) + 1 + EPOCH_BYTES
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Binding:
    """What an envelope is bound to. Making one raises InvalidRequest if a field has a wrong length."""

    channel: Channel
    message_id: str
    """1 to 256 bytes."""
    content_type: str
    """At most 256 bytes."""

    def __post_init__(self) -> None:
        if not 1 <= _length(self.message_id) <= MAX_MESSAGE_ID_BYTES:
            raise InvalidRequest(f"{self.channel}: a message id has 1 to {MAX_MESSAGE_ID_BYTES} bytes")
        if _length(self.content_type) > MAX_CONTENT_TYPE_BYTES:
            raise InvalidRequest(f"{self.channel}: a content type has at most {MAX_CONTENT_TYPE_BYTES} bytes")

    def __str__(self) -> str:
        return f"message {self.message_id!r} of {self.channel}"


def seal(payload: bytes, key: PublishingKey, binding: Binding) -> bytes:
    """The envelope of `payload`. Raises InvalidRequest if it is larger than MAX_PAYLOAD_BYTES."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidRequest(
            f"{binding} has {len(payload)} bytes; {MAX_PAYLOAD_BYTES} can be sealed: "
            "send a reference to what is larger"
        )
    header = _MAGIC + bytes([_VERSION]) + bytes.fromhex(key.epoch)
    try:
        return header + _SUITE.encrypt(payload, key.key, info=_info(header, binding))
    except ValueError as error:
        raise InvalidRequest(
            f"{binding.channel}: the key of epoch {key.epoch} cannot be used to seal"
        ) from error


def sealed_epoch(envelope: bytes, binding: Binding) -> str:
    """The epoch that `envelope` says it is sealed for. Raises InvalidRequest if it is no envelope at all."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise InvalidRequest(
            f"{binding} has {len(envelope)} bytes, an envelope has {MAX_ENVELOPE_BYTES} at most: "
            "do not process it"
        )
    if not envelope.startswith(_MAGIC) or len(envelope) < OVERHEAD_BYTES:
        raise InvalidRequest(
            f"{binding} is not sealed, or not whole, though {binding.channel} is encrypted: "
            "do not process it, and find out who sent it"
        )
    version = envelope[len(_MAGIC)]
    if version != _VERSION:
        raise InvalidRequest(
            f"{binding} is sealed in version {version}; this Weft opens version {_VERSION}: upgrade it"
        )
    return envelope[_HEADER_BYTES - EPOCH_BYTES : _HEADER_BYTES].hex()


def open_sealed(envelope: bytes, keys: Mapping[str, ConsumingKey], binding: Binding) -> bytes:
    """The payload in `envelope`, which came as `binding` says; `keys` are by epoch.

    Raises InvalidRequest if it is no envelope, was changed or is bound to something else; Unavailable if the
    key of its epoch is not among `keys`.
    """
    epoch = sealed_epoch(envelope, binding)
    key = keys.get(epoch)
    if key is None:
        raise Unavailable(
            f"{binding} is sealed for epoch {epoch}, of which there is no key here: it is newer than the "
            "keys, or so old that its key is gone"
        )
    info = _info(envelope[:_HEADER_BYTES], binding)
    try:
        return _SUITE.decrypt(envelope[_HEADER_BYTES:], key.key, info=info)
    except InvalidTag:
        raise InvalidRequest(
            f"{binding}, sealed for epoch {epoch}, does not open: it was changed on its way, or sealed for "
            "another topic or queue, id or content type; do not process it"
        ) from None


def _length(text: str) -> int:
    """Its length in UTF-8. Raises InvalidRequest if it holds what no UTF-8 stands for."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{text[:MAX_MESSAGE_ID_BYTES]!r} is not a text in UTF-8") from None


def _info(header: bytes, binding: Binding) -> bytes:
    channel = binding.channel
    fields = (channel.kind.value, channel.name, binding.message_id, binding.content_type)
    encoded = [each.encode() for each in fields]
    return header + b"".join(len(each).to_bytes(4, "big") + each for each in encoded)
