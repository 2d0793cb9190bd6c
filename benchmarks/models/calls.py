"""The calls to models that are measured, and what the provider answers; in OpenAI's format."""

from __future__ import annotations

import json
from typing import Any

EVENTS = 20
"""Events of a streamed answer that carry text."""

PATH = "/v1/chat/completions"

WHOLE, STREAMED = "bench-whole", "bench-streamed"
"""The model whose answers come whole, and the one whose answers come as streams."""

_PROMPT = (
    "Say in one sentence what an agent mesh is, and why agents should not talk to the providers of models "
    "directly but through it."
)
_PROMPT_TOKENS = 42


def request(model: str, *, streamed: bool = False, max_tokens: int = 64) -> str:
    """The body of a chat completion, of about 300 bytes."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are an agent in a mesh of agents."},
            {"role": "user", "content": _PROMPT},
        ],
        "max_tokens": max_tokens,
    }
    return json.dumps(
        body | ({"stream": True, "stream_options": {"include_usage": True}} if streamed else {})
    )


def answer() -> str:
    """A whole answer."""
    text = "A mesh finds, calls and guards agents, and models are best called through it."
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps(_about("chat.completion", WHOLE) | {"choices": choices, "usage": _usage(18)})


def events() -> str:
    """A streamed answer: EVENTS of text, one that ends it, one with what was used."""
    texts = [_chunk([_delta({"content": f"word{number} "}, None)]) for number in range(EVENTS)]
    last = [_chunk([_delta({}, "stop")]), _chunk([]) | {"usage": _usage(EVENTS)}]
    told = [json.dumps(each) for each in (*texts, *last)]
    return "".join(f"data: {each}\n\n" for each in (*told, "[DONE]"))


def _chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return _about("chat.completion.chunk", STREAMED) | {"choices": choices}


def _delta(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _about(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_700_000_000, "model": model}


def _usage(tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": _PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": _PROMPT_TOKENS + tokens,
    }
