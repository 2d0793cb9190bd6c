"""ExternalAgent: agents that run outside the mesh's care, without a sidecar, and are called through it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter

from weft.model.node import Address, parse_address
from weft.model.outside_host import MAX_HOST_LENGTH, OutsideName, is_ip
from weft.model.spec import MAX_ITEMS, Name, ShortText, Spec, Text

MAX_ENDPOINTS = 256
"""How many addresses one ExternalAgent may have."""

_HOST_NAME: TypeAdapter[str] = TypeAdapter(OutsideName)


class ExternalProtocol(StrEnum):
    """What the addresses speak."""

    HTTP1 = "http1"
    H2C = "h2c"
    """HTTP/2, as gRPC servers speak it."""


class ExternalTls(StrEnum):
    """How callers' sidecars connect to the addresses."""

    NONE = "none"
    """In plain text."""
    SERVER = "server"
    """By TLS, to servers for whose names the authorities vouch that the caller's machine trusts."""


def _endpoint(value: str) -> str:
    try:
        address = parse_address(value)
    except ValueError:
        raise ValueError("must be host:port, as crm.example:80, 10.0.0.7:8080 or [fd00::7]:8080") from None
    if value.startswith("[") or ":" in address.host:
        _check_ip(address.host, ipaddress.IPv6Address)
        if not value.startswith(f"[{address.host}]"):
            raise ValueError("must have its IPv6 address in brackets, as [fd00::7]:8080")
    elif is_ip(address.host):
        _check_ip(address.host, ipaddress.IPv4Address)
    else:
        _HOST_NAME.validate_python(address.host)
    return value


def _check_ip(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> None:
    try:
        address = kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address in its usual form") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{text} is not the address of one server")


ExternalEndpoint = Annotated[
    str, StringConstraints(max_length=MAX_HOST_LENGTH + 8), AfterValidator(_endpoint)
]
"""`host:port`: a name, in lower case, or an IP address; IPv6 in brackets."""


def _each_once(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(endpoints)) < len(endpoints):
        twice = next(each for each in endpoints if endpoints.count(each) > 1)
        raise ValueError(f"has {twice} twice")
    return endpoints


class ExternalAgentSpec(Spec):
    """Agents without a sidecar; metadata.name is their type."""

    description: Text = ""
    """For people."""
    endpoints: Annotated[
        tuple[ExternalEndpoint, ...],
        Field(min_length=1, max_length=MAX_ENDPOINTS),
        AfterValidator(_each_once),
    ]
    """Where they listen, as `host:port`. Calls are spread over all of them; a name stands for all addresses
    that it has."""
    protocol: ExternalProtocol = ExternalProtocol.HTTP1
    tls: ExternalTls = ExternalTls.NONE
    capabilities: Annotated[tuple[Name, ...], Field(max_length=MAX_ITEMS)] = ()
    """What they offer: `http://<capability>.cap.mesh/` leads to them."""
    version: ShortText = ""
    """Of all of them; Routes and AccessPolicies may be about that."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The endpoints, taken apart."""
        return tuple(parse_address(each) for each in self.endpoints)


def overshadowed(
    name: str, spec: ExternalAgentSpec, types: Collection[str], capabilities: Mapping[str, str]
) -> str | None:
    """Why an ExternalAgent does not get all calls that are meant for it; None if it does.

    `types` are those of the agents that have sidecars, `capabilities` theirs, each with a type that offers
    it. They count before it: what can be called by mutual TLS is not called without.
    """
    if name in types:
        return f"agents of type {name!r} with sidecars run: they get its calls, and it gets none"
    for each in spec.capabilities:
        if each in capabilities:
            return f"agents of type {capabilities[each]!r} offer {each!r}, too: they get the calls for it"
    return None
