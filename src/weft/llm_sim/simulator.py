"""The simulated provider: what becomes of each request for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from hmac import compare_digest
from typing import Any, Final

from pydantic_core import to_json

from weft.errors import InvalidRequest
from weft.llm_sim.answer import Answer, Form
from weft.llm_sim.ask import Ask, Endpoint, read_ask
from weft.llm_sim.behaviour import Behaviour, TokensCounted
from weft.llm_sim.chat import ChatForm, CompletionForm
from weft.llm_sim.counters import NO_KEY, Counters, key_name
from weft.llm_sim.delivery import LONGEST_SILENCE, Delivery
from weft.llm_sim.embeddings import document, row
from weft.llm_sim.failures import HTML_ERROR, ApiError, failure, invalid, limited, no_such_model, too_long
from weft.llm_sim.http import Connection, HttpRequest, Job
from weft.llm_sim.limits import Headers, Limits
from weft.llm_sim.plan import Chance, Fate, Plan, plan
from weft.llm_sim.prefixes import PrefixCache
from weft.llm_sim.responses import ResponseForm
from weft.llm_sim.said import Said, said
from weft.llm_sim.visit import Visit
from weft.llm_sim.wishes import NO_WISHES, Wishes, wishes

SIMULATED: Final = ("x-weft-simulated", "true")
"""Header of every answer."""

CACHED_SPEEDUP: Final = 0.75
"""Share of the time to the first token that a prompt saves which is in the cache as a whole."""

_ROWS_AT_ONCE = 16
"""Vectors made before others have their turn."""


class Simulator:
    """One provider, with what it counts and remembers."""

    def __init__(self, behaviour: Behaviour, *, seed: int = 0, keys: Mapping[str, str] | None = None) -> None:
        """`seed` decides what is left to chance; `keys` are those it takes, by the names that counters have.

        Without keys it takes every request.
        """
        self.behaviour = behaviour
        self.counters = Counters()
        self.limits = Limits()
        self._keys = {name: key.encode() for name, key in (keys or {}).items()}
        self._chance = Chance(seed)
        self._cache = PrefixCache()
        self._number = 0
        # What nearly every request of a benchmark gets, made once for each behaviour.
        self._usual = (behaviour, plan(behaviour, None, NO_WISHES, None))

    def reset(self) -> None:
        """Forget what was counted and cached, and the last minute; what is under way goes on."""
        self.counters = Counters()
        self.limits.reset()
        self._chance.forget()
        self._cache.clear()

    def stats(self) -> dict[str, Any]:
        """What was counted, as JSON types."""
        return self.counters.document(self.limits)

    def authorize(self, request: HttpRequest) -> str:
        """The name of the key that a request has. Raises ApiError."""
        given = request.headers.get("api-key") or request.headers.get("authorization", "")
        key = given[7:] if given[:7].lower() == "bearer " else given
        if not self._keys:
            return key_name(key) if key else NO_KEY
        secret = key.encode("latin-1", "replace")
        names = [name for name, each in self._keys.items() if compare_digest(each, secret)]
        if names:
            return names[0]
        what = "Incorrect API key provided." if key else "You didn't provide an API key."
        raise ApiError(401, what, code="invalid_api_key" if key else None)

    def check_model(self, model: str) -> None:
        """Raise ApiError unless there is that model."""
        if self.behaviour.models and model not in self.behaviour.models:
            raise no_such_model(model)

    def ask(
        self, endpoint: Endpoint, deployment: str | None, request: HttpRequest, connection: Connection
    ) -> Job | None:
        """Answer a request for an answer: at once, or by what is returned. Raises ApiError."""
        key = self.authorize(request)
        ask = read_ask(endpoint, request.body, deployment)
        self.check_model(ask.model)
        try:
            wished = wishes(request.headers, ask.last)
        except InvalidRequest as error:
            raise invalid(error.detail) from error
        digest = self._chance.digest(request.body)
        planned = self._plan(ask, wished, digest)
        choices = self._choices(ask, planned, digest)
        visit = self._admit(ask, planned, choices, key)
        if planned.fate is not Fate.ANSWER:
            return self._misfortune(planned, visit, connection)
        if endpoint is Endpoint.EMBEDDINGS:
            work = partial(self._embed, ask, planned, visit, connection)
            return Job(work, partial(self._ended, visit))
        return self._answer(self._delivery(ask, planned, choices, visit, digest, connection))

    def headers(self) -> Headers:
        """Of an answer that begins now."""
        self._number += 1
        limits = self.limits.headers(self.behaviour, _now())
        return (SIMULATED, ("x-request-id", f"req_sim{self._number}"), *limits)

    def fail(self, connection: Connection, error: ApiError) -> None:
        """Answer with an error."""
        connection.respond(error.status, error.body, (*self.headers(), *error.headers))

    def _plan(self, ask: Ask, wished: Wishes, digest: bytes) -> Plan:
        behaviour = self.behaviour
        if behaviour.is_chancy or wished is not NO_WISHES or ask.forced_tool is not None:
            draws = self._chance.draw(digest) if behaviour.is_chancy else None
            return plan(behaviour, ask.forced_tool, wished, draws)
        if self._usual[0] is not behaviour:
            self._usual = (behaviour, plan(behaviour, None, NO_WISHES, None))
        return self._usual[1]

    def _choices(self, ask: Ask, planned: Plan, digest: bytes) -> tuple[Said, ...]:
        room = _room(self.behaviour, ask)
        if ask.endpoint is Endpoint.EMBEDDINGS:
            return ()
        return said(ask, planned, int.from_bytes(digest[:4], "big"), room)

    def _delivery(
        self,
        ask: Ask,
        planned: Plan,
        choices: tuple[Said, ...],
        visit: Visit,
        digest: bytes,
        connection: Connection,
    ) -> Delivery:
        delay = planned.first_token
        if visit.cached_tokens:
            delay *= 1 - CACHED_SPEEDUP * min(1.0, visit.cached_tokens / ask.prompt_tokens)
        answer = Answer(
            ask=ask,
            id=f"sim{digest[:8].hex()}{self.counters.total.requests}",
            created=int(time.time()),
            choices=choices,
            cached_tokens=visit.cached_tokens,
            usage=planned.usage,
        )
        return Delivery(answer, _form(ask.endpoint), planned, connection, self.headers, delay, visit)

    def _answer(self, delivery: Delivery) -> Job | None:
        if not delivery.is_immediate:
            return Job(partial(self._deliver, delivery), partial(self._ended, delivery.visit))
        delivery.send()
        self.counters.answered += 1
        return None

    def _admit(self, ask: Ask, planned: Plan, choices: tuple[Said, ...], key: str) -> Visit:
        """Count a request and let it in. Raises ApiError if that exceeds a limit."""
        behaviour = self.behaviour
        tokens = 0
        if planned.fate is Fate.ANSWER or planned.fate is Fate.HANG:
            tokens = ask.prompt_tokens + _output_tokens(behaviour, ask, choices)
        exceeded = self.limits.enter(behaviour, tokens, _now())
        if exceeded is not None:
            self.counters.refused[exceeded.limit] += 1
            raise limited(ask.model, exceeded)
        cached = self._cache.visit(ask.model, ask.prompt) if behaviour.cache else 0
        usages = self.counters.enter(key, ask.model, ask.prompt_tokens if tokens else 0, cached)
        return Visit(self.limits, usages, cached)

    def _misfortune(self, planned: Plan, visit: Visit, connection: Connection) -> Job | None:
        if planned.fate is Fate.HANG:
            return Job(partial(_silence, connection), partial(self._ended, visit))
        self.counters.failed += 1
        visit.leave()
        if planned.fate is Fate.CLOSE:
            connection.break_off()
        elif planned.fate is Fate.HTML:
            connection.respond(502, HTML_ERROR, self.headers(), "text/html")
        else:
            self.fail(connection, failure(planned.status, planned.retry_after))
        return None

    async def _deliver(self, delivery: Delivery) -> None:
        if await delivery.run() is None:
            self.counters.answered += 1
        else:
            self.counters.broken += 1

    async def _embed(self, ask: Ask, planned: Plan, visit: Visit, connection: Connection) -> None:
        await asyncio.sleep(planned.first_token)
        rows = []
        for index in range(len(ask.inputs)):
            rows.append(row(ask, index))
            if index % _ROWS_AT_ONCE == _ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)
        visit.leave()
        connection.respond(200, to_json(document(ask, rows, usage=planned.usage)), self.headers())
        self.counters.answered += 1

    def _ended(self, visit: Visit, cancelled: bool) -> None:
        visit.leave()
        if cancelled:
            self.counters.cancelled += 1


async def _silence(connection: Connection) -> None:
    await asyncio.sleep(LONGEST_SILENCE)
    connection.abort()


def _form(endpoint: Endpoint) -> Form:
    if endpoint is Endpoint.RESPONSES:
        return ResponseForm()
    return _CHAT if endpoint is Endpoint.CHAT else _COMPLETION


_CHAT = ChatForm()
_COMPLETION = CompletionForm()


def _room(behaviour: Behaviour, ask: Ask) -> int | None:
    """Tokens that each choice may have for the model's context. Raises ApiError if that is too little."""
    limit = behaviour.context_tokens
    if limit is None:
        return None
    least = 0 if ask.endpoint is Endpoint.EMBEDDINGS else 1
    if ask.prompt_tokens + max(least, ask.max_tokens or 0) > limit:
        raise too_long(limit, ask.prompt_tokens, ask.max_tokens or least)
    return limit - ask.prompt_tokens


def _output_tokens(behaviour: Behaviour, ask: Ask, choices: tuple[Said, ...]) -> int:
    """Tokens of the answer that count towards the tokens per minute."""
    if behaviour.tokens_counted is TokensCounted.ASKED and ask.max_tokens is not None and choices:
        return ask.max_tokens * ask.choices
    return sum(each.tokens for each in choices)


def _now() -> int:
    """Whole milliseconds, of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000
