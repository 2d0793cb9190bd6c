"""SPIFFE IDs, and which of them Weft gives to whom.

The form is that of the SPIFFE ID standard (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md).
Weft's own have one of three paths:

| SPIFFE ID | who |
|---|---|
| `spiffe://<trust domain>/agent/<type>/<instance>` | a sidecar beside an agent |
| `spiffe://<trust domain>/operator/<name>/<id>` | a sidecar without an agent, run by an operator |
| `spiffe://<trust domain>/control/<replica>` | a replica of the control plane |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from weft.errors import InvalidRequest
from weft.model.names import check_name, check_type

SCHEME = "spiffe://"

MAX_SPIFFE_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

DEFAULT_TRUST_DOMAIN = "weft.local"
"""The trust domain of a mesh that is not told another."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")


class Role(StrEnum):
    """What the holder of an identity is: the first segment of its SPIFFE ID's path."""

    AGENT = "agent"
    OPERATOR = "operator"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID. Making one raises InvalidRequest if it is not of the standard's form."""

    trust_domain: str
    path: str = ""
    """Empty, or begins with `/` and has no empty, `.` or `..` segment."""

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        segments = self.path.split("/")[1:]
        well_formed = all(_SEGMENT.fullmatch(each) and each not in {".", ".."} for each in segments)
        if self.path and not (self.path.startswith("/") and well_formed):
            raise InvalidRequest(f"{self.path[:200]!r} is not the path of a SPIFFE ID")
        if len(str(self)) > MAX_SPIFFE_ID_BYTES:
            raise InvalidRequest(f"a SPIFFE ID has at most {MAX_SPIFFE_ID_BYTES} bytes")

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments."""
        return tuple(self.path.split("/")[1:])

    @property
    def role(self) -> Role | None:
        """What its holder is in a Weft mesh; None if the ID is none that Weft gives."""
        match self.segments:
            case ("agent", _, _):
                return Role.AGENT
            case ("operator", _, _):
                return Role.OPERATOR
            case ("control", _):
                return Role.CONTROL
        return None

    @property
    def agent_type(self) -> str | None:
        """The type of the agent whose identity it is; None if it is no agent's."""
        return self.segments[1] if self.role is Role.AGENT else None


def parse_spiffe_id(text: str) -> SpiffeId:
    """The SPIFFE ID that `text` is. Raises InvalidRequest if it is none."""
    if not text.startswith(SCHEME):
        raise InvalidRequest(f"{text[:200]!r} is not a SPIFFE ID: it does not begin with {SCHEME}")
    domain, slash, path = text.removeprefix(SCHEME).partition("/")
    return SpiffeId(domain, slash + path)


def check_trust_domain(name: str) -> str:
    """Return `name` if it is a trust domain's, else raise InvalidRequest."""
    if len(name) <= MAX_TRUST_DOMAIN_BYTES and _TRUST_DOMAIN.fullmatch(name):
        return name
    raise InvalidRequest(
        f"{name[:300]!r} is not a trust domain: use up to {MAX_TRUST_DOMAIN_BYTES} lower-case letters, "
        "digits, dots, hyphens and underscores"
    )


def agent_id(trust_domain: str, agent_type: str, instance: str) -> SpiffeId:
    """The identity of the sidecar beside an agent. Raises InvalidRequest where a name is none."""
    return SpiffeId(
        trust_domain, f"/{Role.AGENT}/{check_type(agent_type)}/{check_name(instance, 'instance')}"
    )


def operator_id(trust_domain: str, operator: str, instance: str) -> SpiffeId:
    """The identity of a sidecar without an agent, run by `operator`. Raises InvalidRequest likewise."""
    name = check_name(operator, "operator")
    return SpiffeId(trust_domain, f"/{Role.OPERATOR}/{name}/{check_name(instance, 'instance')}")


def control_id(trust_domain: str, replica: str) -> SpiffeId:
    """The identity of a replica of the control plane. Raises InvalidRequest likewise."""
    return SpiffeId(trust_domain, f"/{Role.CONTROL}/{check_name(replica, 'replica')}")
