"""Filters of a page as the query of its address: dataclasses whose fields are all text, empty by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any


def read_filters(kind: type[Any], query: Mapping[str, Any], longest: int) -> dict[str, str]:
    """What a query says of each field of `kind`, cut to `longest` characters."""
    return {each.name: str(query.get(each.name, "")).strip()[:longest] for each in fields(kind)}


def given_filters(filters: Any) -> Iterator[tuple[str, str]]:
    """Those fields of `filters` that are not empty, by name."""
    for each in fields(filters):
        if value := getattr(filters, each.name):
            yield each.name, value
