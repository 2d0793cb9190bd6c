"""What a request asks for: OpenAI's chat completions, completions, responses and embeddings, read strictly.

Unknown fields are passed over, as the simulator makes nothing of most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic_core import from_json, to_json

from weft.llm_sim.failures import invalid
from weft.llm_sim.tokens import IMAGE_TOKENS, MESSAGE_TOKENS, count

MAX_CHOICES: Final = 128
MAX_TOKENS: Final = 1_000_000
"""The longest answer that may be asked for."""
MAX_INPUTS: Final = 2048
"""Texts in one request for embeddings."""
MAX_DIMENSIONS: Final = 4096
MAX_MODEL: Final = 256
"""Characters in the name of a model."""


class Endpoint(StrEnum):
    """What can be asked for."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: Any
    """JSON Schema."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for an answer."""

    endpoint: Endpoint
    model: str
    prompt: str
    """All of its text, in order: what a cache goes by."""
    prompt_tokens: int
    last: str
    """The text of its last message."""
    max_tokens: int | None = None
    choices: int = 1
    stream: bool = False
    include_usage: bool = False
    tools: tuple[Tool, ...] = ()
    forced_tool: str | None = None
    """Name of a tool that must be called; `*`: any."""
    schema: Any = None
    """JSON Schema that the answer must meet; None: it is free text."""
    inputs: tuple[str, ...] = ()
    dimensions: int = 0
    base64: bool = False


@dataclass(slots=True)
class _Text:
    """Gathers the text of a prompt."""

    parts: list[str]
    tokens: int = 0

    def add(self, text: str, more: int = 0) -> None:
        self.parts.append(text)
        self.tokens += count(text) + more

    @property
    def all(self) -> str:
        return "\n".join(self.parts)


def read_ask(endpoint: Endpoint, body: bytes, deployment: str | None = None) -> Ask:
    """What `body` asks for. `deployment` is the model where the path names it. Raises ApiError."""
    try:
        # What browsers and clients send has no NaN; a strict reader finds a mesh that mends bodies wrongly.
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(document, dict):
        raise invalid("The body of your request must be a JSON object.")
    model = deployment if deployment is not None else document.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("you must provide a model parameter", "model")
    if len(model) > MAX_MODEL:
        raise invalid(f"a model's name has at most {MAX_MODEL} characters", "model")
    return _READERS[endpoint](model, document)


def _read_chat(model: str, document: Mapping[str, Any]) -> Ask:
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("'messages' must be a list of at least one message", "messages")
    text = _Text([])
    tools = _tools(document, text)
    last = ""
    for each in messages:
        last = _message(each, text, "messages")
    limit = _whole(document, "max_completion_tokens", 1, MAX_TOKENS)
    if limit is None:
        limit = _whole(document, "max_tokens", 1, MAX_TOKENS)
    stream = _flag(document, "stream")
    return Ask(
        endpoint=Endpoint.CHAT,
        model=model,
        prompt=text.all,
        prompt_tokens=text.tokens,
        last=last,
        max_tokens=limit,
        choices=_whole(document, "n", 1, MAX_CHOICES) or 1,
        stream=stream,
        include_usage=stream and _include_usage(document),
        tools=tools,
        forced_tool=_forced(document.get("tool_choice"), tools),
        schema=_schema(document.get("response_format")),
    )


def _read_completion(model: str, document: Mapping[str, Any]) -> Ask:
    prompt = document.get("prompt", "")
    text = _Text([])
    if isinstance(prompt, str):
        text.add(prompt)
    elif isinstance(prompt, list) and len(prompt) == 1:
        text.add(_input(prompt[0], "prompt"))
    elif isinstance(prompt, list) and prompt and all(type(each) is int for each in prompt):
        text.add(_input(prompt, "prompt"))
    else:
        raise invalid("'prompt' must be a text, or a list of one text or of tokens", "prompt")
    stream = _flag(document, "stream")
    return Ask(
        endpoint=Endpoint.COMPLETIONS,
        model=model,
        prompt=text.all,
        prompt_tokens=text.tokens,
        last=text.all,
        max_tokens=_whole(document, "max_tokens", 1, MAX_TOKENS),
        choices=_whole(document, "n", 1, MAX_CHOICES) or 1,
        stream=stream,
        include_usage=stream and _include_usage(document),
    )


def _read_response(model: str, document: Mapping[str, Any]) -> Ask:
    given = document.get("input")
    text = _Text([])
    tools = _tools(document, text)
    if isinstance(instructions := document.get("instructions"), str):
        text.add(instructions, MESSAGE_TOKENS)
    last = ""
    if isinstance(given, str):
        text.add(given, MESSAGE_TOKENS)
        last = given
    elif isinstance(given, list) and given:
        for each in given:
            last = _message(each, text, "input")
    else:
        raise invalid("'input' must be a text, or a list of at least one item", "input")
    return Ask(
        endpoint=Endpoint.RESPONSES,
        model=model,
        prompt=text.all,
        prompt_tokens=text.tokens,
        last=last,
        max_tokens=_whole(document, "max_output_tokens", 1, MAX_TOKENS),
        stream=_flag(document, "stream"),
        include_usage=True,
        tools=tools,
        forced_tool=_forced(document.get("tool_choice"), tools),
        schema=_schema(_member(document.get("text"), "format")),
    )


def _read_embeddings(model: str, document: Mapping[str, Any]) -> Ask:
    given = document.get("input")
    if isinstance(given, str) or (
        isinstance(given, list) and given and all(type(each) is int for each in given)
    ):
        given = [given]
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_INPUTS:
        raise invalid(f"'input' must be a text, or a list of 1 to {MAX_INPUTS} texts", "input")
    text = _Text([])
    for each in given:
        text.add(_input(each, "input"))
    if document.get("encoding_format") not in {None, "float", "base64"}:
        raise invalid("'encoding_format' must be 'float' or 'base64'", "encoding_format")
    return Ask(
        endpoint=Endpoint.EMBEDDINGS,
        model=model,
        prompt="",
        prompt_tokens=text.tokens,
        last=text.parts[-1],
        inputs=tuple(text.parts),
        dimensions=_whole(document, "dimensions", 1, MAX_DIMENSIONS) or 1536,
        base64=document.get("encoding_format") == "base64",
    )


_READERS = {
    Endpoint.CHAT: _read_chat,
    Endpoint.COMPLETIONS: _read_completion,
    Endpoint.RESPONSES: _read_response,
    Endpoint.EMBEDDINGS: _read_embeddings,
}


def _message(message: Any, text: _Text, param: str) -> str:
    """Add a message, or an item of Responses' input, to the text; return what is said in it."""
    if not isinstance(message, dict):
        raise invalid(f"'{param}' must hold objects", param)
    role = message.get("role", message.get("type"))
    if not isinstance(role, str):
        raise invalid(f"a member of '{param}' has no role", param)
    content = message.get("content", message.get("output"))
    said = content if isinstance(content, str) else "".join(_parts(content, text, param))
    calls = message.get("tool_calls") or message.get("arguments")
    extra = to_json(calls).decode() if calls else ""
    text.parts.append(f"{role}: {said}{extra}")
    text.tokens += count(said + extra) + MESSAGE_TOKENS
    return said


def _parts(content: Any, text: _Text, param: str) -> Iterable[str]:
    if content is None:
        return
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise invalid(f"the content of a member of '{param}' must be a text or a list of parts", param)
    for each in content:
        if isinstance(each.get("text"), str):
            yield each["text"]
        else:
            text.tokens += IMAGE_TOKENS


def _tools(document: Mapping[str, Any], text: _Text) -> tuple[Tool, ...]:
    given = document.get("tools")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise invalid("'tools' must be a list of objects", "tools")
    text.add(to_json(given).decode())
    functions = [each.get("function", each) for each in given if each.get("type") == "function"]
    if not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in functions):
        raise invalid("a function in 'tools' has no name", "tools")
    return tuple(Tool(each["name"], each.get("parameters")) for each in functions)


def _forced(choice: Any, tools: tuple[Tool, ...]) -> str | None:
    if choice is None or choice == "auto" or choice == "none":  # noqa: PLR1714 -- it may be anything
        return None
    # Responses name the function itself, chat completions within `function`.
    named = _member(choice, "name") or _member(_member(choice, "function"), "name")
    name = "*" if choice == "required" else named
    if not isinstance(name, str) or not tools or name not in {"*", *(each.name for each in tools)}:
        raise invalid("'tool_choice' names no function of 'tools'", "tool_choice")
    return name


def _schema(form: Any) -> Any:
    kind = _member(form, "type")
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        # Chat completions wrap the schema once more than Responses do.
        return _member(form, "schema") or _member(_member(form, "json_schema"), "schema")
    return None


def _include_usage(document: Mapping[str, Any]) -> bool:
    return _member(document.get("stream_options"), "include_usage") is True


def _input(given: Any, param: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and all(type(each) is int for each in given):
        # A token that is given as a number is a token.
        return "".join(f"{each:04}"[-4:] for each in given)
    raise invalid(f"'{param}' holds something that is neither a text nor a list of tokens", param)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid(f"'{name}' must be true or false", name)


def _whole(document: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(f"'{name}' must be a whole number from {least} to {most}", name)
    return value
