"""What a single request may ask of the simulator: by a header `x-sim-NAME: value`, or in its last message.

There it is a marker such as `[[sim answer-tokens=5 first-token=2s]]`; a value with blanks stands in quotes.
Headers win over the marker. The names are the fields of `Wishes`, with dashes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, ValidationError

from weft.errors import InvalidRequest
from weft.llm_sim.behaviour import explained
from weft.model.duration import Grace
from weft.model.spec import Spec

HEADER_PREFIX: Final = "x-sim-"

_MARKER = re.compile(r"\[\[sim ([^\]]{1,4000})\]\]")
_Tokens = Annotated[int, Field(ge=0, le=1_000_000)]


class Wishes(Spec):
    """How one request is to be answered. What it does not say is as the simulator's behaviour has it."""

    answer_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Length of the answer."""
    text: Annotated[str, Field(max_length=100_000)] | None = None
    """The answer, word for word."""
    first_token: Grace | None = None
    """Time until the answer begins."""
    tokens_per_second: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    """How fast it goes on; 0: all at once."""
    tool: Annotated[str, Field(max_length=256)] | None = None
    """Name of the tool to call, one of the request's; `*`: its first."""
    usage: bool | None = None
    """Whether the answer tells how many tokens were used."""
    fail: Annotated[int, Field(ge=400, le=599)] | None = None
    """Status to answer with, in OpenAI's error format."""
    retry_after: Grace | None = None
    """Goes with `fail`."""
    html: bool = False
    """Answer with an HTML page and 502."""
    hang: bool = False
    """Never answer."""
    close: bool = False
    """Close the connection without an answer."""
    break_after: _Tokens | None = None
    """Close the connection after so many tokens of the answer."""
    stall_after: _Tokens | None = None
    """Say nothing more after so many tokens of the answer, for ever."""
    error_after: _Tokens | None = None
    """Send an error event in place of what follows so many tokens of a streamed answer."""


NO_WISHES: Final = Wishes()

NAMES: Final = {name.replace("_", "-"): name for name in Wishes.model_fields}
"""The fields' names as headers and markers have them."""


def wishes(headers: Mapping[str, str], text: str) -> Wishes:
    """What a request with these headers and this last message wishes. Raises InvalidRequest."""
    given = _marked(text) if "[[sim " in text else {}
    for name, value in headers.items():
        if name.startswith(HEADER_PREFIX):
            given[_field(name.removeprefix(HEADER_PREFIX))] = value
    if not given:
        return NO_WISHES
    try:
        return Wishes.model_validate(given, by_name=True)
    except ValidationError as error:
        raise InvalidRequest(explained(error, HEADER_PREFIX, Wishes)) from error


def _marked(text: str) -> dict[str, str]:
    found = _MARKER.search(text)
    if found is None:
        return {}
    try:
        words = shlex.split(found[1])
    except ValueError as error:
        raise InvalidRequest(f"the marker [[sim ...]] cannot be read: {error}") from error
    return {_field(name): value for name, _, value in (word.partition("=") for word in words)}


def _field(name: str) -> str:
    field = NAMES.get(name)
    if field is None:
        raise InvalidRequest(f"the simulator knows no wish {name[:64]!r}; there are {', '.join(NAMES)}")
    return field
