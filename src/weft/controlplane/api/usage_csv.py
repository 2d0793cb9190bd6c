"""Usage as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from weft.controlplane.llm.usage_record import UsageField, UsageRow

COUNTS: Final = (
    "calls",
    "failed",
    "cancelled",
    "estimated",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "estimated_tokens",
    "tokens",
    "usd",
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def usage_csv(rows: Iterable[UsageRow], fields: Sequence[UsageField]) -> str:
    """A line of names, then a line for each row (RFC 4180)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*(each.value for each in fields), *COUNTS])
    for row in rows:
        writer.writerow(
            [
                *(_cell(getattr(row.of, each)) for each in fields),
                *(getattr(row.counts, each) for each in COUNTS[:-1]),
                f"{row.counts.usd:.9f}",
            ]
        )
    return text.getvalue()


def _cell(text: str) -> str:
    """`text`, which agents chose, such that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
