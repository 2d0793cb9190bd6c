"""What was used of models, by day and by whom: the rows that are kept."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict

USAGE_BUCKET: Final = "llm-usage"
"""Where the records are, under `DAY.digest`: a day's have its date for a prefix."""

USAGE_TTL: Final = 400 * 86_400.0
"""Seconds for which a record is kept from when it changed last."""


class UsageField(StrEnum):
    """By what usage is told apart."""

    DAY = "day"
    """In UTC, `2026-11-21`."""
    TENANT = "tenant"
    AGENT = "agent"
    """The type of the agent that called."""
    MODEL = "model"
    POOL = "pool"
    PROVIDER = "provider"
    """Empty: nobody was reached."""
    CONTEXT = "context"
    """Empty: the calls named none; `(other)`: there were too many to tell apart."""


@dataclass(frozen=True, slots=True)
class UsageOf:
    """Whose usage it is. What a row is not told apart by is empty."""

    day: str = ""
    tenant: str = ""
    agent: str = ""
    model: str = ""
    pool: str = ""
    provider: str = ""
    context: str = ""

    @property
    def key(self) -> str:
        """Where the record is kept."""
        text = json.dumps([getattr(self, each.name) for each in fields(self)])
        return f"{self.day}.{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was used."""

    calls: int = 0
    failed: int = 0
    """Calls that got an error, or an answer that broke off."""
    cancelled: int = 0
    """Calls whose client left before the end."""
    estimated: int = 0
    """Calls whose answer did not say what it used: their tokens are estimated."""
    prompt_tokens: int = 0
    """As providers count them."""
    cached_tokens: int = 0
    """Of those of the prompts."""
    completion_tokens: int = 0
    estimated_tokens: int = 0
    """Of prompts and answers together, where the answer did not say."""
    usd: float = 0.0
    """By the prices of the providers, at the time."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens + self.estimated_tokens

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(
            self.calls + other.calls,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
            self.estimated + other.estimated,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.estimated_tokens + other.estimated_tokens,
            self.usd + other.usd,
        )


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A row of the book. `UsageRow` is the same: rows that are told apart by less are sums of records."""

    of: UsageOf
    counts: Counts

    @property
    def key(self) -> str:
        """Where it is kept in USAGE_BUCKET."""
        return self.of.key

    def to_json(self) -> bytes:
        """This record as JSON, what is empty left out."""
        told = {name: value for name in _OF if (value := getattr(self.of, name))}
        counted = {name: value for name in _COUNTS if (value := getattr(self.counts, name))}
        return to_json(told | counted)

    @classmethod
    def from_json(cls, data: bytes) -> UsageRecord:
        """The record in `data`. Raises ValueError if it holds none."""
        try:
            given = _RECORD.validate_json(data)
        except ValidationError as error:
            raise ValueError("not a record of usage") from error
        of = {name: value for name, value in given.items() if name in _OF}
        counts = {name: value for name, value in given.items() if name in _COUNTS}
        return cls(UsageOf(**of), Counts(**counts))  # type: ignore[arg-type]


UsageRow = UsageRecord


class UsageCodec:
    """The records as their bucket keeps them."""

    def encode(self, value: UsageRecord) -> bytes:
        """Return the JSON of `value`."""
        return value.to_json()

    def decode(self, data: bytes) -> UsageRecord:
        """Return the record in `data`; raise ValueError if it holds none."""
        return UsageRecord.from_json(data)


DAY_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_OF = tuple(each.name for each in fields(UsageOf))
_COUNTS = tuple(each.name for each in fields(Counts))

_Day = Annotated[str, StringConstraints(pattern=rf"^{DAY_FORM.pattern}$")]
_Text = Annotated[str, StringConstraints(max_length=4096)]
_Count = Annotated[int, Field(ge=0)]


@with_config(ConfigDict(extra="ignore"))
class _Required(TypedDict):
    day: _Day


# Versions of Weft mix in one mesh: a field that this one does not know is none of its business.
@with_config(ConfigDict(extra="ignore"))
class _Record(_Required, total=False):
    tenant: _Text
    agent: _Text
    model: _Text
    pool: _Text
    provider: _Text
    context: _Text
    calls: _Count
    failed: _Count
    cancelled: _Count
    estimated: _Count
    prompt_tokens: _Count
    cached_tokens: _Count
    completion_tokens: _Count
    estimated_tokens: _Count
    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)]


_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)
