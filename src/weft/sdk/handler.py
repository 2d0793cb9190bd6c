"""What an agent does with one kind of request: a function, and the checks its annotations ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from weft.errors import InvalidRequest
from weft.sdk.mesh import Mesh
from weft.sdk.problem import Problem, Rejection

MAX_FIELD_PROBLEMS = 20
"""How many wrong fields one answer lists."""

_typed_dict: Any = TypedDict  # made at run time, which a type checker cannot follow

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that handles requests of one kind."""

    kind: str
    function: Callable[..., Any]
    streams: bool
    """Whether it answers with a stream of items rather than one result."""
    envelope: TypeAdapter[Any]
    """Checks a request's body, `{"kind": ..., "payload": {...}}`, against the function's annotations."""
    arguments: TypeAdapter[Any]
    """Checks a payload alone."""
    given: Mapping[str, type]
    """Parameters, by name, for which the caller of the function passes what it has of their type."""

    def read(self, body: bytes) -> dict[str, Any]:
        """Return the keyword arguments that `body` holds. Raises Rejection (422) naming each wrong field."""
        try:
            payload: dict[str, Any] = self.envelope.validate_json(body).get("payload", {})
        except ValidationError as error:
            raise Rejection(_wrong_arguments(self.kind, error)) from error
        return payload

    def read_payload(self, payload: bytes) -> dict[str, Any]:
        """Return the keyword arguments that `payload` holds. Raises Rejection (422) as `read` does."""
        try:
            arguments: dict[str, Any] = self.arguments.validate_json(payload)
        except ValidationError as error:
            raise Rejection(_wrong_arguments(self.kind, error)) from error
        return arguments

    def call(self, arguments: Mapping[str, Any], at_hand: Mapping[type, Any]) -> Any:
        """Call the function: what comes back is its result, a coroutine, or an async iterator."""
        return self.function(**arguments, **{name: at_hand[kind] for name, kind in self.given.items()})

    @property
    def required(self) -> list[str]:
        """The fields that a payload must have."""
        parameters = inspect.signature(self.function).parameters.values()
        return [
            each.name
            for each in parameters
            if each.name not in self.given and each.default is inspect.Parameter.empty
        ]

    @property
    def blocking(self) -> bool:
        """Whether the function is a plain one, to be run in a thread."""
        return not (inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function))


def handler_of(
    kind: str, function: Callable[..., Any], *, streams: bool, at_hand: Collection[type] = (Mesh,)
) -> Handler:
    """Make a handler of `function`, whose parameters become the fields of the payload.

    Parameters annotated with a type of `at_hand` are passed what is at hand of it instead. Raises TypeError
    if requests cannot be checked against its signature.
    """
    if not kind:
        raise TypeError("a request kind needs a name")
    if streams != inspect.isasyncgenfunction(function):
        wanted = "an async generator (async def with yield)" if streams else "not a generator"
        raise TypeError(f"the handler of {kind!r} must be {wanted}")
    hints = _hints(kind, function)
    parameters = inspect.signature(function).parameters.values()
    given = {each.name: hints[each.name] for each in parameters if hints.get(each.name) in at_hand}
    fields = {
        each.name: _field(kind, each, hints.get(each.name, Any))
        for each in parameters
        if each.name not in given
    }
    arguments = _payload(fields)
    return Handler(kind, function, streams, _envelope(arguments), TypeAdapter(arguments), given)


def _hints(kind: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"an annotation of the handler of {kind!r} cannot be resolved ({error}): import or define its "
            "type at the top of the module, not in a function or under TYPE_CHECKING"
        ) from error


def _field(kind: str, parameter: inspect.Parameter, annotation: Any) -> Any:
    if parameter.kind not in _NAMED:
        raise TypeError(
            f"the handler of {kind!r} takes {parameter}: only named parameters can be fields of a payload"
        )
    return annotation if parameter.default is inspect.Parameter.empty else NotRequired[annotation]


def _payload(fields: dict[str, Any]) -> Any:
    arguments = _typed_dict("arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    return arguments


def _envelope(arguments: Any) -> TypeAdapter[Any]:
    payload = arguments if arguments.__required_keys__ else NotRequired[arguments]
    return TypeAdapter(_typed_dict("envelope", {"kind": str, "payload": payload}))


def _wrong_arguments(kind: str, error: ValidationError) -> Problem:
    problems = [
        {"field": ".".join(map(str, each["loc"])), "message": each["msg"]}
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ][:MAX_FIELD_PROBLEMS]
    listed = "; ".join(f"{each['field']}: {each['message']}" for each in problems)
    return Problem(422, InvalidRequest, f"wrong arguments for {kind!r}: {listed}", {"errors": problems})
