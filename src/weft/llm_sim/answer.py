"""An answer that is under way: what every endpoint's bodies and events are made from. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic_core import to_json

from weft.llm_sim.ask import Ask
from weft.llm_sim.said import Said

FINGERPRINT: Final = "weft-llm-sim"
"""`system_fingerprint` of every answer."""

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be said, by whom, and what it costs."""

    ask: Ask
    id: str
    """Without the prefix of its endpoint."""
    created: int
    """Seconds since 1970."""
    choices: tuple[Said, ...]
    cached_tokens: int
    usage: bool
    """Whether it tells of its usage."""

    @property
    def completion_tokens(self) -> int:
        """Of all choices together."""
        return sum(each.tokens for each in self.choices)


class Form(Protocol):
    """How an endpoint puts an answer."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Not streamed."""
        ...

    def opening(self, answer: Answer) -> bytes:
        """The events before the first token."""
        ...

    def piece(self, answer: Answer, choice: int, text: str) -> bytes:
        """The event of one token."""
        ...

    def closing(self, answer: Answer) -> bytes:
        """The events after the last token."""
        ...


def in_turn(answer: Answer) -> Iterator[tuple[int, str]]:
    """Every token of every choice, the choices in turn: as a model produces them side by side."""
    rows = [each.pieces for each in answer.choices]
    for position in range(max(map(len, rows), default=0)):
        for choice, row in enumerate(rows):
            if position < len(row):
                yield choice, row[position]


def usage(answer: Answer) -> dict[str, Any]:
    """As chat completions and completions have it."""
    prompt, completion = answer.ask.prompt_tokens, answer.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def data(document: dict[str, Any]) -> bytes:
    """An event without a name."""
    return b"data: %b\n\n" % to_json(document)
