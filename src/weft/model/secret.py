"""Secret: values that are sealed before anything is stored, and that Envoy adds to calls to outside hosts.

A value has four forms, and none of them shows it: as it is *given* in a manifest, *referred to* until `weft
apply` has read it, *sealed* as the store has it, and *kept* where a manifest has what `weft get` shows in its
place, which means: leave it as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializationInfo,
    StringConstraints,
    ValidationInfo,
)

from weft.model.header import ChangeableHeader
from weft.model.outside_host import OutsideName
from weft.model.spec import MAX_ITEMS, Spec, TypeName

MAX_VALUE_BYTES = 64 * 1024
"""Size of one value."""

MAX_NAME = 4096
"""Characters of the name of a file or a variable."""

MAX_CERTIFICATES = 64 * 1024
"""Characters of the certificates of a private authority."""

STORED = {"stored": True}
"""Pydantic's context for reading and writing sealed values as the store has them; else they are shown."""

_SHOWN = re.compile(r"<sealed: [^<>\n]{0,100}>")
_EXPECTED = "must be text in quotes, or {fromEnv: NAME}, or {fromFile: PATH}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as a manifest gives it, yet to be sealed."""

    text: str = field(repr=False)

    @property
    def shown(self) -> str:
        """What stands for it wherever it is shown."""
        return "<sealed: not yet>"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as the store has it: nobody without the sealing key can read it."""

    box: str = field(repr=False)
    """What the Sealer made of it, in base64."""
    size: int
    """Bytes of the value."""
    changed: str
    """When it got this value, RFC 3339."""

    @property
    def shown(self) -> str:
        """What stands for it wherever it is shown."""
        return f"<sealed: {self.size} bytes, changed {self.changed}>"


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands for a value where it is shown: applied again, it keeps the value that is stored."""

    shown: str


class Source(StrEnum):
    """Where `weft apply`, `weft diff` and `weft up` take a value from, before it is sent anywhere."""

    ENVIRONMENT = "fromEnv"
    FILE = "fromFile"
    """Relative to the manifest; a line break at its end is left out."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands for a value in a manifest that may be shown to everybody: where the value is."""

    source: Source
    name: str
    """Of an environment variable or a file."""

    @property
    def shown(self) -> dict[str, str]:
        """The reference as it stands in a manifest."""
        return {self.source.value: self.name}


SecretValue = Given | Reference | Sealed | Kept


def _read(value: Any, info: ValidationInfo) -> SecretValue:
    # Every message here is fixed: what was given must not be repeated.
    if isinstance(value, SecretValue):
        return value
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, dict):
        return _read_sealed(value) if (info.context or {}).get("stored") else _read_reference(value)
    raise ValueError(_EXPECTED)


def _read_text(value: str) -> SecretValue:
    if _SHOWN.fullmatch(value):
        return Kept(value)
    if not value:
        raise ValueError("must not be empty")
    if len(value.encode(errors="replace")) > MAX_VALUE_BYTES:
        raise ValueError(f"must have at most {MAX_VALUE_BYTES} bytes")
    return Given(value)


def _read_reference(value: dict[str, Any]) -> Reference:
    [(source, name), *more] = value.items() or [("", None)]
    if source in set(Source) and isinstance(name, str) and 0 < len(name) <= MAX_NAME and not more:
        return Reference(Source(source), name)
    raise ValueError(_EXPECTED)


def _read_sealed(value: dict[str, Any]) -> Sealed:
    box, size, changed = value.get("box"), value.get("size"), value.get("changed")
    if isinstance(box, str) and isinstance(size, int) and isinstance(changed, str):
        return Sealed(box, size, changed)
    raise ValueError("is not a sealed value")


def _write(value: SecretValue, info: SerializationInfo) -> Any:
    if not (info.context or {}).get("stored"):
        return value.shown
    if isinstance(value, Sealed):
        return {"box": value.box, "size": value.size, "changed": value.changed}
    raise ValueError("only sealed values can be stored")


SecretKey = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""The name of a value: letters, digits, dots, hyphens and underscores."""

Value = Annotated[SecretValue, PlainValidator(_read), PlainSerializer(_write, when_used="json")]

_CERTIFICATE = re.compile(
    r"\s*(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+", re.ASCII
)


def _certificates(value: str) -> str:
    if not _CERTIFICATE.fullmatch(value):
        raise ValueError("must be certificates in PEM, and nothing else")
    return value


Certificates = Annotated[str, StringConstraints(max_length=MAX_CERTIFICATES), AfterValidator(_certificates)]
"""Certificates in PEM."""

Prefix = Annotated[str, StringConstraints(max_length=256, pattern=r"^[\x20-\x7e]*$")]


class Injection(Spec):
    """A header that the sidecar's Envoy adds to calls to one outside host, so that agents never see it.

    Agents call `http://<host>/`; with `tls`, Envoy speaks HTTPS to the host and checks who it is.
    """

    host: OutsideName
    """The host's name."""
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    """Where the host listens."""
    tls: bool = True
    """Whether the host is spoken to by TLS; without it the value can be read on the way."""
    ca: Certificates | None = None
    """Who vouches for the host: certificates in PEM; by default whom the sidecar's machine trusts."""
    address: OutsideName | None = None
    """Where to connect to, if that is not what the host's name resolves to."""
    header: ChangeableHeader = "authorization"
    """The header that gets the value; what an agent sends in it itself is overwritten."""
    prefix: Prefix = ""
    """Put before the value, as in `Bearer ` with a blank at its end."""
    key: SecretKey
    """Which value of `data`."""
    for_types: Annotated[tuple[TypeName, ...], Field(min_length=1, max_length=MAX_ITEMS)] | None = Field(
        default=None, alias="for"
    )
    """The agent types that may use it; by default every agent. A sidecar without an agent never may."""

    def is_for(self, agent_type: str | None) -> bool:
        """Whether agents of this type may use it; None stands for a sidecar without an agent."""
        return agent_type is not None and (self.for_types is None or agent_type in self.for_types)


class SecretSpec(Spec):
    """Values that are sealed in the store, never shown, and added to calls by Envoy."""

    data: Annotated[dict[SecretKey, Value], Field(min_length=1, max_length=MAX_ITEMS)]
    """The values: text, `{fromEnv: NAME}` or `{fromFile: PATH}`. What is shown in place of one keeps it."""
    inject: Annotated[tuple[Injection, ...], Field(max_length=MAX_ITEMS)] = ()
    """The calls to which values are added."""
