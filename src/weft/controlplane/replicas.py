"""The control plane's replicas, as each tells the others of itself: where its metrics are."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass

from weft.errors import MeshError, Unavailable
from weft.store.bucket import Bucket, Store

logger = logging.getLogger(__name__)

BUCKET = "replicas"

RECORD_TTL = 60.0
"""Seconds after which the record of a replica lapses unless it is written again."""

REFRESH_INTERVAL = 20.0
"""Seconds between two writings of it."""

_FAREWELL = 1.0  # seconds that a stopping replica has to take its record back; else it lapses


@dataclass(frozen=True, slots=True)
class RunningReplica:
    """One process of the control plane."""

    name: str
    """As in its identity."""
    metrics: str
    """`host:port` at which Prometheus reaches its metrics; empty: nowhere."""
    version: str
    """Of Weft."""


class ReplicaCodec:
    """Replicas as JSON."""

    def encode(self, value: RunningReplica) -> bytes:
        """Return the JSON of `value`."""
        return json.dumps(asdict(value), separators=(",", ":")).encode()

    def decode(self, data: bytes) -> RunningReplica:
        """Return the replica in `data`; raise ValueError if it holds none."""
        try:
            fields = json.loads(data)
            return RunningReplica(str(fields["name"]), str(fields["metrics"]), str(fields["version"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the record of a replica: {error!r}") from error


class Replicas:
    """Every replica's record; `run` keeps that of this one."""

    def __init__(self, bucket: Bucket[RunningReplica], own: RunningReplica) -> None:
        self._bucket = bucket
        self._own = own
        # Two replicas may have been given the same name, and one that was killed left its record.
        self._key = f"{own.name}.{secrets.token_hex(8)}"

    @classmethod
    async def open(cls, store: Store, own: RunningReplica) -> Replicas:
        """Open the records in `store`; this replica is `own`."""
        return cls(await store.bucket(BUCKET, ReplicaCodec()), own)

    async def list(self) -> list[RunningReplica]:
        """All of them, by name, each once. Raises Unavailable."""
        found = {entry.value for entry in await self._bucket.entries()}
        return sorted(found, key=lambda each: (each.name, each.metrics))

    async def run(self) -> None:
        """Tell of this replica until cancelled, then no more."""
        try:
            while True:
                await self.write()
                await asyncio.sleep(REFRESH_INTERVAL)
        finally:
            await self.withdraw()

    async def write(self) -> None:
        """Tell of this replica once, for RECORD_TTL."""
        try:
            await self._bucket.put(self._key, self._own, ttl=RECORD_TTL)
        except Unavailable as error:
            logger.warning("the other replicas cannot be told of this one: %s", error.detail)

    async def withdraw(self) -> None:
        """Tell of it no more."""
        with suppress(MeshError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._bucket.delete(self._key)
