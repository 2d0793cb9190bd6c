"""Which records every journal accepts, and which questions about the latest entries."""

from __future__ import annotations

from typing import TypeVar

from weft.errors import InvalidRequest
from weft.store.bucket import Codec
from weft.store.journal import MAX_RECENT, MAX_RECORD_BYTES
from weft.store.keys import check_key, check_prefix

T = TypeVar("T")


def encoded(journal: str, tail: str, record: T, codec: Codec[T]) -> bytes:
    """The bytes of `record`. Raises InvalidRequest unless it may be written to `tail`."""
    check_key(journal, tail)
    data = codec.encode(record)
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidRequest(
            f"journal {journal!r}: a record for {tail!r} has {len(data)} bytes; "
            f"the limit is {MAX_RECORD_BYTES}"
        )
    return data


def check_recent(what: str, limit: int, prefix: str) -> None:
    """Raise InvalidRequest unless the last `limit` entries under `prefix` may be asked for."""
    check_prefix(what, prefix)
    if not 1 <= limit <= MAX_RECENT:
        raise InvalidRequest(f"{what!r}: ask for 1 to {MAX_RECENT} entries, not {limit}")
