"""Chat completions and completions, as OpenAI's API has them."""

from __future__ import annotations

from typing import Any

from weft.llm_sim.answer import DONE, FINGERPRINT, Answer, data, usage
from weft.llm_sim.said import Said


class ChatForm:
    """`chat.completion` and its chunks."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Not streamed."""
        document = {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.ask.model,
            "choices": [
                {
                    "index": index,
                    "message": _message(answer, index, said),
                    "logprobs": None,
                    "finish_reason": said.finish,
                }
                for index, said in enumerate(answer.choices)
            ],
            "system_fingerprint": FINGERPRINT,
        }
        return document | {"usage": usage(answer)} if answer.usage else document

    def opening(self, answer: Answer) -> bytes:
        """A chunk for each choice that says who speaks."""
        return b"".join(
            self._chunk(answer, index, _opening_delta(answer, index, said))
            for index, said in enumerate(answer.choices)
        )

    def piece(self, answer: Answer, choice: int, text: str) -> bytes:
        """A chunk with one token."""
        if answer.choices[choice].tool is None:
            return self._chunk(answer, choice, {"content": text})
        return self._chunk(answer, choice, {"tool_calls": [{"index": 0, "function": {"arguments": text}}]})

    def closing(self, answer: Answer) -> bytes:
        """Why each choice ends, what was used if that is asked for, and the end of the stream."""
        events = [self._chunk(answer, index, {}, said.finish) for index, said in enumerate(answer.choices)]
        if answer.ask.include_usage and answer.usage:
            events.append(data(self._head(answer) | {"choices": [], "usage": usage(answer)}))
        return b"".join([*events, DONE])

    def _chunk(self, answer: Answer, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return data(self._head(answer) | {"choices": [choice]} | _no_usage_yet(answer))

    def _head(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.ask.model,
            "system_fingerprint": FINGERPRINT,
        }


class CompletionForm:
    """`text_completion`, streamed or not."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Not streamed."""
        document = self._head(answer) | {
            "choices": [
                _text_choice(index, said.text, said.finish) for index, said in enumerate(answer.choices)
            ]
        }
        return document | {"usage": usage(answer)} if answer.usage else document

    def opening(self, answer: Answer) -> bytes:  # noqa: ARG002 -- completions begin with their first token
        """Nothing."""
        return b""

    def piece(self, answer: Answer, choice: int, text: str) -> bytes:
        """A chunk with one token."""
        return data(
            self._head(answer) | {"choices": [_text_choice(choice, text, None)]} | _no_usage_yet(answer)
        )

    def closing(self, answer: Answer) -> bytes:
        """As chat completions have it."""
        events = [
            data(
                self._head(answer)
                | {"choices": [_text_choice(index, "", said.finish)]}
                | _no_usage_yet(answer)
            )
            for index, said in enumerate(answer.choices)
        ]
        if answer.ask.include_usage and answer.usage:
            events.append(data(self._head(answer) | {"choices": [], "usage": usage(answer)}))
        return b"".join([*events, DONE])

    def _head(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": f"cmpl-{answer.id}",
            "object": "text_completion",
            "created": answer.created,
            "model": answer.ask.model,
            "system_fingerprint": FINGERPRINT,
        }


def call_id(answer: Answer, index: int) -> str:
    """The id of a choice's call of a tool."""
    return f"call_{answer.id}_{index}"


def _message(answer: Answer, index: int, said: Said) -> dict[str, Any]:
    if said.tool is None:
        return {"role": "assistant", "content": said.text, "refusal": None}
    return {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": call_id(answer, index),
                "type": "function",
                "function": {"name": said.tool, "arguments": said.text},
            }
        ],
    }


def _opening_delta(answer: Answer, index: int, said: Said) -> dict[str, Any]:
    if said.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    call = {
        "index": 0,
        "id": call_id(answer, index),
        "type": "function",
        "function": {"name": said.tool, "arguments": ""},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _no_usage_yet(answer: Answer) -> dict[str, Any]:
    return {"usage": None} if answer.ask.include_usage and answer.usage else {}


def _text_choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
