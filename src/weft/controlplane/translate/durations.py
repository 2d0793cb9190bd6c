"""Seconds, as protobuf wants them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

_NANOSECONDS = 1_000_000_000


def duration(seconds: float) -> Duration:
    """`seconds` as a protobuf Duration."""
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * _NANOSECONDS))
