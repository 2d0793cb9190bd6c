"""ModelPool: a model as agents know it, and the providers that serve it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from weft.model.duration import Duration, between
from weft.model.header import HeaderName
from weft.model.outside_host import OutsideName
from weft.model.secret import Certificates, SecretKey
from weft.model.service_class import ServiceClass
from weft.model.spec import MAX_ITEMS, Name, ShortText, Spec, Text

ANY_MODEL = "*"
"""Stands for every model that no other pool has."""

MAX_PROVIDERS = 8
"""Of one pool. Each is the first of an order of its own in every Envoy, so their number counts twice."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")


def _model_name(value: str) -> str:
    if value != ANY_MODEL and not _MODEL.fullmatch(value):
        raise ValueError(
            f"{value!r} is no name of a model: letters, digits and ._:/@+-, beginning with a letter or "
            "digit; or '*' for every model that no other pool has"
        )
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            "must be an http or https URL without credentials, such as https://api.example.com/v1"
        )
    if parts.query or parts.fragment:
        raise ValueError("must have neither query nor fragment")
    return value.rstrip("/")


ModelName = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_model_name)]
ProviderUrl = Annotated[
    str, StringConstraints(max_length=1024, pattern=r"^[\x21-\x7e]+$"), AfterValidator(_url)
]
Price = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Preset(StrEnum):
    """What kind of service a provider is; decides its URL, its header for the key, and its paths."""

    OPENAI = "openai"
    AZURE = "azure"
    """Azure OpenAI: `url` is `https://RESOURCE.openai.azure.com`, `model` is the deployment."""
    HOLYSHEEP = "holysheep"
    VLLM = "vllm"
    OLLAMA = "ollama"
    COMPATIBLE = "openai-compatible"
    """Any service that speaks OpenAI's API at `url`."""


DEFAULT_URLS: Final[Mapping[Preset, str]] = {
    Preset.OPENAI: "https://api.openai.com/v1",
    Preset.HOLYSHEEP: "https://api.holysheep.ai/v1",
    Preset.VLLM: "http://127.0.0.1:8000/v1",
    Preset.OLLAMA: "http://127.0.0.1:11434/v1",
}
"""Where providers of a preset are, unless they say so themselves. The others must."""


class KeyReference(Spec):
    """The value of a Secret that Envoy adds to what goes to a provider."""

    secret: Name
    """A Secret."""
    key: SecretKey
    """Which value of its `data`."""


class Limits(Spec):
    """What one provider allows, for all of the mesh together. None: as much as you like."""

    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests under way at once."""
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """In any sixty seconds."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=100_000_000_000)] | None = None
    """Of prompts and answers together, in any sixty seconds."""
    context_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Of one prompt and its answer together; what is certainly larger is refused with 400."""


class Prices(Spec):
    """What a provider asks, in US dollars for a million tokens."""

    input: Price = 0.0
    output: Price = 0.0
    cached_input: Price | None = None
    """For tokens of the prompt that the provider had in its cache; by default as `input`."""


class Provider(Spec):
    """One service, or one replica of it, that serves the pool's models."""

    name: Name
    preset: Preset = Preset.COMPATIBLE
    url: ProviderUrl | None = None
    """Base URL, up to and with `/v1`. Needed where the preset has none."""
    model: ModelName | None = None
    """What the model is called there; by default as the agent asks for it."""
    api_version: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    """Azure's `api-version`; by default `2024-10-21`."""
    key: KeyReference | None = None
    """Without it calls go there without a key, whatever key the agent sends."""
    address: OutsideName | None = None
    """Where to connect to, if that is not what the URL's host resolves to."""
    ca: Certificates | None = None
    """Who vouches for it: certificates in PEM; by default whom the sidecar's machine trusts."""
    order: Annotated[int, Field(ge=0, le=100)] = 0
    """Providers of the lowest order are used while they can; the next ones when these fail or are full."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Its share among those of the same order."""
    limits: Limits = Limits()
    prices: Prices = Prices()
    first_token: Annotated[Duration, AfterValidator(between("100ms", "10m"))] = 60.0
    """How long a streamed answer may be silent, before its first token and between tokens."""
    timeout: Annotated[Duration, AfterValidator(between("100ms", "1h"))] = 600.0
    """How long an answer that is not streamed may take."""

    @property
    def base_url(self) -> str:
        """Its URL, or its preset's; empty where neither has one."""
        return self.url or DEFAULT_URLS.get(self.preset, "")


class Tenant(Spec):
    """What one tenant gets."""

    name: ShortText
    """An agent type, or a value of the header that `tenantHeader` names."""
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Its share of the tokens while several tenants wait."""
    service_class: ServiceClass = Field(default=ServiceClass.STANDARD, alias="class")
    """The best class its calls may have; a call may ask for a lesser one by `x-weft-class`."""


class Scheduling(Spec):
    """How calls wait, and who goes first."""

    tenant_header: HeaderName | None = None
    """A request header by whose value service is divided; by default it is divided by agent type."""
    tenants: Annotated[tuple[Tenant, ...], Field(max_length=MAX_ITEMS)] = ()
    """Tenants that are not like all others, who have weight 1 and class standard."""
    max_waiting: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Calls that wait at once; beyond it they are refused with 429."""
    max_wait: Annotated[Duration, AfterValidator(between("0s", "1h"))] = 120.0
    """How long a call waits before it is refused with 429."""
    assumed_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Tokens to reserve for the answer to a call that does not bound it, until experience tells better."""
    fast_path: bool = True
    """Whether sidecars may send calls without asking, on leased quota, while nobody waits."""


class Affinity(StrEnum):
    """Which calls prefer the provider that had the one before."""

    PREFIX = "prefix"
    """Those of the same context (`x-weft-context`), and those whose prompts begin alike."""
    NONE = "none"


class ModelPoolSpec(Spec):
    """A model; metadata.name is the name under which agents ask for it, unless `models` has others."""

    description: Text = ""
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=MAX_ITEMS)] | None = None
    """Names under which agents ask for it; `*` is every name that no other pool has."""
    providers: Annotated[tuple[Provider, ...], Field(min_length=1, max_length=MAX_PROVIDERS)]
    scheduling: Scheduling = Scheduling()
    affinity: Affinity = Affinity.PREFIX
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 16 * 1024 * 1024
    """Larger requests are refused with 413."""


@dataclass(frozen=True, slots=True)
class ModelPool:
    """A pool with its name: what all parts that deal with pools pass around."""

    name: str
    spec: ModelPoolSpec

    @property
    def models(self) -> tuple[str, ...]:
        """The names under which agents ask for it."""
        return self.spec.models or (self.name,)

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Its providers, those to be used first at the beginning."""
        return tuple(sorted(self.spec.providers, key=lambda each: each.order))

    def provider(self, name: str) -> Provider | None:
        """The provider of that name."""
        return next((each for each in self.spec.providers if each.name == name), None)

    def order_from(self, first: str) -> tuple[str, ...]:
        """The names of its providers in the order in which a call tries them that begins with `first`."""
        return (first, *(each.name for each in self.providers if each.name != first))


def pool_for(model: str, pools: Iterable[ModelPool]) -> ModelPool | None:
    """The pool that serves `model`: the one that names it, else the one that takes any."""
    any_model = None
    for pool in pools:
        if model in pool.models:
            return pool
        if ANY_MODEL in pool.models:
            any_model = pool
    return any_model
