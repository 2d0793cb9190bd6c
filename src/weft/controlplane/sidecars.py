"""What is known of the sidecars' configuration: who is connected, and what they rejected.

Kept in the store, so that any replica can tell of sidecars that are connected to another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from weft.errors import Unavailable
from weft.model.node import Node
from weft.store.bucket import Bucket, Store

logger = logging.getLogger(__name__)

BUCKET = "sidecars"

RECORD_TTL = 180.0
"""Seconds after which the record of a sidecar lapses unless its replica writes it again."""

REFRESH_INTERVAL = 60.0
"""Seconds between two writings of the same record."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A configuration that a sidecar's Envoy refused (NACK); it goes on with the one it had."""

    type_url: str
    reason: str
    resources: tuple[str, ...]
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One connected sidecar."""

    key: str
    """Its xDS node id: `<type>.<instance>` or `caller.<id>`."""
    connected_since: float
    """Seconds since 1970."""
    rejected: Mapping[str, Rejection] = field(default_factory=dict)
    """What it rejected and has not replaced since, by type URL."""
    metrics: str = ""
    """`host:port` at which it says its metrics are; empty: nowhere."""
    peer: str = ""
    """The IP address from which it connected."""

    @property
    def in_sync(self) -> bool:
        """Whether it took everything it was sent."""
        return not self.rejected


class SidecarCodec:
    """Sidecar records as JSON."""

    def encode(self, value: Sidecar) -> bytes:
        """Return the JSON of `value`."""
        return json.dumps(asdict(value), separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Sidecar:
        """Return the record in `data`; raise ValueError if it holds none."""
        try:
            fields: dict[str, Any] = json.loads(data)
            rejected = {
                url: Rejection(**{**each, "resources": tuple(each["resources"])})
                for url, each in fields["rejected"].items()
            }
            return Sidecar(
                str(fields["key"]),
                float(fields["connected_since"]),
                rejected,
                str(fields.get("metrics", "")),
                str(fields.get("peer", "")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the record of a sidecar: {error!r}") from error


class Sidecars:
    """Observes the sidecars connected to this replica; `run` writes what changes to the store."""

    def __init__(self, bucket: Bucket[Sidecar]) -> None:
        self._bucket = bucket
        self._connected: dict[str, Sidecar] = {}
        # A sidecar that comes back may have an old stream that is not known to be dead yet.
        self._streams: Counter[str] = Counter()
        self._dirty: set[str] = set()
        self._woken = asyncio.Event()

    @classmethod
    async def open(cls, store: Store) -> Sidecars:
        """Open the records in `store`."""
        return cls(await store.bucket(BUCKET, SidecarCodec()))

    async def get(self, key: str) -> Sidecar | None:
        """The sidecar `key`, connected to whichever replica; None if it is not connected."""
        entry = await self._bucket.get(key)
        return entry.value if entry else None

    async def list(self) -> list[Sidecar]:
        """All connected sidecars, by key."""
        return [entry.value for entry in await self._bucket.entries()]

    @property
    def connected_here(self) -> tuple[int, int]:
        """How many are connected to this replica, and how many of them refuse something."""
        return len(self._connected), sum(not each.in_sync for each in self._connected.values())

    def connected(self, node: Node, peer: str = "") -> None:
        """A stream of `node` began, from the IP address `peer`."""
        self._streams[node.key] += 1
        metrics = "" if node.metrics is None else str(node.metrics)
        self._change(node.key, Sidecar(node.key, time.time(), metrics=metrics, peer=peer))

    def synced(self, node: Node, generation: int) -> None:  # noqa: ARG002 -- the observer's interface
        """`node` took all that it was sent."""
        sidecar = self._connected.get(node.key)
        if sidecar is not None and sidecar.rejected:
            self._change(node.key, replace(sidecar, rejected={}))

    def rejected(self, node: Node, type_url: str, reason: str, names: tuple[str, ...]) -> None:
        """`node` refused what it was sent of a type."""
        logger.warning("%s rejects %s of type %s: %s", node.key, ", ".join(names), type_url, reason)
        sidecar = self._connected.get(node.key)
        if sidecar is not None:
            rejection = Rejection(type_url, reason, names, time.time())
            self._change(node.key, replace(sidecar, rejected={**sidecar.rejected, type_url: rejection}))

    def disconnected(self, node: Node) -> None:
        """A stream of `node` ended."""
        self._streams[node.key] -= 1
        if self._streams[node.key] == 0:
            del self._streams[node.key]
            self._change(node.key, None)

    def _change(self, key: str, sidecar: Sidecar | None) -> None:
        if sidecar is None:
            self._connected.pop(key, None)
        else:
            self._connected[key] = sidecar
        self._dirty.add(key)
        self._woken.set()

    async def run(self) -> None:
        """Write changes to the store as they come, and everything anew in time; until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_INTERVAL):
                    await self._woken.wait()
            self._woken.clear()
            keys, self._dirty = self._dirty or set(self._connected), set()
            for key in sorted(keys):
                try:
                    await self._write(key)
                except Unavailable as error:
                    # Nothing is lost: all that are connected are written again at the next refresh.
                    logger.warning("the state of sidecars cannot be kept: %s", error.detail)
                    break

    async def _write(self, key: str) -> None:
        sidecar = self._connected.get(key)
        if sidecar is None:
            await self._bucket.delete(key)
        else:
            await self._bucket.put(key, sidecar, ttl=RECORD_TTL)
