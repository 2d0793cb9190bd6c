"""Which names, keys, values and lifetimes every bucket accepts."""

from __future__ import annotations

import logging
import re
from typing import TypeVar

from weft.errors import InvalidRequest
from weft.store.bucket import MAX_VALUE_BYTES, Codec, Entry

T = TypeVar("T")

logger = logging.getLogger(__name__)

_MAX_KEY_LENGTH = 512
_NAME = re.compile(r"[-_A-Za-z0-9]{1,64}")
_KEY = re.compile(r"[-_A-Za-z0-9]+(\.[-_A-Za-z0-9]+)*")
_TTL_RANGE = (1.0, 10 * 365 * 86400.0)


def check_bucket(name: str) -> None:
    """Raise InvalidRequest unless a bucket may be called `name`."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:64]!r} is no name for a bucket: use 1 to 64 letters, digits, hyphens and underscores"
        )


def check_key(bucket: str, key: str) -> None:
    """Raise InvalidRequest unless `key` is dot-separated tokens of letters, digits, `-` and `_`."""
    if len(key) > _MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"bucket {bucket!r}: key {key[:_MAX_KEY_LENGTH]!r} is not made of letters, digits, '-' and '_' "
            f"between dots, {_MAX_KEY_LENGTH} characters at most"
        )


def check_prefix(bucket: str, prefix: str) -> None:
    """Raise InvalidRequest unless `prefix` is a key, or empty."""
    if prefix:
        check_key(bucket, prefix)


def check_write(bucket: str, key: str, data: bytes, ttl: float | None) -> None:
    """Raise InvalidRequest unless `data` may be written under `key` for `ttl` seconds."""
    check_key(bucket, key)
    if len(data) > MAX_VALUE_BYTES:
        raise InvalidRequest(
            f"bucket {bucket!r}: the value of {key!r} has {len(data)} bytes; the limit is {MAX_VALUE_BYTES}"
        )
    shortest, longest = _TTL_RANGE
    if ttl is not None and not shortest <= ttl <= longest:
        raise InvalidRequest(
            f"bucket {bucket!r}: {key!r} cannot have a ttl of {ttl} s; use {shortest:g} to {longest:g} s"
        )


def covers(prefix: str, key: str) -> bool:
    """Whether `key` is `prefix`, or begins with `prefix.`; every key if `prefix` is empty."""
    return not prefix or key == prefix or key.startswith(f"{prefix}.")


def decoded(bucket: str, key: str, data: bytes, revision: int, codec: Codec[T]) -> Entry[T] | None:
    """The entry that `data` stands for; None, with a warning, if it is garbage."""
    try:
        return Entry(key, codec.decode(data), revision)
    except ValueError as error:
        logger.warning("bucket %r: the value of key %r is skipped: %s", bucket, key, error)
        return None
