"""Regular expressions that are safe to hand to Envoy.

Envoy compiles them with RE2 and refuses programs of more than 100 instructions. What it refuses, it refuses
together with all routes of the mesh, so RE2 itself is asked first.
"""

from __future__ import annotations

import re2

MAX_REGEX_LENGTH = 256
"""Characters."""

MAX_PROGRAM_SIZE = 90
"""Instructions. Envoy's limit is 100 (`re2.max_program_size.error_level`); its RE2 may be another release,
which may make a few more."""


def check_regex(pattern: str) -> str:
    """Return `pattern` if Envoy is certain to accept it, else raise ValueError."""
    if len(pattern) > MAX_REGEX_LENGTH:
        raise ValueError(f"is longer than {MAX_REGEX_LENGTH} characters")
    if not (pattern.isascii() and pattern.isprintable()):
        raise ValueError("may contain printable ASCII characters only; write others as \\x{NN}")
    options = re2.Options()
    options.log_errors = False
    try:
        size = re2.compile(pattern, options).programsize
    except re2.error as error:
        raise ValueError(f"is not a regular expression that RE2 supports: {_text(error)}") from error
    if size > MAX_PROGRAM_SIZE:
        raise ValueError(
            f"is too complex: {size} RE2 instructions, where {MAX_PROGRAM_SIZE} are allowed; "
            f"use fewer or smaller repetitions"
        )
    return pattern


def _text(error: re2.error) -> str:
    [message] = error.args
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)
