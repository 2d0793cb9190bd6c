"""How what the leader must not forget is kept: with the term in which it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from weft.model.node import parse_address

T = TypeVar("T")

_SEPARATOR = b"\n"

MAX_TERM_LENGTH = 64
"""Characters."""


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A value, and who wrote it."""

    term: str
    """The term of leadership it was written in."""
    value: T


class KeptCodec(Generic[T]):
    """A line with the term, then the value in its own form."""

    def __init__(self, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        """`decode` raises ValueError for what is no value."""
        self._encode = encode
        self._decode = decode

    def encode(self, value: Kept[T]) -> bytes:
        """Return the bytes that stand for `value`."""
        return value.term.encode() + _SEPARATOR + self._encode(value.value)

    def decode(self, data: bytes) -> Kept[T]:
        """Return the value that `data` stands for; raise ValueError if it is garbage."""
        term, separator, rest = data.partition(_SEPARATOR)
        if not separator or len(term) > MAX_TERM_LENGTH:
            raise ValueError("not the record of a term")
        return Kept(term.decode("ascii"), self._decode(rest))


@dataclass(frozen=True, slots=True)
class Leader:
    """Who schedules."""

    term: str
    """Made anew whenever somebody begins to lead."""
    replica: str
    address: str
    """`host:port` at which sidecars reach it by gRPC."""
    revision: int = 0
    """At which it was written last, so that every renewal is a sign of life; not part of what is written."""


class LeaderCodec:
    """Leaders as JSON."""

    def encode(self, value: Leader) -> bytes:
        """Return the JSON of `value`."""
        fields = {"term": value.term, "replica": value.replica, "address": value.address}
        return json.dumps(fields, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Leader:
        """Return the leader in `data`; raise ValueError if there is none."""
        try:
            fields = json.loads(data)
            parse_address(str(fields["address"]))
            return Leader(str(fields["term"]), str(fields["replica"]), str(fields["address"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the record of a leader: {error!r}") from error
