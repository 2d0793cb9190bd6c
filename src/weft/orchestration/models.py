"""Models of the mesh, asked over the mesh's own transport: chat completions at `http://llm.mesh/v1`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from pydantic_core import PydanticSerializationError, from_json, to_json

from weft.errors import (
    AgentFailed,
    Denied,
    Interrupted,
    InvalidRequest,
    MeshError,
    NotFound,
    RateLimited,
    TimedOut,
    Unavailable,
)
from weft.model.llm_wire import LLM_HOST
from weft.model.names import MESH_DOMAIN
from weft.orchestration.branch import Branch
from weft.sdk.calls import events_of, fetch
from weft.sdk.inheritance import inherited_headers
from weft.sdk.mesh import Mesh
from weft.sdk.transport import Call
from weft.sdk.wire import EVENT_STREAM, JSON

HOST = f"{LLM_HOST}.{MESH_DOMAIN}"
PATH = "/v1/chat/completions"

_MEANINGS: Mapping[int, type[MeshError]] = {
    each.status: each for each in (Denied, NotFound, RateLimited, Unavailable, TimedOut)
}
"""What the scheduler, or a provider, says by its status, if that is among our errors."""

_DONE = "[DONE]"
_SHOWN = 300
"""Characters of an answer that an error repeats."""


async def ask(mesh: Mesh, branch: Branch, text: str, timeout: float) -> str:
    """The answer of the branch's model to `text`.

    Raises the MeshError that fits: InvalidRequest, Denied, NotFound, RateLimited (a budget is spent, too many
    wait), TimedOut (also if it is clear before it begins that the deadline would be missed), Unavailable,
    AgentFailed.
    """
    try:
        body = await fetch(mesh.transport, _call(branch, text, JSON), timeout)
    except AgentFailed as error:
        raise _refusal(error) from error
    return _checked(branch, _text_of(body, "message"))


async def ask_in_pieces(
    mesh: Mesh, branch: Branch, text: str, idle_timeout: float
) -> AsyncGenerator[str, None]:
    """The same, in the pieces in which it comes. Raises Interrupted, too."""
    call = _call(branch, text, EVENT_STREAM)
    try:
        async with aclosing(events_of(mesh.transport, call, idle_timeout)) as events:
            async for event in events:
                if event.data == _DONE:
                    return
                if piece := _text_of(event.data, "delta"):
                    yield piece
    except AgentFailed as error:
        raise _refusal(error) from error
    raise Interrupted(f"the answer of model {branch.model!r} broke off before its end")


def messages(branch: Branch, text: str) -> Sequence[Mapping[str, str]]:
    """What the model is told."""
    system = [{"role": "system", "content": branch.prompt}] if branch.prompt else []
    return [*system, {"role": "user", "content": text}]


def _call(branch: Branch, text: str, accept: str) -> Call:
    fields = {
        "model": branch.model,
        "messages": messages(branch, text),
        "temperature": branch.temperature,
        "max_tokens": branch.max_tokens,
        **branch.arguments,
        **({"stream": True} if accept == EVENT_STREAM else {}),
    }
    try:
        body = to_json({name: value for name, value in fields.items() if value is not None})
    except PydanticSerializationError as error:
        raise InvalidRequest(f"what {branch.label!r} is asked cannot be written as JSON: {error}") from error
    return Call("POST", HOST, PATH, {**inherited_headers(), "accept": accept, "content-type": JSON}, body)


def _text_of(body: str | bytes, part: str) -> str:
    """What a completion, or a piece of one, says. Raises AgentFailed."""
    try:
        content = from_json(body)
        if "error" in content:
            raise AgentFailed(f"the model broke off: {content['error'].get('message')}", body=content)
        choices = content["choices"]
        # The last piece of a stream may tell the usage alone.
        text = choices[0][part].get("content") if choices else None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise AgentFailed(
            f"a model answered with something else than a completion: {body[:_SHOWN]!r}"
        ) from error
    return text if isinstance(text, str) else ""


def _checked(branch: Branch, text: str) -> str:
    if not text:
        raise AgentFailed(f"model {branch.model!r} answered without a text")
    return text


def _refusal(error: AgentFailed) -> MeshError:
    """What an error of the mesh's scheduler, or of a provider, is among ours."""
    meaning = _MEANINGS.get(error.agent_status)
    return error if meaning is None else meaning(error.detail)
