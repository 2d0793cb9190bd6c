"""Tool: which tools of an MCP server others see, under which names, and within which limits."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from weft.model.duration import Duration, between
from weft.model.spec import MAX_ITEMS, ShortText, Spec, Text, TypeName

MAX_RESULT_BYTES: Final = 16 * 1024 * 1024
"""Default limit on the answer to one call of a tool, in bytes."""

MAX_ARGUMENTS_BYTES: Final = 1024 * 1024
"""Default limit on the request of one call, in bytes."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
"""A tool's name as clients see it (MCP, SEP-986)."""

OriginalName = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""A tool's name as its server writes it, whatever is in it."""

Bytes = Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)]


class ToolLimits(Spec):
    """Limits on calls."""

    timeout: Annotated[Duration, AfterValidator(between("10ms", "1h"))] | None = None
    """How long a call may take; by default what the server's TrafficPolicy says."""
    max_arguments: Bytes = MAX_ARGUMENTS_BYTES
    """Size of a request, in bytes."""
    max_result: Bytes = MAX_RESULT_BYTES
    """Size of an answer, in bytes."""


class ToolRule(Spec):
    """What holds for one tool of the server."""

    name: OriginalName
    """As the server calls it."""
    rename: ToolName | None = None
    """What clients see instead."""
    description: Text | None = None
    """What clients read instead of the server's."""
    hidden: bool = False
    """Whether it is neither listed nor called by way of `tools.mesh`."""
    idempotent: bool | None = None
    """Whether a call may be made again elsewhere when it failed; by default what the server's annotations say
    (`idempotentHint`, or `readOnlyHint`)."""
    limits: ToolLimits | None = None
    """Instead of those of the server."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.hidden and (self.rename is not None or self.description is not None):
            raise ValueError("a hidden tool needs neither another name nor a description")
        return self


class ToolSpec(Spec):
    """What of an MCP server's tools others see. One resource for a server at most."""

    server: TypeName
    """The server's agent type."""
    expose: bool = True
    """Whether tools are seen that `tools` does not name."""
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    """Put before the names of its tools, but for those that are renamed."""
    tools: Annotated[tuple[ToolRule, ...], Field(max_length=MAX_ITEMS)] = ()
    limits: ToolLimits = ToolLimits()
    title: ShortText = ""
    """What `weft tools` calls the server."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        for what, names in (
            ("name", [each.name for each in self.tools]),
            ("rename", [each.rename for each in self.tools if each.rename is not None]),
        ):
            twice = sorted({each for each in names if names.count(each) > 1})
            if twice:
                raise ValueError(f"tools: {what} {twice[0]!r} is there twice")
        return self
