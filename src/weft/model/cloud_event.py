"""CloudEvents 1.0: one thing that happened, with what must be known to route it.

What this holds to beyond the specification: limits on sizes, and no white space in URIs. Extensions are kept
in their canonical text: `true` and `5` say nothing of whether they came as texts or as values of their type.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

from weft.errors import InvalidRequest

SPEC_VERSION = "1.0"

MAX_ATTRIBUTE_LENGTH = 2048
"""Characters that one attribute may have."""

MAX_NAME_LENGTH = 40
"""Characters of an extension's name; the specification advises 20."""

MAX_EXTENSIONS = 64

MAX_CONTENT_TYPE_LENGTH = 256

CORE_ATTRIBUTES = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}
)
"""Attributes that the specification defines itself."""

PARTITION_KEY = "partitionkey"
"""The extension that says which events must stay in order."""

TRACE_EXTENSIONS = ("traceparent", "tracestate")
"""The extension for distributed tracing: W3C's trace context of where the event was made."""

_RESERVED = CORE_ATTRIBUTES | {"data", "data_base64"}
_NAME = re.compile(rf"[a-z0-9]{{1,{MAX_NAME_LENGTH}}}")
# Control characters, surrogates, and the code points that Unicode says are no characters.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
_URI_REFERENCE = re.compile(r"[^\s<>\"{}|\\^`]+")
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_WORD}/{_WORD}( *; *{_WORD}=({_WORD}|"[\x20-\x21\x23-\x5b\x5d-\x7e]*"))*')
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_MIN_INTEGER, _MAX_INTEGER = -(2**31), 2**31 - 1

Attribute = str | bool | int | bytes | datetime
"""What an extension may be given as."""


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event. Making one raises InvalidRequest if an attribute is missing, too long or has no form."""

    id: str
    """Distinct within the source: two events with the same source and id are the same event."""
    source: str
    """A URI reference: where it happened."""
    type: str
    """What happened, as in `com.example.order.created`."""
    subject: str | None = None
    """What it happened to, within the source."""
    time: datetime | None = None
    """When it happened; knows its time zone. Beyond microseconds digits are dropped."""
    datacontenttype: str | None = None
    """The media type of `data`."""
    dataschema: str | None = None
    """A URI: what `data` keeps to."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Further attributes, in canonical text (see `canonical`)."""
    data: bytes | None = None
    """What the event is about. None and empty are one, since most transports cannot tell them apart."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", self.data or None)
        for name in ("id", "source", "type"):
            _check_text(name, getattr(self, name))
        _check_form("source", self.source, _URI_REFERENCE, "a URI reference")
        if self.subject is not None:
            _check_text("subject", self.subject)
        if self.time is not None and self.time.utcoffset() is None:
            raise InvalidRequest("the time of a CloudEvent needs its offset from UTC")
        if self.datacontenttype is not None:
            _check_text("datacontenttype", self.datacontenttype, MAX_CONTENT_TYPE_LENGTH)
            _check_form("datacontenttype", self.datacontenttype, _MEDIA_TYPE, "a media type")
        if self.dataschema is not None:
            _check_text("dataschema", self.dataschema)
            _check_form("dataschema", self.dataschema, _ABSOLUTE_URI, "an absolute URI")
        self._check_extensions()

    def _check_extensions(self) -> None:
        if len(self.extensions) > MAX_EXTENSIONS:
            raise InvalidRequest(f"a CloudEvent has at most {MAX_EXTENSIONS} extensions")
        for name, value in self.extensions.items():
            if not _NAME.fullmatch(name) or name in _RESERVED:
                raise InvalidRequest(
                    f"{name[:MAX_NAME_LENGTH]!r} is no name for an extension of a CloudEvent: use 1 to "
                    f"{MAX_NAME_LENGTH} lower-case letters and digits, and none of the specification's names"
                )
            _check_text(name, value, least=0)

    def attributes(self) -> dict[str, str]:
        """All attributes that it has, in canonical text."""
        optional = {
            "subject": self.subject,
            "time": None if self.time is None else time_text(self.time),
            "datacontenttype": self.datacontenttype,
            "dataschema": self.dataschema,
        }
        return {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            **{name: value for name, value in optional.items() if value is not None},
            **self.extensions,
        }

    def attribute(self, name: str) -> str | None:
        """One attribute, in canonical text; None if the event does not have it."""
        if name == "time":
            return None if self.time is None else time_text(self.time)
        if name == "specversion":
            return SPEC_VERSION
        if name in CORE_ATTRIBUTES:
            value: str | None = getattr(self, name)
            return value
        return self.extensions.get(name)


def from_attributes(attributes: Mapping[str, str], data: bytes | None) -> CloudEvent:
    """The event that has these attributes, in canonical text. Raises InvalidRequest."""
    version = attributes.get("specversion")
    if version != SPEC_VERSION:
        found = "no CloudEvent: it has no specversion" if version is None else f"in version {version[:16]!r}"
        raise InvalidRequest(f"this is {found}; send CloudEvents of version {SPEC_VERSION}")
    missing = [name for name in ("id", "source", "type") if name not in attributes]
    if missing:
        raise InvalidRequest(f"the CloudEvent has no {' and no '.join(missing)}")
    time = attributes.get("time")
    return CloudEvent(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject"),
        time=None if time is None else parse_time(time),
        datacontenttype=attributes.get("datacontenttype"),
        dataschema=attributes.get("dataschema"),
        extensions={name: value for name, value in attributes.items() if name not in CORE_ATTRIBUTES},
        data=data,
    )


def canonical(value: Attribute) -> str:
    """The canonical text of an attribute's value. Raises InvalidRequest for what no attribute can be."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not _MIN_INTEGER <= value <= _MAX_INTEGER:
            raise InvalidRequest("integers in attributes of CloudEvents have 32 bits: send it as a text")
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return time_text(value)
    raise InvalidRequest(f"an attribute of a CloudEvent cannot be of type {type(value).__name__}")


def time_text(time: datetime) -> str:
    """A time in RFC 3339."""
    text = time.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def parse_time(text: str) -> datetime:
    """The time that a text in RFC 3339 stands for. Raises InvalidRequest."""
    match = _TIME.fullmatch(text)
    if match:
        date, clock, fraction, utc, sign, hours, minutes = match.groups()
        try:
            zone: timezone = UTC if utc else _zone(sign, int(hours), int(minutes))
            return datetime.fromisoformat(f"{date}T{clock}.{(fraction or '0')[:6]:0<6}").replace(tzinfo=zone)
        except ValueError:
            pass  # a month 13, and the like
    raise InvalidRequest(f"{text[:64]!r} is no time in RFC 3339, such as 2026-11-05T17:31:00Z")


def _zone(sign: str, hours: int, minutes: int) -> timezone:
    if minutes > 59:
        raise ValueError("an hour has 60 minutes")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if sign == "-" else offset) if offset else UTC


def _check_text(name: str, value: str, most: int = MAX_ATTRIBUTE_LENGTH, *, least: int = 1) -> None:
    if not least <= len(value) <= most:
        raise InvalidRequest(
            f"attribute {name!r} of a CloudEvent has {len(value)} characters: {least} to {most} are allowed"
        )
    if _FORBIDDEN.search(value):
        raise InvalidRequest(
            f"attribute {name!r} of a CloudEvent has control characters, or such as Unicode does not know"
        )


def _check_form(name: str, value: str, form: re.Pattern[str], what: str) -> None:
    if not form.fullmatch(value):
        raise InvalidRequest(f"attribute {name!r} of a CloudEvent is not {what}: {value[:128]!r}")
