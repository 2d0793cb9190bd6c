"""What providers' answers say of their limits, in all the forms that they have for it."""

from __future__ import annotations

import pytest

from weft.controlplane.llm.call import RateLimitNews
from weft.controlplane.llm.rate_limit_news import LONGEST_WAIT, rate_limit_news

NOW = 1_700_000_000.0
"""Tue, 14 Nov 2023 22:13:20 GMT."""


@pytest.mark.parametrize(
    ("headers", "news"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            RateLimitNews(60, 59, 1.0, 150_000, 149_984, 360.0),
        ),
        ({"x-ratelimit-reset-requests": "20ms"}, RateLimitNews(reset_requests=0.02)),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, RateLimitNews(reset_tokens=3723.5)),
        ({"x-ratelimit-reset-tokens": "0.25"}, RateLimitNews(reset_tokens=0.25)),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:50Z",
            },
            RateLimitNews(limit_requests=50, remaining_requests=0, reset_requests=30.0),
        ),
        ({"retry-after": "7"}, RateLimitNews(retry_after=7.0)),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, RateLimitNews(retry_after=60.0)),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, RateLimitNews(retry_after=0.0)),
        ({"retry-after": "9", "retry-after-ms": "1500"}, RateLimitNews(retry_after=1.5)),
        ({"retry-after": "999999999"}, RateLimitNews(retry_after=LONGEST_WAIT)),
    ],
    ids=str,
)
def test_it_is_read(headers: dict[str, str], news: RateLimitNews) -> None:
    assert rate_limit_news(headers, NOW) == news


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "nan", "1e9", "1s1s", "٣", "9" * 65, "Tue, 99 Nov 2023", "0" * 16]
)
def test_nonsense_says_nothing(value: str) -> None:
    for header in (
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ):
        assert rate_limit_news({header: value}, NOW) is None, header
