"""How an answer comes out: after a while, token by token, and sometimes not to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import to_json

from weft.llm_sim.answer import Answer, Form, data, in_turn
from weft.llm_sim.failures import failure
from weft.llm_sim.http import Connection
from weft.llm_sim.limits import Headers
from weft.llm_sim.plan import Cut, Plan
from weft.llm_sim.visit import Visit

LONGEST_SILENCE = 3600.0
"""Seconds after which even a request that is never answered is cut off."""

_AT_ONCE = 256
"""Tokens written before it is looked whether the client takes them."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An answer on its way to a client."""

    answer: Answer
    form: Form
    plan: Plan
    connection: Connection
    headers: Callable[[], Headers]
    """Of the answer, when it begins."""
    delay: float
    """Seconds until its first token."""
    visit: Visit
    """It is left just before the last byte is sent: the client's next request shall find the slot free."""

    @property
    def is_immediate(self) -> bool:
        """Whether all of it can be sent at once."""
        return not self.answer.ask.stream and self.plan.cut is None and self.duration == 0

    @property
    def duration(self) -> float:
        """Seconds that it takes as a whole, if it is not cut."""
        speed = self.plan.tokens_per_second
        longest = max((each.tokens for each in self.answer.choices), default=0)
        return self.delay + (longest / speed if speed else 0.0)

    @property
    def cut_at(self) -> int:
        """Tokens after which it is cut."""
        tokens = self.answer.completion_tokens
        after = self.plan.cut_after
        return 1 + self.plan.draw % max(1, tokens - 1) if after is None else min(after, tokens)

    def send(self) -> None:
        """Send all of it at once."""
        self.visit.produced(self.answer.completion_tokens)
        self.visit.leave()
        self.connection.respond(200, to_json(self.form.whole(self.answer)), self.headers())

    async def run(self) -> Cut | None:
        """Send it as planned; return how it was cut, if it was."""
        if self.answer.ask.stream:
            return await self._stream()
        await asyncio.sleep(self.duration)
        if self.plan.cut is None:
            self.send()
            return None
        body = to_json(self.form.whole(self.answer))
        self.connection.begin(200, self.headers(), "application/json", len(body))
        self.connection.write(body[: len(body) // 2])
        self.visit.produced(self.cut_at)
        if self.plan.cut is Cut.STALL:
            await asyncio.sleep(LONGEST_SILENCE)
        self.visit.leave()
        self.connection.break_off()
        return self.plan.cut

    async def _stream(self) -> Cut | None:
        await asyncio.sleep(self.delay)
        self.connection.begin(200, self.headers(), "text/event-stream; charset=utf-8")
        self.connection.write(self.form.opening(self.answer))
        cut = self.plan.cut
        tokens = list(in_turn(self.answer))
        await self._tokens(tokens if cut is None else tokens[: self.cut_at])
        if cut is None:
            self.visit.leave()
            self.connection.write(self.form.closing(self.answer))
            self.connection.finish()
            return None
        if cut is Cut.STALL:
            await asyncio.sleep(LONGEST_SILENCE)
        self.visit.leave()
        if cut is Cut.ERROR:
            self.connection.write(data(failure(500).document))
            self.connection.finish()
        else:
            self.connection.break_off()
        return cut

    async def _tokens(self, tokens: list[tuple[int, str]]) -> None:
        """Send tokens when they are due: each choice has its own speed."""
        clock = asyncio.get_running_loop().time
        begun, sent, speed = clock(), 0, self.plan.tokens_per_second
        side_by_side = len(self.answer.choices)
        while sent < len(tokens):
            due = len(tokens)
            if speed:
                due = min(due, (int((clock() - begun) * speed) + 1) * side_by_side)
            due = min(due, sent + _AT_ONCE)
            if due > sent:
                events = [self.form.piece(self.answer, choice, text) for choice, text in tokens[sent:due]]
                self.connection.write(b"".join(events))
                self.visit.produced(due - sent)
                sent = due
                await self.connection.drained()
            if speed and sent < len(tokens):
                await asyncio.sleep(max(0.0, begun + sent // side_by_side / speed - clock()))
