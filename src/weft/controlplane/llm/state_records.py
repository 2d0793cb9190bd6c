"""How the state of pools and the accounts of budgets are kept."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.ledger_records import LEDGER_BUCKET, LedgerRecord
from weft.controlplane.llm.pool_state import PoolState
from weft.controlplane.llm.records import Kept, KeptCodec
from weft.errors import InvalidRequest
from weft.store.bucket import Bucket, Store

logger = logging.getLogger(__name__)

POOLS_BUCKET: Final = "llm-pools"
"""One record for each pool, by its name."""

MAX_STATE_BYTES: Final = 64 * 1024 * 1024
"""Of a state that was unpacked."""

_PACK_FROM = 32 * 1024
"""Bytes from which on a state is packed: below, it costs more than it saves."""

_PACKED = b"z"
_PLAIN = b"{"


@dataclass(frozen=True, slots=True)
class StateBuckets:
    """Where a leader keeps what its successor must know."""

    pools: Bucket[Kept[PoolState | None]]
    accounts: Bucket[Kept[LedgerRecord]]

    @classmethod
    async def open(cls, store: Store) -> StateBuckets:
        """Those in `store`. Raises Unavailable."""
        return cls(
            await store.bucket(POOLS_BUCKET, KeptCodec(_encoded, _decoded)),
            await store.bucket(LEDGER_BUCKET, KeptCodec(LedgerRecord.to_json, LedgerRecord.from_json)),
        )


def _encoded(state: PoolState | None) -> bytes:
    data = (state or PoolState()).to_json()
    return data if len(data) < _PACK_FROM else _PACKED + zlib.compress(data, 1)


def _decoded(data: bytes) -> PoolState | None:
    """The state in `data`; None if this version of Weft cannot read it."""
    try:
        return PoolState.from_json(data if data.startswith(_PLAIN) else _unpacked(data))
    except (InvalidRequest, zlib.error) as error:
        # The limits are counted from nothing then, which is wrong for a minute; never to begin is worse.
        logger.warning("what was under way in a pool of models cannot be read, and is forgotten: %s", error)
        return None


def _unpacked(data: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    unpacked = unpacking.decompress(data.removeprefix(_PACKED), MAX_STATE_BYTES)
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise InvalidRequest("the state of a pool is cut off, or too large")
    return unpacked
