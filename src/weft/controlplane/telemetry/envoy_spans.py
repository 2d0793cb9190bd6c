"""What Envoy tells of a call, by the names of OpenTelemetry's semantic conventions and of Weft.

Envoy tells the same of a span, as its tags, and of an entry of an access log: `described` knows both. Which
tags there are `translate.tracing` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | int | float
Tags = Mapping[str, str]

PROXY: Final = "proxy"
"""The component that Envoy says a span is of."""

_LONG: Final = 256  # characters from which on a text is not worth its memory
_MOST: Final = 2**63  # what OTLP has room for

_NONE: Final = "-"  # what Envoy writes where there is nothing to be written

_OPERATIONS: Final = {"chat": "chat", "responses": "chat", "completions": "text_completion"}
"""By endpoint of OpenAI's API; GenAI conventions."""

_KINDS: Final = {
    "type": "agent",
    "capability": "capability",
    "llm": "model",
    "provider": "model",
    "control": "control",
}
"""Of destinations, by what the names of clusters begin with."""

_HOSTS: Final = {"control": "control", "tools": "tool", "llm": "model", "outside": "outside"}
"""Of destinations where no cluster was chosen."""


@dataclass(frozen=True, slots=True)
class Description:
    """A call, as it is told."""

    name: str
    kind: Span.SpanKind.ValueType
    attributes: dict[str, Value]
    failed: bool
    message: str
    """Why, if it failed."""


def described(tags: Tags, service: str) -> Description:
    """The call that `tags` are of, which `service` made or, where it came in, answers."""
    listener = tags.get("weft.listener", "")
    attributes: dict[str, Value] = {}
    for tag, name, read in _COPIED:
        text = tags.get(tag)
        if text and text != _NONE:
            value = read(text)
            if value is not None:
                attributes[name] = value
    failed = tags.get("error") == "true" or _status(tags) >= 500
    if failed and (details := tags.get("weft.details")):
        attributes["weft.details"] = details
    if context := tags.get("weft.context"):
        attributes["gen_ai.conversation.id"] = context
    if listener == "outbound":
        name, kind = _outbound(tags, attributes), Span.SPAN_KIND_CLIENT
    else:
        name, kind = _inbound(tags, listener, service, attributes), Span.SPAN_KIND_SERVER
    message = (tags.get("weft.error") or tags.get("weft.details") or "") if failed else ""
    return Description(name, kind, attributes, failed, message)


def attempt(tags: Tags) -> Description:
    """An attempt that failed, of which `tags` are."""
    destination = tags.get("weft.destination") or _destination(tags.get("weft.cluster", ""))
    told = {**tags, "weft.listener": "outbound", "weft.destination": destination, "error": "true"}
    found = described(told, "")
    name = " ".join(each for each in ("attempt", tags.get("weft.attempt", ""), destination) if each)
    attributes = {key: value for key, value in found.attributes.items() if key not in _OF_CALLS}
    told_of = (tags.get(each, "") for each in ("weft.failure", "response_flags", "weft.details"))
    reason = next((each for each in told_of if each not in {"", _NONE}), "")
    if reason:
        attributes["weft.details"] = reason
    return Description(name, Span.SPAN_KIND_CLIENT, attributes, True, reason)


def normalise(span: Span, service: str) -> None:
    """Have `span`, if it is as Envoy tells it, say what it says by the names that hold for all spans."""
    tags = {each.key: each.value.string_value for each in span.attributes}
    if tags.get("component") == PROXY:
        describe(span, described(tags, service))


def describe(span: Span, found: Description) -> None:
    """Have `span` say what was found."""
    span.name = found.name
    span.kind = found.kind
    del span.attributes[:]
    span.attributes.extend([key_value(*each) for each in found.attributes.items()])
    span.status.Clear()
    if found.failed:
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = found.message


def key_value(key: str, value: Value) -> KeyValue:
    """An attribute. Most spans say what others said before; whoever gets it must not change it."""
    if isinstance(value, str) and len(value) > _LONG:
        return _made(key, value)
    return _known(key, value)


def _made(key: str, value: Value) -> KeyValue:
    if isinstance(value, str):
        return KeyValue(key=key, value=AnyValue(string_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(double_value=value))


_known = lru_cache(maxsize=8192)(_made)


def _outbound(tags: Tags, attributes: dict[str, Value]) -> str:
    destination, tool = tags.get("weft.destination", ""), tags.get("weft.tool", "")
    kind = "tool" if tool else _kind(tags.get("weft.cluster", ""), destination)
    attributes["weft.destination.kind"] = kind
    attributes["weft.destination"] = destination
    if tool:
        attributes["gen_ai.operation.name"] = "execute_tool"
        attributes["gen_ai.tool.name"] = tool
        return f"execute_tool {tool}"
    if kind == "model":
        return _model(tags, attributes)
    if kind in {"agent", "capability"} and destination != "unknown":
        attributes["gen_ai.operation.name"] = "invoke_agent"
        return f"invoke_agent {destination}"
    target = tags.get("weft.authority", "") if kind == "outside" else destination
    return f"{tags.get('http.method', 'call')} {target or destination}"


def _model(tags: Tags, attributes: dict[str, Value]) -> str:
    endpoint = tags.get("weft.llm.endpoint", "chat")
    operation = _OPERATIONS.get(endpoint, endpoint)
    attributes["gen_ai.operation.name"] = operation
    return f"{operation} {tags.get('weft.llm.model') or tags.get('weft.destination', '')}"


def _inbound(tags: Tags, listener: str, service: str, attributes: dict[str, Value]) -> str:
    if listener == "outside":
        return f"gateway {tags.get('weft.gateway') or service}"
    attributes["weft.destination"] = service
    attributes["weft.destination.kind"] = "agent"
    return f"serve {service}"


def _kind(cluster: str, destination: str) -> str:
    if not cluster or cluster == _NONE:
        return _HOSTS.get(destination, "agent")
    if destination == "tools":
        return "tool"
    return _KINDS.get(cluster.removeprefix("context/").partition("/")[0], "outside")


def _destination(cluster: str) -> str:
    """Whom a cluster leads to: `type/x`, `type/x/version`, `capability/x`, `provider/pool/x`."""
    kind, _, rest = cluster.removeprefix("context/").partition("/")
    return rest.partition("/")[0] if kind in {"type", "capability"} else rest or cluster


def _status(tags: Tags) -> int:
    return _whole(tags.get("http.status_code", "")) or 0


def _text(text: str) -> str:
    return text


def _path(text: str) -> str:
    path = text.partition("?")[0].partition("#")[0]
    scheme, separator, rest = path.partition("://")
    return f"/{rest.partition('/')[2]}" if separator and scheme.isalpha() else path


def _host(text: str) -> str:
    host, colon, port = text.rpartition(":")
    return host if colon and port.isdecimal() else text


def _whole(text: str) -> int | None:
    """The number that `text` is; Envoy writes numbers of metadata as those with a fraction."""
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        return None
    # Some of them others said, such as how many tokens a model used.
    return number if 0 <= number < _MOST else None


_COPIED: Final[tuple[tuple[str, str, Callable[[str], Value | None]], ...]] = (
    ("http.method", "http.request.method", _text),
    ("http.status_code", "http.response.status_code", _whole),
    ("http.url", "url.path", _path),
    ("request_size", "http.request.body.size", _whole),
    ("response_size", "http.response.body.size", _whole),
    ("response_flags", "weft.flags", _text),
    ("weft.listener", "weft.listener", _text),
    ("weft.authority", "server.address", _host),
    ("weft.destination", "weft.destination", _text),
    ("weft.route", "weft.route", _text),
    ("weft.version", "weft.version", _text),
    ("weft.instance", "weft.instance", _text),
    ("weft.address", "network.peer.address", _text),
    ("weft.attempt", "weft.attempt", _whole),
    ("weft.attempts", "weft.attempts", _whole),
    ("weft.caller", "weft.caller", _text),
    ("weft.submitter", "weft.submitter", _text),
    ("weft.gateway", "weft.gateway", _text),
    ("weft.context", "weft.context", _text),
    ("weft.error", "weft.error", _text),
    ("weft.llm.pool", "weft.pool", _text),
    ("weft.llm.model", "gen_ai.request.model", _text),
    ("weft.llm.provider", "gen_ai.provider.name", _text),
    ("weft.llm.input_tokens", "gen_ai.usage.input_tokens", _whole),
    ("weft.llm.output_tokens", "gen_ai.usage.output_tokens", _whole),
    ("weft.llm.cached_tokens", "gen_ai.usage.cache_read.input_tokens", _whole),
)
"""Tags, what they are called afterwards, and how they are read."""

_OF_CALLS: Final = frozenset({"weft.attempts", "gen_ai.operation.name", "weft.listener"})
"""What is said of whole calls, not of their attempts."""
