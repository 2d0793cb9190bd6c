"""JSON that foreign programs wrote, read strictly: what is taken can be written and read by anybody."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Objects and lists within each other. Readers and writers of JSON have limits of their own, far beyond."""


def foreign_json(data: bytes, *, limit: int, depth: int = MAX_DEPTH) -> Any:
    """The value that `data` says in JSON.

    Raises ValueError, saying what is wrong, for more than `limit` bytes, for what nests deeper than `depth`,
    and for what JSON has not: NaN, 1e999, a name twice in an object, half a surrogate pair.
    """
    if len(data) > limit:
        raise ValueError(f"it has {len(data)} bytes, {limit} at most")
    try:
        text = data.decode()
        value = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"it nests deeper than {depth}") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON: {str(error)[:200]}") from error
    _check_depth(value, depth)
    if "\\u" in text or "\\U" in text:
        _check_text(value)
    return value


def foreign_object(data: bytes, *, limit: int, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The JSON object in `data`, likewise. Raises ValueError."""
    value = foreign_json(data, limit=limit, depth=depth)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 -- as all that is wrong with it
    return value


def _check_depth(value: Any, depth: int) -> None:
    level = [value]
    for _ in range(depth + 1):
        level = [
            each
            for outer in level
            if isinstance(outer, dict | list)
            for each in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"it nests deeper than {depth}")


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not JSON: it has half a surrogate pair") from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:32]} is larger than any number that can be kept")
    return number


def _whole(text: str) -> int | float:
    # Others read numbers as doubles: what has more digits would be another number to them.
    return int(text) if len(text) <= 19 else _finite(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has a name twice")
    return members
