"""What MCP servers write about themselves, made fit to be shown to others.

Clients take a list as a whole: one entry that does not hold to the schema would cost them all tools of all
servers. And models read what is written there, so it says nothing that people do not see.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

MAX_DEPTH: Final = 64
"""Levels of a JSON value."""

_SHOWN_CONTROLS: Final = frozenset("\n\t")
_SHOWN_FORMATS: Final = frozenset("\u200c\u200d")  # joiners, which some scripts need
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co"})
_HIDDEN_SELECTORS: Final = frozenset(map(chr, range(0xE0100, 0xE01F0)))  # of variants that no font has
_QUOTED: Final = 60


class Unusable(ValueError):
    """A value that cannot be shown; the text says why."""


def clean_text(text: str) -> str:
    """`text` without characters that nobody sees: controls, directions, tags, halves of surrogates."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each for each in text if _is_shown(each))


def is_clean(text: str) -> bool:
    """Whether there is nothing to clean in `text`."""
    return clean_text(text) == text


def clean_json(value: Any, *, depth: int = MAX_DEPTH) -> Any:
    """`value` with all its texts clean. Raises Unusable where it is none of JSON's, or nested too deeply."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth == 0:
        raise Unusable(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean_json(each, depth=depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(each, depth=depth - 1) for each in value]
    raise Unusable("not JSON")


def size(value: Any) -> int:
    """Bytes of a clean value as JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def quoted(name: object) -> str:
    """`name` for people, in ASCII: look-alikes and what cannot be seen show as what they are."""
    text = str(name)
    return ascii(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!a}… ({len(text)} characters)"


def _is_shown(character: str) -> bool:
    if unicodedata.category(character) in _HIDDEN:
        return character in _SHOWN_CONTROLS or character in _SHOWN_FORMATS
    return character not in _HIDDEN_SELECTORS
