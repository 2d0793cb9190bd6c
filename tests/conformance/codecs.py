"""Codecs for the stores under test."""

from __future__ import annotations

import json
from typing import Any


class JsonCodec:
    """Any JSON."""

    def encode(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(data)


class RawCodec:
    """Bytes as they are: garbage to everybody else."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data
