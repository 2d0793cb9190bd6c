"""Telemetry: of which calls spans are kept, what is written down of each, whether its content is recorded."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import re2
from pydantic import AfterValidator, Field, StringConstraints

from weft.model.regex import MAX_REGEX_LENGTH
from weft.model.spec import Percent, Spec
from weft.model.target import Target

_MAX_RULES = 32

_MAX_PROGRAM_SIZE = 10_000
"""Instructions of RE2: what it reads is bounded, and that it takes linear time is all that matters here."""


def _redacting(pattern: str) -> str:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError("is not a regular expression that RE2 supports") from error
    if compiled.programsize > _MAX_PROGRAM_SIZE:
        raise ValueError("is too complex: use fewer or smaller repetitions")
    if compiled.search("") is not None:
        raise ValueError("matches nothing at all too: it would be found everywhere")
    return pattern


RedactPattern = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_REGEX_LENGTH), AfterValidator(_redacting)
]
"""A regular expression in RE2's syntax; what it finds anywhere in a text is taken out."""

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\s\"]+$")]
"""The name of a member of a JSON object."""


class AccessLogging(StrEnum):
    """Which calls their caller's sidecar writes a line of."""

    NONE = "none"
    ERRORS = "errors"
    """Those that ended with 500 or above, or without an answer."""
    ALL = "all"


class Tracing(Spec):
    """Of which calls spans are kept."""

    sampling_percent: Percent | None = None
    """Of the calls that begin a trace. What belongs to a trace is kept with it, or left out with it; calls
    that failed are kept always."""


class Recording(Spec):
    """Whether what was said in calls is kept with their spans, and what is taken out of it before."""

    messages: bool = False
    """What was asked and answered; of agents that use the SDK."""
    redact: Annotated[tuple[RedactPattern, ...], Field(max_length=_MAX_RULES)] = ()
    """Regular expressions (RE2); what they find is replaced, in everything that is kept of any span."""
    redact_fields: Annotated[tuple[FieldName, ...], Field(max_length=_MAX_RULES)] = ()
    """Members of JSON objects whose values are replaced, whatever the case of their names."""


class TelemetrySpec(Spec):
    """Of which calls spans are kept, what is written down of each, and whether what was said is recorded."""

    target: Target | None = None
    """The destination; if omitted, it is the mesh's default, whose fields the others inherit."""
    tracing: Tracing = Tracing()
    access_log: AccessLogging = AccessLogging.NONE
    """Which calls to the destination their caller's sidecar writes a line of: `weft logs --access`."""
    recording: Recording = Recording()
