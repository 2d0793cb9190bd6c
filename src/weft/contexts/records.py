"""What is written down of a context, and how it is read again."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from pydantic_core import PydanticSerializationError, from_json, to_json
from typing_extensions import TypedDict

from weft.contexts.limits import ContextLimits
from weft.errors import InvalidRequest

MAX_ROLE_LENGTH = 64
MAX_NAME_LENGTH = 256
"""Characters of an artifact's name."""
MAX_MEDIA_TYPE_LENGTH = 127

CHUNK_BYTES = 512 * 1024
"""Of an artifact, in one key."""

_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Text = Annotated[str, StringConstraints(max_length=2048)]
_Token = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]

# Versions of Weft mix in one mesh: a field that this one does not know is none of its business.
_LENIENT = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Head:
    """What holds of a context from its beginning to its end. Times are in seconds since 1970."""

    created_at: float
    expires_at: float
    generation: str
    limits: ContextLimits
    deleted: bool = False
    """Somebody deletes it, or died while doing so."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    number: int
    """Its place, from 1, without gaps."""
    role: str
    content: Any
    """JSON."""
    at: float
    """When it was appended, in seconds since 1970, by its author's clock."""
    author: str
    """Who says that it appended it: a SPIFFE ID."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """By which its author knows it again."""


@dataclass(frozen=True, slots=True)
class State:
    """What a conversation remembers beside its messages."""

    value: Any
    """JSON; None where nothing was written yet."""
    revision: int
    """To be given when it is changed; 0 where nothing was written yet."""


@dataclass(frozen=True, slots=True)
class ArtifactInfo:
    """What is known of an artifact without reading it."""

    name: str
    media_type: str
    size: int
    """Bytes."""
    sha256: str
    """Of its data, in hex."""
    at: float
    """When it was put there, in seconds since 1970."""
    token: str
    """Where its data is."""

    @property
    def chunks(self) -> int:
        """How many pieces its data is in."""
        return math.ceil(self.size / CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact, read."""

    info: ArtifactInfo
    data: bytes


@with_config(_LENIENT)
class _Limits(TypedDict, total=False):
    messages: _Count
    message_bytes: _Count
    state_bytes: _Count
    artifacts: _Count
    artifact_bytes: _Count
    total_artifact_bytes: _Count
    lifetime: _Time


@with_config(_LENIENT)
class _HeadFields(TypedDict):
    created_at: _Time
    expires_at: _Time
    generation: _Token
    limits: _Limits
    deleted: bool


@with_config(_LENIENT)
class _MessageFields(TypedDict):
    role: Annotated[str, StringConstraints(max_length=MAX_ROLE_LENGTH)]
    content: Any
    at: _Time
    author: _Text
    metadata: dict[str, Any]
    id: _Token


@with_config(_LENIENT)
class _ArtifactFields(TypedDict):
    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH)]
    media_type: Annotated[str, StringConstraints(max_length=MAX_MEDIA_TYPE_LENGTH)]
    size: Annotated[int, Field(ge=0, le=ContextLimits().artifact_bytes)]
    sha256: _Token
    at: _Time
    token: _Token


_HEAD: TypeAdapter[_HeadFields] = TypeAdapter(_HeadFields)
_MESSAGE: TypeAdapter[_MessageFields] = TypeAdapter(_MessageFields)
_ARTIFACTS: TypeAdapter[list[_ArtifactFields]] = TypeAdapter(
    Annotated[list[_ArtifactFields], Field(max_length=ContextLimits().artifacts)]
)


class BytesCodec:
    """Values as they are: what is written under a key depends on the key."""

    def encode(self, value: bytes) -> bytes:
        """Return `value`."""
        return value

    def decode(self, data: bytes) -> bytes:
        """Return `data`."""
        return bytes(data)


def head_bytes(head: Head) -> bytes:
    """The JSON of a head."""
    return to_json(asdict(head))


def parse_head(data: bytes) -> Head:
    """The head that `data` stands for. Raises ValueError."""
    try:
        fields = _HEAD.validate_json(data)
        return Head(
            fields["created_at"],
            fields["expires_at"],
            fields["generation"],
            ContextLimits(**fields["limits"]),
            fields["deleted"],
        )
    except (ValidationError, InvalidRequest) as error:
        raise ValueError("not the head of a context") from error


def message_bytes(message: Message, limit: int) -> bytes:
    """The JSON of a message. Raises InvalidRequest if it has none, or one of more than `limit` bytes."""
    if not 1 <= len(message.role) <= MAX_ROLE_LENGTH or not message.role.isprintable():
        raise InvalidRequest(f"the role of a message is 1 to {MAX_ROLE_LENGTH} printable characters")
    # Without its number, which the key has.
    fields = {
        "role": message.role,
        "content": message.content,
        "at": message.at,
        "author": message.author,
        "metadata": message.metadata,
        "id": message.id,
    }
    return _json(fields, "a message", limit)


def parse_message(number: int, data: bytes) -> Message:
    """The message that `data` stands for. Raises ValueError."""
    try:
        return Message(number, **_MESSAGE.validate_json(data))
    except ValidationError as error:
        raise ValueError("not a message") from error


def state_bytes(value: Any, limit: int) -> bytes:
    """The JSON of a state. Raises InvalidRequest if it has none, or one of more than `limit` bytes."""
    return _json(value, "the state of a context", limit)


def parse_json(data: bytes) -> Any:
    """The value that `data` stands for. Raises ValueError."""
    return from_json(data)


def artifacts_bytes(artifacts: list[ArtifactInfo]) -> bytes:
    """The JSON of a list of artifacts."""
    return to_json([asdict(each) for each in artifacts])


def parse_artifacts(data: bytes) -> list[ArtifactInfo]:
    """The list of artifacts that `data` stands for. Raises ValueError."""
    try:
        return [ArtifactInfo(**each) for each in _ARTIFACTS.validate_json(data)]
    except ValidationError as error:
        raise ValueError("not a list of artifacts") from error


def check_artifact(name: str, media_type: str) -> None:
    """Raise InvalidRequest unless an artifact may be called so and be of that type."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(f"an artifact's name is 1 to {MAX_NAME_LENGTH} printable characters")
    if len(media_type) > MAX_MEDIA_TYPE_LENGTH or not (media_type.isascii() and media_type.isprintable()):
        raise InvalidRequest(
            f"an artifact's media type is at most {MAX_MEDIA_TYPE_LENGTH} printable ASCII characters"
        )


def _json(value: Any, what: str, limit: int) -> bytes:
    try:
        data = to_json(value, inf_nan_mode="null")
        if len(data) <= limit:
            from_json(data)  # what is nested too deep could be written, but never read again
            return data
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{what} cannot be written as JSON: use mappings, lists, texts, numbers, booleans and None"
        ) from error
    raise InvalidRequest(
        f"{what} has {len(data)} bytes as JSON, and may have {limit}: put what is large into an artifact"
    )
