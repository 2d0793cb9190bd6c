"""The keys of an encrypted topic or queue: a pair for each epoch, the time between two rotations.

Publishers hold the public key of the current epoch, consumers the private keys of all epochs of which
messages may still be under way. An epoch is named by its public key, so a name never stands for two keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from weft.errors import InvalidRequest

EPOCH_BYTES = 8
"""Length of an epoch's name; as a text, twice as many hexadecimal digits."""

KEY_BYTES = 32
"""Length of an X25519 key, private or public."""

MAX_EPOCHS = 256
"""How many epochs of a topic or queue may have messages under way at once."""


@dataclass(frozen=True, slots=True)
class PublishingKey:
    """What a publisher seals with."""

    key: X25519PublicKey
    publish_until: float
    """Seconds since 1970 after which nobody may seal with it, for its private key is not kept for ever."""

    @property
    def epoch(self) -> str:
        """The epoch's name."""
        return epoch_of(self.key)


@dataclass(frozen=True, slots=True)
class ConsumingKey:
    """What a consumer opens with. Neither its text nor its repr shows the key."""

    key: X25519PrivateKey
    keep_until: float
    """Seconds since 1970 after which no message sealed for it can be under way any more."""

    @property
    def epoch(self) -> str:
        """The epoch's name."""
        return epoch_of(self.key.public_key())


def epoch_of(key: X25519PublicKey) -> str:
    """The name of the epoch whose public key it is: the beginning of the key's SHA-256, in hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:EPOCH_BYTES].hex()


def publishing_key_document(key: PublishingKey) -> dict[str, Any]:
    """`key` as JSON types, as the control plane sends it."""
    public = base64.b64encode(key.key.public_bytes_raw()).decode()
    return {"epoch": key.epoch, "publicKey": public, "publishUntil": key.publish_until}


def consuming_keys_document(keys: Iterable[ConsumingKey]) -> dict[str, Any]:
    """`keys` as JSON types, as the control plane sends them. Holds private keys: for its receiver only."""
    return {"keys": [_consuming_key_document(each) for each in keys]}


def parse_publishing_key(document: Any) -> PublishingKey:
    """The key that `document` stands for. Raises InvalidRequest if it stands for none."""
    fields = _fields(document, {"epoch", "publicKey", "publishUntil"})
    public = X25519PublicKey.from_public_bytes(_key_bytes(fields["publicKey"]))
    key = PublishingKey(public, _time(fields["publishUntil"]))
    _check_epoch(fields["epoch"], key.epoch)
    return key


def parse_consuming_keys(document: Any) -> tuple[ConsumingKey, ...]:
    """The keys that `document` stands for. Raises InvalidRequest if it stands for none."""
    keys = _fields(document, {"keys"})["keys"]
    if not isinstance(keys, list) or len(keys) > MAX_EPOCHS:
        raise InvalidRequest(f"keys of messages come as a list of {MAX_EPOCHS} at most")
    return tuple(_consuming_key(each) for each in keys)


def _consuming_key_document(key: ConsumingKey) -> dict[str, Any]:
    private = base64.b64encode(key.key.private_bytes_raw()).decode()
    return {"epoch": key.epoch, "privateKey": private, "keepUntil": key.keep_until}


def _consuming_key(document: Any) -> ConsumingKey:
    fields = _fields(document, {"epoch", "privateKey", "keepUntil"})
    private = X25519PrivateKey.from_private_bytes(_key_bytes(fields["privateKey"]))
    key = ConsumingKey(private, _time(fields["keepUntil"]))
    _check_epoch(fields["epoch"], key.epoch)
    return key


# None of these errors repeats what it was given: it may be a private key.
def _fields(document: Any, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(document, dict) or document.keys() != names:
        raise InvalidRequest(
            f"keys of messages come with the fields {', '.join(sorted(names))}, and no others"
        )
    return document


def _key_bytes(text: Any) -> bytes:
    try:
        if isinstance(text, str) and len(text) <= 2 * KEY_BYTES:
            data = base64.b64decode(text, validate=True)
            if len(data) == KEY_BYTES:
                return data
    except (ValueError, binascii.Error):
        pass
    raise InvalidRequest(f"a key of messages is {KEY_BYTES} bytes in base64") from None


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest("the time in a key of messages is not a number of seconds since 1970")
    return float(value)


def _check_epoch(given: Any, epoch: str) -> None:
    if given != epoch:
        raise InvalidRequest(f"the key of epoch {epoch} came under another name: it was mixed up on its way")
