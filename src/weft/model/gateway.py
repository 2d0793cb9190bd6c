"""Gateway: the door for callers outside the mesh."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from weft.model.duration import Duration, between
from weft.model.spec import MAX_ITEMS, Name, ShortText, Spec, Text, TypeName

HttpUrl = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\s@]+$")]


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError("must be an IP network such as 10.1.0.0/16") from error


Network = Annotated[str, StringConstraints(max_length=64), AfterValidator(_network)]


class Rate(Spec):
    """How much one caller may ask for."""

    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """In each `per`; so many may come at once."""
    per: Annotated[Duration, AfterValidator(between("1s", "24h"))] = 1.0


class JwtIssuer(Spec):
    """Whose JSON Web Tokens are taken."""

    issuer: ShortText
    """The claim `iss` that tokens must have."""
    audiences: Annotated[tuple[ShortText, ...], Field(min_length=1, max_length=MAX_ITEMS)]
    """One of which the claim `aud` must name."""
    jwks_url: HttpUrl | None = None
    """Where its keys are; asked for anew at unknown keys, and every ten minutes."""
    jwks: Annotated[str, StringConstraints(max_length=65536)] | None = None
    """The keys themselves, as a JSON Web Key Set, in place of `jwksUrl`."""


class WebhookSpec(Spec):
    """Where results may be sent."""

    allow_networks: Annotated[tuple[Network, ...], Field(max_length=MAX_ITEMS)] = ()
    """Networks that are not public (loopback, private, link-local) to which webhooks may go all the same."""
    allow_http: bool = False
    """Whether they may go over plain HTTP."""
    timeout: Annotated[Duration, AfterValidator(between("100ms", "60s"))] = 10.0
    """For one attempt, all in all."""
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 10


class TlsFiles(Spec):
    """What outside callers see it is; files on the gateway's machine."""

    certificate: Text
    """The chain, in PEM."""
    key: Text
    """The private key, in PEM."""


class GatewaySpec(Spec):
    """A door for callers outside the mesh; metadata.name is the agent type that its instances have."""

    description: Text = ""
    host: ShortText = "127.0.0.1"
    """Address where it listens."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Where it listens; instances on one machine share it."""
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """How many instances `weft up` runs."""
    tls: TlsFiles | None = None
    """Without it callers are spoken to in plain HTTP."""
    anonymous: bool = False
    """Whether callers without key or token are let in."""
    jwt: Annotated[tuple[JwtIssuer, ...], Field(max_length=16)] = ()
    queues: Annotated[tuple[Name, ...], Field(max_length=MAX_ITEMS)] | None = None
    """Queues that can be reached through it; by default all."""
    agents: Annotated[tuple[TypeName, ...], Field(max_length=MAX_ITEMS)] | None = None
    """Agent types that can be called through it; by default all."""
    topics: Annotated[tuple[Name, ...], Field(max_length=MAX_ITEMS)] | None = None
    """Topics that can be published to through it; by default all but dead-letters."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=10 * 1024 * 1024)] = 960 * 1024
    """Larger requests are refused with 413."""
    rate: Rate = Rate()
    """For each key, each subject of a token, and all that is anonymous; a key may have its own."""
    max_wait: Annotated[Duration, AfterValidator(between("0s", "10m"))] = 60.0
    """The longest `Prefer: wait=N` that is honoured."""
    webhooks: WebhookSpec = WebhookSpec()

    @property
    def url(self) -> str:
        """Where callers reach it from its own machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"
