"""What a successor must know of a pool: what was admitted, what counts towards limits, who must be spared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import to_json

VERSION = 1
"""Of the format. What has another is not read."""


class FlightRecord(NamedTuple):
    """A call under way. A tuple: one is made for every admission, and written by every commit."""

    call_id: str
    provider: str
    started: float
    tokens: int
    """Reserved for prompt and answer together."""
    prompt_tokens: int
    output_tokens: int
    """The part of `tokens` that is for the answer."""
    tenant: str
    rank: int
    """Of the class in which it was served."""
    cost: float
    """Charged to its tenant's counter."""
    model: str
    sidecar: str
    streaming: bool


class ProviderRecord(NamedTuple):
    """What counts towards one provider's limits, and how it is."""

    name: str
    buckets: tuple[tuple[int, int, int], ...]
    """Number of the bucket of time, requests, tokens."""
    cooling_until: float = 0.0
    pushbacks: int = 0
    """How often in a row it asked to be spared without saying for how long."""
    open_until: float = 0.0
    openings: int = 0
    """How often in a row its circuit was broken; 0: it is whole."""
    told_requests: int | None = None
    told_tokens: int | None = None
    """Limits that it told, if lower than declared."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """All that a successor needs. Calls that wait are not in it: they come anew by themselves."""

    flights: tuple[FlightRecord, ...] = ()
    providers: tuple[ProviderRecord, ...] = ()

    def to_json(self) -> bytes:
        """As it is kept."""
        content = {
            "version": VERSION,
            "flights": self.flights,
            "providers": self.providers,
        }
        return to_json(content)

    @classmethod
    def from_json(cls, text: bytes) -> PoolState:
        """Raises ValueError if it is none, or of another version."""
        try:
            content: dict[str, Any] = json.loads(text)
            if content["version"] != VERSION:
                raise ValueError(f"the state of a pool has version {content['version']!r}, not {VERSION}")
            return cls(
                tuple(FlightRecord(*each) for each in content["flights"]),
                tuple(
                    ProviderRecord(name, tuple((int(a), int(b), int(c)) for a, b, c in buckets), *rest)
                    for name, buckets, *rest in content["providers"]
                ),
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"what is kept of a pool is no state of a pool: {error!r}") from error
