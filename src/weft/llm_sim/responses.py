"""Responses, as OpenAI's API has them."""

from __future__ import annotations

from itertools import count
from typing import Any

from pydantic_core import to_json

from weft.llm_sim.answer import FINGERPRINT, Answer
from weft.llm_sim.chat import call_id
from weft.llm_sim.said import Said


class ResponseForm:
    """`response`, and its events. Of one answer: it numbers the events."""

    def __init__(self) -> None:
        self._numbers = count()

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Not streamed."""
        said = answer.choices[0]
        status = "incomplete" if said.cut_short else "completed"
        return _response(answer, status, [_item(answer, said, status, said.text)])

    def opening(self, answer: Answer) -> bytes:
        """That it was made, that it is under way, and what its output begins with."""
        said = answer.choices[0]
        under_way = _response(answer, "in_progress", [])
        events = [
            self._event("response.created", response=under_way),
            self._event("response.in_progress", response=under_way),
            self._event(
                "response.output_item.added", output_index=0, item=_item(answer, said, "in_progress", None)
            ),
        ]
        if said.tool is None:
            events.append(self._at(answer, "response.content_part.added", content_index=0, part=_part("")))
        return b"".join(events)

    def piece(self, answer: Answer, choice: int, text: str) -> bytes:
        """One token."""
        if answer.choices[choice].tool is not None:
            return self._at(answer, "response.function_call_arguments.delta", delta=text)
        return self._at(answer, "response.output_text.delta", content_index=0, delta=text, logprobs=[])

    def closing(self, answer: Answer) -> bytes:
        """All that was said once more, and the response as a whole."""
        said = answer.choices[0]
        whole = self.whole(answer)
        if said.tool is not None:
            events = [
                self._at(answer, "response.function_call_arguments.done", name=said.tool, arguments=said.text)
            ]
        else:
            events = [
                self._at(answer, "response.output_text.done", content_index=0, text=said.text, logprobs=[]),
                self._at(answer, "response.content_part.done", content_index=0, part=_part(said.text)),
            ]
        events += [
            self._event("response.output_item.done", output_index=0, item=whole["output"][0]),
            self._event(f"response.{whole['status']}", response=whole),
        ]
        return b"".join(events)

    def _at(self, answer: Answer, kind: str, **members: Any) -> bytes:
        return self._event(kind, item_id=_item_id(answer), output_index=0, **members)

    def _event(self, kind: str, **members: Any) -> bytes:
        document = {"type": kind, "sequence_number": next(self._numbers), **members}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), to_json(document))


def _response(answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    ended = status != "in_progress"
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": answer.ask.max_tokens,
        "metadata": {"simulated_by": FINGERPRINT},
        "model": answer.ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _usage(answer) if ended and answer.usage else None,
    }


def _item(answer: Answer, said: Said, status: str, text: str | None) -> dict[str, Any]:
    if said.tool is None:
        content = [] if text is None else [_part(text)]
        return {
            "id": _item_id(answer),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }
    return {
        "id": _item_id(answer),
        "type": "function_call",
        "status": status,
        "call_id": call_id(answer, 0),
        "name": said.tool,
        "arguments": text or "",
    }


def _item_id(answer: Answer) -> str:
    return f"{'fc' if answer.choices[0].tool is not None else 'msg'}_{answer.id}"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer) -> dict[str, Any]:
    prompt, completion = answer.ask.prompt_tokens, answer.completion_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
