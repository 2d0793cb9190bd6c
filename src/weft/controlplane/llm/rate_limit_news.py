"""What a provider's answer says of its rate limits, as OpenAI, Azure, Anthropic and others write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from weft.controlplane.llm.call import RateLimitNews

MAX_VALUE_LENGTH: Final = 64
"""Characters of a header's value; what is longer says nothing."""

LONGEST_WAIT: Final = 86_400.0
"""Seconds; a provider that says it will be longer is taken to mean this."""

LARGEST_LIMIT: Final = 10**12

_OPENAI = "x-ratelimit-"
_ANTHROPIC = "anthropic-ratelimit-"

NEWS_HEADERS: Final = (
    "retry-after",
    "retry-after-ms",
    *(f"{_OPENAI}{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    *(
        f"{_ANTHROPIC}{of}-{what}"
        for of in ("requests", "tokens")
        for what in ("limit", "remaining", "reset")
    ),
)
"""Headers of answers that the access logs must carry."""

_TOLD = frozenset(NEWS_HEADERS)
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)
_SPAN = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_SECONDS = (86_400.0, 3600.0, 60.0, 1.0, 0.001)


def rate_limit_news(headers: Mapping[str, str], now: float) -> RateLimitNews | None:
    """What `headers` (by name in lower case) say at `now`, in seconds since 1970; None: nothing.

    What cannot be read is left out: a provider that writes nonsense is no reason to lose how a call ended.
    """
    if _TOLD.isdisjoint(headers):
        return None
    said = {name: headers[name].strip() for name in NEWS_HEADERS if name in headers}
    said = {name: value for name, value in said.items() if 0 < len(value) <= MAX_VALUE_LENGTH}
    if not said:
        return None
    news = RateLimitNews(
        limit_requests=_count(_of(said, "limit", "requests")),
        remaining_requests=_count(_of(said, "remaining", "requests")),
        reset_requests=_until(_of(said, "reset", "requests"), now),
        limit_tokens=_count(_of(said, "limit", "tokens")),
        remaining_tokens=_count(_of(said, "remaining", "tokens")),
        reset_tokens=_until(_of(said, "reset", "tokens"), now),
        retry_after=_retry_after(said, now),
    )
    return None if news == RateLimitNews() else news


def _of(said: Mapping[str, str], what: str, of: str) -> str:
    return said.get(f"{_OPENAI}{what}-{of}") or said.get(f"{_ANTHROPIC}{of}-{what}") or ""


def _count(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    return min(int(float(text)), LARGEST_LIMIT)


def _until(text: str, now: float) -> float | None:
    """Seconds from `now` that a time span, a number of seconds, or a date in RFC 3339 means."""
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    span = _SPAN.fullmatch(text)
    if span is not None:
        parts = zip(span.groups(), _SECONDS, strict=True)
        return min(sum(float(number) * seconds for number, seconds in parts if number), LONGEST_WAIT)
    return _from_date(_rfc3339(text), now)


def _retry_after(said: Mapping[str, str], now: float) -> float | None:
    milliseconds = said.get("retry-after-ms", "")
    if _NUMBER.fullmatch(milliseconds):
        return min(float(milliseconds) / 1000, LONGEST_WAIT)
    text = said.get("retry-after", "")
    if _NUMBER.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    return _from_date(_http_date(text), now) if text else None


def _from_date(date: datetime | None, now: float) -> float | None:
    if date is None:
        return None
    return min(max(0.0, date.timestamp() - now), LONGEST_WAIT)


def _rfc3339(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date if date.tzinfo is not None else None


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    except (ValueError, IndexError, OverflowError):
        return None
