"""Embeddings: unit vectors that only the model's name, the text and the number of dimensions decide. Pure."""

from __future__ import annotations

import math
from array import array
from base64 import b64encode
from hashlib import shake_256
from typing import Any

from weft.llm_sim.ask import Ask

_HALF = 2**15


def embed(model: str, text: str, dimensions: int) -> array[float]:
    """The vector of a text."""
    stream = shake_256(f"{model}\n{text}".encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    raw = [each - _HALF + 0.5 for each in array("H", stream)]
    length = math.sqrt(sum(each * each for each in raw))
    return array("f", [each / length for each in raw])


def row(ask: Ask, index: int) -> dict[str, Any]:
    """One member of the answer's `data`."""
    vector = embed(ask.model, ask.inputs[index], ask.dimensions)
    shown = b64encode(vector.tobytes()).decode() if ask.base64 else vector.tolist()
    return {"object": "embedding", "index": index, "embedding": shown}


def document(ask: Ask, rows: list[dict[str, Any]], *, usage: bool) -> dict[str, Any]:
    """The answer as a whole."""
    answer: dict[str, Any] = {"object": "list", "data": rows, "model": ask.model}
    if usage:
        answer["usage"] = {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens}
    return answer
