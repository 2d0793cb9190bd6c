"""Which partition of a topic a key belongs to: the same at every publisher, for every broker."""

from __future__ import annotations

import zlib


def partition_of(key: str, partitions: int) -> int:
    """The partition, from 0, of `key` in a topic with so many of them; 0 if it has none."""
    return zlib.crc32(key.encode()) % partitions if partitions else 0
