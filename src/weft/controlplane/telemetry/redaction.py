"""What must not be kept, taken out of spans: what looks like a secret, and what Telemetries say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import re2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic_core import from_json, to_json

from weft.model.resource import AnyResource
from weft.model.telemetry import TelemetrySpec
from weft.tracing.redaction import (
    REDACTED,
    SECRET_FIELD,
    SECRET_PATTERNS,
    URL_PASSWORD,
    is_secret,
    redacted,
)

MAX_DEPTH: Final = 32
"""How deep values within values are looked at; what is deeper is taken out."""

URL_KEYS: Final = frozenset({"http.url", "url.full", "http.target", "url.path", "http.route"})
"""Attributes that are URLs or parts of them; their queries, and fragments, are not kept."""

QUERY_KEYS: Final = frozenset({"url.query", "url.fragment"})


def _anywhere(pattern: str) -> str:
    """`pattern`, found whatever is around it: in serialised spans, texts stand beside any other byte."""
    return f"(?:{pattern})".replace(r"\b", "")


def _names() -> str:
    return SECRET_FIELD.removesuffix("$")


# The value of an attribute stands after its name and this byte.
_AFTER_NAME: Final = r"(?:[\\\"'\s]*[:=]|\x12)"

_ESCAPED: Final = (
    rf"(?i)((?:{_names()})\\+[\"']\s*[:=]\s*)(?:\\+[\"'](?:[^\"'\\]|\\+[^\"'\\])*\\*[\"']?|[^\s,}}\]]+)"
)
"""A field in JSON within JSON that was cut, and so cannot be read."""

_SUSPICIOUS: Final = "|".join(
    [
        *(_anywhere(each) for each in SECRET_PATTERNS),
        f"(?:{_names()}{_AFTER_NAME})",
        _anywhere(URL_PASSWORD),
        # The query of a URL, or of an attribute that begins with it; and what is called so.
        r"/[^\x00-\x1f]*[?#]",
        r"\x0a[\x01-\xff][?#]",
        r"url\.(?:query|fragment)",
    ]
)


class Redaction:
    """Takes out of spans what must not be kept."""

    def __init__(self, rules: Sequence[str] = (), fields: Iterable[str] = ()) -> None:
        """`rules` are regular expressions (RE2); `fields` names of members of objects, and of attributes."""
        self._suspicious = re2.compile(_SUSPICIOUS.encode(), _options(latin=True))
        self._escaped = re2.compile(_ESCAPED, _options())
        self._rules = [re2.compile(each, _options()) for each in rules]
        self._any_rule = re2.compile("|".join(f"(?:{each})" for each in rules), _options()) if rules else None
        self._fields = frozenset(each.casefold() for each in fields)
        self._members = [_member(each) for each in sorted(self._fields)]
        # Most attributes have the names that others have.
        self._name = lru_cache(maxsize=1024)(self._plain)

    @classmethod
    def declared(cls, resources: Iterable[AnyResource]) -> Redaction:
        """What all Telemetries together say: a span is of several services, and passes through many hands."""
        specs = [each.spec.recording for each in resources if isinstance(each.spec, TelemetrySpec)]
        rules = dict.fromkeys(rule for each in specs for rule in each.redact)
        return cls([*rules], {field for each in specs for field in each.redact_fields})

    def clean(self, span: Span, serialised: bytes) -> bool:
        """Take out of `span` what must not be kept; return whether it was changed.

        Most spans have nothing of the kind, which is told from what they are `serialised`, at once.
        """
        if not self._rules and not self._fields and self._suspicious.search(serialised) is None:
            return False
        span.name = self._text(span.name)
        if span.status.message:
            span.status.message = self._text(span.status.message)
        self.clean_attributes(span.attributes)
        for event in span.events:
            event.name = self._text(event.name)
            self.clean_attributes(event.attributes)
        span.trace_state = self._text(span.trace_state)
        for link in span.links:
            link.trace_state = self._text(link.trace_state)
            self.clean_attributes(link.attributes)
        return True

    def clean_scope(self, scope: InstrumentationScope) -> None:
        """The same for what names the library that made spans."""
        scope.name = self._text(scope.name)
        scope.version = self._text(scope.version)
        self.clean_attributes(scope.attributes)

    def clean_attributes(self, attributes: Iterable[KeyValue]) -> None:
        """Take out of `attributes` what must not be kept."""
        for each in attributes:
            self._clean_value(each.key, each.value, MAX_DEPTH)
            # Nobody is asked which names attributes have: that of one may be what somebody said.
            if (clean := self._name(each.key)) != each.key:
                each.key = clean

    def _clean_value(self, key: str, value: AnyValue, depth: int) -> None:
        if self._is_secret(key) or key in QUERY_KEYS or not depth:
            value.string_value = REDACTED
            return
        match value.WhichOneof("value"):
            case "string_value":
                text = value.string_value
                clean = self._text(_without_query(text) if key in URL_KEYS else text)
                if clean != text:
                    value.string_value = clean
            case "bytes_value":
                # Bytes are texts to whoever looks for secrets; nobody else has use for them here.
                clean = self._text(value.bytes_value.decode("latin-1"))
                value.bytes_value = clean.encode("latin-1", "replace")
            case _:
                self._clean_parts(value, depth - 1)

    def _clean_parts(self, value: AnyValue, depth: int) -> None:
        for member in value.kvlist_value.values:
            self._clean_value(member.key, member.value, depth)
        for item in value.array_value.values:
            self._clean_value("", item, depth)

    def _is_secret(self, key: str) -> bool:
        return bool(key) and (is_secret(key) or self._named(key) or self._named(key.rpartition(".")[2]))

    def _named(self, key: str) -> bool:
        return bool(self._fields) and key.casefold() in self._fields

    def _text(self, text: str) -> str:
        if text[:1] in {"{", "["}:
            content = _json(text)
            if content is not None:
                clean = self._json_value(content, MAX_DEPTH)
                return text if clean == content else to_json(clean).decode()
        return self._plain(text)

    def _plain(self, text: str) -> str:
        text = self._escaped.sub(rf"\1{REDACTED}", redacted(text))
        if self._any_rule is not None and self._any_rule.search(text) is not None:
            for rule in self._rules:
                text = rule.sub(REDACTED, text)
        for member in self._members:
            text = member.sub(rf"\1{REDACTED}", text)
        return text

    def _json_value(self, value: Any, depth: int) -> Any:
        if not depth:
            return REDACTED
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._json_value(each, depth - 1) for each in value]
        if not isinstance(value, dict):
            return self._scalar(value)
        return {
            self._plain(name): REDACTED if self._is_secret(name) else self._json_value(each, depth - 1)
            for name, each in value.items()
        }

    def _scalar(self, value: Any) -> Any:
        """A number may be what a rule is about: that of an account, say."""
        if self._any_rule is None or isinstance(value, bool) or value is None:
            return value
        text = str(value)
        return value if self._any_rule.search(text) is None else self._plain(text)


def _json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return None


def _without_query(text: str) -> str:
    return text.partition("?")[0].partition("#")[0]


def _member(name: str) -> Any:
    """Finds a member in what was JSON before it was cut."""
    value = r"(?:\\*\"(?:[^\"\\\\]|\\\\.)*\\*\"?|[^,}\]]+)"
    return re2.compile(rf"(?i)(\"{re2.escape(name)}\\*\"\s*:\s*){value}", _options())


def _options(*, latin: bool = False) -> Any:
    options = re2.Options()
    options.log_errors = False
    if latin:
        options.encoding = re2.Options.Encoding.LATIN1
    return options
