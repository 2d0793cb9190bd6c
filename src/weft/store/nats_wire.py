"""How a bucket looks on the wire: the names and headers of NATS KV (ADR-8, ADR-43, ADR-48)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from weft.store.bucket import Removal

MARKER_TTL = 600
"""Seconds for which the marker of a removed key is kept: far longer than a watch may lag behind."""

_OPERATION = "KV-Operation"
"""In the marker that a client writes to delete a key: DEL or PURGE."""
_MARKER_REASON = "Nats-Marker-Reason"
"""In the marker that the server of a stream made elsewhere writes where a key's time ran out: MaxAge."""
_TTL = "Nats-TTL"
_EXPECTED_REVISION = "Nats-Expected-Last-Subject-Sequence"

STATUS = "Status"
NO_RESPONDERS_STATUS = "503"
"""The status of the server's answer where nobody takes a request."""
NOT_FOUND_STATUS = "404"
SEQUENCE = "Nats-Sequence"
"""In what a direct get finds: where it is in its stream."""
CONTROL_STATUS = "100"
"""The status of what a consumer sends beside messages: idle heartbeats and flow control requests."""
LAST_DELIVERED = "Nats-Last-Consumer"
"""In a heartbeat: how many messages the consumer has sent."""
STALLED = "Nats-Consumer-Stalled"
"""In a heartbeat: where to answer the flow control request that the consumer waits for."""


def stream_name(bucket: str) -> str:
    """The stream that holds `bucket`."""
    return f"KV_{bucket}"


def subject(bucket: str, key: str) -> str:
    """The subject that `key` is."""
    return f"$KV.{bucket}.{key}"


def filters(bucket: str, prefix: str) -> list[str]:
    """The subjects of the keys that are `prefix` or begin with `prefix.`; of all keys if it is empty."""
    if not prefix:
        return [subject(bucket, ">")]
    return [subject(bucket, prefix), subject(bucket, f"{prefix}.>")]


def stream_config(bucket: str, *, replicas: int, direct: bool = False) -> StreamConfig:
    """The stream for `bucket`: on disk, one revision of each key; `direct`: any replica may be read."""
    return StreamConfig(
        name=stream_name(bucket),
        subjects=[subject(bucket, ">")],
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.NEW,
        deny_delete=True,
        # With that header whoever may write one key could remove all others.
        allow_rollup_hdrs=False,
        deny_purge=True,
        # Else reads go to the leader: a follower may not have yet what its reader has just written.
        allow_direct=direct,
        allow_msg_ttl=True,
    )


def write_headers(*, ttl: float | None = None, revision: int | None = None) -> dict[str, str]:
    """The headers of a write that lapses after `ttl` seconds, on condition that the key is at `revision`."""
    headers = {}
    if ttl is not None:
        # The server cuts fractions of a second off: "1500ms" lapses after one second.
        headers[_TTL] = str(math.ceil(ttl))
    if revision is not None:
        headers[_EXPECTED_REVISION] = str(revision)
    return headers


def delete_headers(revision: int) -> dict[str, str]:
    """The headers of the marker that deletes a key which is at `revision`."""
    return {_OPERATION: "DEL", **write_headers(ttl=MARKER_TTL, revision=revision)}


def time_left(headers: Mapping[str, str] | None, age: float) -> float | None:
    """Seconds until what was written with `headers`, `age` seconds ago, lapses; None: never."""
    ttl = (headers or {}).get(_TTL, "")
    # What a foreign client wrote in another form is followed until the next snapshot.
    return max(0.0, int(ttl) - max(0.0, age)) if ttl.isdecimal() and len(ttl) < 12 else None


def removal(headers: Mapping[str, str] | None) -> Removal | None:
    """Why the key of a message is gone; None if the message is a value."""
    if not headers:
        return None
    if _OPERATION in headers:
        return Removal.DELETED
    if _MARKER_REASON in headers:
        return Removal.EXPIRED if headers[_MARKER_REASON] == "MaxAge" else Removal.DELETED
    return None
