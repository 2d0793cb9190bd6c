"""W3C baggage: names and values that a call tree carries along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

MAX_MEMBERS: Final = 64
"""Of one header, as the standard has it; others are not looked at."""


def read_baggage(text: str) -> Mapping[str, str]:
    """The members of the header `baggage`, without their properties. What is none is left out."""
    found = {}
    for member in text.split(",", MAX_MEMBERS)[:MAX_MEMBERS]:
        name, separator, value = member.partition(";")[0].partition("=")
        if separator and name.strip():
            found[name.strip()] = unquote(value.strip())
    return found
