"""How the simulated provider behaves: what it allows, how fast it is, how often it fails."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, ValidationError

from weft.errors import InvalidRequest
from weft.model.duration import Grace
from weft.model.model_pool import ModelName
from weft.model.spec import MAX_ITEMS, Spec
from weft.model.validation import explain

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=100_000_000_000)]
_ErrorStatus = Annotated[int, Field(ge=400, le=599)]


class Outage(StrEnum):
    """What happens to every request, whatever else is set."""

    NONE = "none"
    ERROR = "error"
    """Answered with `failureStatus`."""
    HTML = "html"
    """Answered with an HTML page and 502, as by a proxy before the provider."""
    HANG = "hang"
    """Never answered."""
    CLOSE = "close"
    """The connection is closed."""


class TokensCounted(StrEnum):
    """Which tokens of an answer count towards the tokens per minute, from the moment a request arrives."""

    USED = "used"
    """As many as it will have: the simulator knows."""
    ASKED = "asked"
    """The most that the request allows (times `n`), if it says so."""


class Behaviour(Spec):
    """All of it can be changed while the simulator runs."""

    concurrency: _Count | None = None
    """Requests that may be under way at once; more are refused with 429."""
    requests_per_minute: _Count | None = None
    """Requests in any 60 seconds; more are refused with 429. Refused ones do not count."""
    tokens_per_minute: _Count | None = None
    """Tokens of prompts and answers in any 60 seconds, counted as requests arrive."""
    tokens_counted: TokensCounted = TokensCounted.USED
    """Which tokens of an answer count: `used` (as many as it will have), `asked` (as many as it may have)."""
    context_tokens: _Count | None = None
    """Of a prompt and its answer together; more is refused with 400."""
    models: Annotated[tuple[ModelName, ...], Field(max_length=MAX_ITEMS)] = ()
    """Names of the models there are; others are refused with 404. By default there is every model."""
    first_token: Grace = 0.3
    """Time until an answer begins."""
    tokens_per_second: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 50.0
    """How fast an answer goes on after that; 0: all at once."""
    answer_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    """Length of answers, unless the request allows less."""
    usage: bool = True
    """Whether answers tell how many tokens were used."""
    cache: bool = True
    """Whether beginnings of prompts are remembered: then they cost less time, and usage tells of it."""
    failure_rate: Rate = 0.0
    """Share of requests answered with `failureStatus`."""
    failure_status: _ErrorStatus = 500
    """HTTP status of failures."""
    html_error_rate: Rate = 0.0
    """Share of requests answered with an HTML page and 502."""
    hang_rate: Rate = 0.0
    """Share of requests that are never answered."""
    break_rate: Rate = 0.0
    """Share of answers that break off midway: the connection is closed."""
    slow_first_token_rate: Rate = 0.0
    """Share of answers that begin only after `slowFirstToken`."""
    slow_first_token: Grace = 30.0
    """Time until slow answers begin."""
    outage: Outage = Outage.NONE
    """What happens to every request: `none`, `error`, `html`, `hang` or `close`."""

    @cached_property
    def is_chancy(self) -> bool:
        """Whether any of it is left to chance."""
        return any(
            (
                self.failure_rate,
                self.html_error_rate,
                self.hang_rate,
                self.break_rate,
                self.slow_first_token_rate,
            )
        )


def changed(behaviour: Behaviour, changes: Mapping[str, Any]) -> Behaviour:
    """`behaviour` with `changes`, by the names of its fields as in YAML. Raises InvalidRequest."""
    try:
        return Behaviour.model_validate({**behaviour.model_dump(by_alias=True), **changes})
    except ValidationError as error:
        raise InvalidRequest(explained(error, "", Behaviour)) from error


def explained(error: ValidationError, prefix: str, model: type[Spec]) -> str:
    """What is wrong with what was given for `model`, a line for each field, whose name follows `prefix`."""
    return "\n".join(
        f"{prefix}{'.'.join(map(str, each['loc']))}: {explain(each, model)}"
        for each in error.errors(include_url=False)
    )
