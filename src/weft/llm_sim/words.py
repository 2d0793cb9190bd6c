"""What the simulated provider says: it tells that it is simulated, and goes on in words without meaning."""

from __future__ import annotations

import random
from typing import Any, Final

from weft.llm_sim.tokens import TOKEN_CHARACTERS

OPENING: Final = "(simulated answer) -"
"""How answers begin."""

_WORDS = """
    air all and any arc bay big box boy bud cap car cow cup day dew dot dry ear eel egg elm end eye fan far
    few fig fir fog fox fun gap gem gum hat hay hen hip hot ice ink ivy jam jar jay joy key kit lab lap leg
    lid log man map
"""


_VOCABULARY = _WORDS.split()
_LENGTH = 4096
"""Words after which they begin anew."""

_RANDOM = random.Random(0)  # noqa: S311 -- words without meaning
_TEXT: Final = "".join(f" {_RANDOM.choice(_VOCABULARY)}" for _ in range(_LENGTH))
"""Every word and its blank are one token."""

_MAX_DEPTH = 8
"""Levels of a schema for which a value is made up."""


def answer(tokens: int, start: int) -> str:
    """A text of so many tokens; `start` is a number that decides which words."""
    rest = tokens * TOKEN_CHARACTERS - len(OPENING)
    if rest <= 0:
        return OPENING[: tokens * TOKEN_CHARACTERS]
    at = start % _LENGTH * TOKEN_CHARACTERS
    return OPENING + _run(at, rest)


def _run(at: int, length: int) -> str:
    if at + length <= len(_TEXT):
        return _TEXT[at : at + length]
    return (_TEXT * (2 + length // len(_TEXT)))[at : at + length]


def sample(schema: Any, depth: int = 0) -> Any:
    """A value that meets a JSON Schema, as far as its types, enumerations and required members go."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "examples"):
        if isinstance(schema.get(name), list) and schema[name]:
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            return sample(schema[name][0], depth + 1)
    kind = schema.get("type")
    return _of_type(kind[0] if isinstance(kind, list) and kind else kind, schema, depth)


def _of_type(kind: Any, schema: dict[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            wanted = schema.get("required")
            names = [each for each in wanted if isinstance(each, str)] if isinstance(wanted, list) else []
            return {name: sample(properties.get(name), depth + 1) for name in names}
        case "array":
            return [sample(schema.get("items"), depth + 1)]
        case "string":
            return "simulated"
        case "integer" | "number":
            least = schema.get("minimum")
            return least if isinstance(least, int | float) else 1
        case "boolean":
            return True
    return None
