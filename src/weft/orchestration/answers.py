"""Answers, checked and converted to what was expected."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter, ValidationError

from weft.errors import AgentFailed
from weft.orchestration.branch import Branch

_FENCED = re.compile(r"```[a-z]*\s*\n(.*?)\n\s*```", re.DOTALL)


def converted(branch: Branch, value: Any) -> Any:
    """`value` as the branch's `result_type` wants it. Raises AgentFailed if it cannot be that."""
    if branch.result_type is None:
        return value
    try:
        return _adapter(branch.result_type).validate_python(value)
    except ValidationError as error:
        raise AgentFailed(f"{branch.label} answered something unexpected: {error}") from error


def from_text(branch: Branch, text: str) -> Any:
    """What a model says, as the branch's `result_type` wants it: JSON then, fenced or not.

    Raises AgentFailed if it is not that.
    """
    if branch.result_type is None:
        return text
    fenced = _FENCED.search(text)
    try:
        return _adapter(branch.result_type).validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        raise AgentFailed(f"{branch.label} answered something unexpected: {error}") from error


def _adapter(expected: Any) -> TypeAdapter[Any]:
    return expected if isinstance(expected, TypeAdapter) else TypeAdapter(expected)
