"""Which handler a message is for, and what it gives that handler as arguments. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from weft.errors import InvalidRequest
from weft.sdk.a2a.wire import USER, data_of, text_of
from weft.sdk.conversation import Conversation, Said
from weft.sdk.handler import Handler
from weft.sdk.problem import Rejection

SKILL = "skill"
"""In a message's metadata: the skill it is for."""

_NAMES = (SKILL, "kind")
_PAYLOADS = ("arguments", "payload")


@dataclass(frozen=True, slots=True)
class Wish:
    """What one message asks for."""

    skill: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


class UnusableContent(InvalidRequest):
    """A message's parts are of kinds that the handler has no use for."""


def wish_of(message: Mapping[str, Any]) -> Wish:
    """What a message asks for. Raises InvalidRequest for a data part that is no object."""
    metadata = message.get("metadata") or {}
    skill = metadata.get(SKILL)
    if skill is not None and not isinstance(skill, str):
        raise InvalidRequest("the metadata `skill` of a message is the id of a skill: a text")
    arguments: dict[str, Any] = {}
    for each in data_of(message):
        named, given = _request_in(each)
        skill = skill if named is None else named
        arguments |= given
    if not all("text" in each or "data" in each for each in message.get("parts", ())):
        raise UnusableContent("the agent takes texts and data, and the message has parts that are neither")
    return Wish(skill, arguments, text_of(message))


def skill_for(wish: Wish, handlers: Mapping[str, Handler], default: str | None) -> Handler:
    """The handler that is meant. Raises InvalidRequest, naming those there are, if it is not clear which."""
    if wish.skill is not None and wish.skill not in handlers:
        raise InvalidRequest(f"there is no skill {wish.skill[:100]!r}, only: {_listed(handlers)}")
    name = wish.skill or default or (next(iter(handlers)) if len(handlers) == 1 else None)
    if name is None:
        raise InvalidRequest(
            f"say which skill is meant, in the message's metadata as `skill`: {_listed(handlers)}"
        )
    return handlers[name]


def arguments_for(handler: Handler, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all messages of the caller so far give the handler, checked and converted.

    What a later one says of the same parameter counts. A text is for the first parameter that takes one, and
    must be given, or is None by default, and was not given yet; else for the first that takes one. Raises
    InvalidRequest, naming each wrong field.
    """
    given: dict[str, Any] = {}
    for wish in map(wish_of, messages):
        given |= wish.arguments
        if wish.text:
            _place_text(handler, wish.text, given)
    try:
        return handler.read_payload(to_json(given))
    except Rejection as rejection:
        raise InvalidRequest(rejection.problem.detail) from rejection


def conversation_of(messages: Sequence[Mapping[str, Any]], context_id: str, task_id: str) -> Conversation:
    """The same, for a handler that wants to know what was said."""
    said = (
        Said("user" if each["role"] == USER else "agent", text_of(each), tuple(data_of(each)))
        for each in messages
    )
    return Conversation(tuple(said), context_id, task_id)


def text_parameters(handler: Handler) -> list[str]:
    """The parameters that take a text, in order."""
    return _text_fields(handler.arguments)


def _place_text(handler: Handler, text: str, given: dict[str, Any]) -> None:
    names = text_parameters(handler)
    if not names:
        if handler.required and Conversation not in handler.given.values():
            raise UnusableContent(
                f"skill {handler.kind!r} takes no text: send a data part with {', '.join(handler.required)}"
            )
        return
    parameters = inspect.signature(handler.function).parameters
    wanting = (each for each in names if each not in given and _wants(parameters[each]))
    given[next(wanting, names[0])] = text


def _wants(parameter: inspect.Parameter) -> bool:
    """Whether a call without it has something missing."""
    return parameter.default is None or parameter.default is inspect.Parameter.empty


def _request_in(data: Any) -> tuple[str | None, Mapping[str, Any]]:
    """The skill that a data part names, if it does, and its arguments."""
    if not isinstance(data, dict):
        raise InvalidRequest("a data part of a message to this agent is an object: its arguments by name")
    name = next((data[each] for each in _NAMES if isinstance(data.get(each), str)), None)
    if name is None or not data.keys() <= {*_NAMES, *_PAYLOADS}:
        return None, data
    arguments: Any = next((data[each] for each in _PAYLOADS if each in data), {})
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"the arguments of skill {name[:100]!r} are an object: values by name")
    return name, arguments


@lru_cache(maxsize=1024)
def _text_fields(arguments: TypeAdapter[Any]) -> list[str]:
    properties = arguments.json_schema().get("properties", {})
    return [name for name, schema in properties.items() if _takes_text(schema)]


def _takes_text(schema: Mapping[str, Any]) -> bool:
    if "enum" in schema or "const" in schema or schema.get("format") == "binary":
        return False
    return schema.get("type") == "string" or any(map(_takes_text, schema.get("anyOf", ())))


def _listed(handlers: Mapping[str, Handler]) -> str:
    return ", ".join(sorted(handlers))
