"""What the simulated model says to a request, before it is put into the words of an endpoint. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic_core import to_json

from weft.llm_sim.ask import Ask, Tool
from weft.llm_sim.failures import invalid
from weft.llm_sim.plan import Plan
from weft.llm_sim.tokens import TOKEN_CHARACTERS, count, pieces
from weft.llm_sim.words import answer, sample


@dataclass(frozen=True, slots=True)
class Said:
    """One choice of an answer."""

    text: str
    """Or the arguments of the tool's call."""
    tokens: int
    cut_short: bool
    """Whether it would have been longer, had the request allowed it."""
    tool: str | None = None
    """The tool that is called."""

    @property
    def pieces(self) -> list[str]:
        """Its tokens."""
        return pieces(self.text)

    @property
    def finish(self) -> str:
        """Why it ends, as chat completions have it."""
        if self.cut_short:
            return "length"
        return "stop" if self.tool is None else "tool_calls"


def said(ask: Ask, plan: Plan, start: int, room: int | None) -> tuple[Said, ...]:
    """Every choice of the answer to `ask`; `start` decides its words.

    `room` are the tokens that the model's context has left for each. Raises ApiError where a tool is wished
    for that there is not.
    """
    most = ask.max_tokens
    if room is not None:
        most = room if most is None else min(most, room)
    return tuple(_choice(ask, plan, start + index, most) for index in range(ask.choices))


def _choice(ask: Ask, plan: Plan, start: int, most: int | None) -> Said:
    if plan.tool is not None:
        tool = _tool(ask, plan.tool)
        return _bounded(to_json(sample(tool.parameters) or {}).decode(), most, tool.name)
    if plan.text is not None:
        return _bounded(plan.text, most)
    if ask.schema is not None:
        return _bounded(to_json(sample(ask.schema)).decode(), most)
    wanted = plan.answer_tokens
    tokens = wanted if most is None else min(most, wanted)
    return Said(answer(tokens, start), tokens, cut_short=tokens < wanted)


def _bounded(text: str, most: int | None, tool: str | None = None) -> Said:
    tokens = count(text)
    if most is None or tokens <= most:
        return Said(text, tokens, cut_short=False, tool=tool)
    return Said(text[: most * TOKEN_CHARACTERS], most, cut_short=True, tool=tool)


def _tool(ask: Ask, name: str) -> Tool:
    if ask.tools and name == "*":
        return ask.tools[0]
    for each in ask.tools:
        if each.name == name:
            return each
    raise invalid(f"the tool {name[:64]!r} is wished for, but the request has none of that name", "tools")
