"""Services without sidecars behind them, as ExternalAgents of a mesh. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from weft.kubernetes.agent_in_pod import PREFIX
from weft.kubernetes.agent_service import agent_service
from weft.kubernetes.problem import Problem, Refusal, warning
from weft.model.external_agent import MAX_ENDPOINTS, ExternalAgentSpec, ExternalProtocol
from weft.model.node import Address
from weft.model.validation import explain

PORT_ANNOTATION: Final = f"{PREFIX}port"
"""Of a Service: which of its ports agents are called at, by name or number, where it has several."""
PROTOCOL_ANNOTATION: Final = f"{PREFIX}protocol"
"""Of a Service: `http1` or `h2c`, where its port does not say (`appProtocol`)."""
CAPABILITIES_ANNOTATION: Final = f"{PREFIX}capabilities"
"""Of a Service: what the agents offer, with commas between."""

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
"""Of an EndpointSlice: the Service it is of."""

_VERSION_LABEL: Final = "app.kubernetes.io/version"
_H2C: Final = frozenset({"kubernetes.io/h2c", "h2c", "grpc"})
"""What `appProtocol` says for HTTP/2 in plain text."""

Document = Mapping[str, Any]
"""An object of Kubernetes, as JSON types."""


@dataclass(frozen=True, slots=True)
class PlainService:
    """What a Service without sidecars is to a mesh."""

    type: str
    """The type of agent."""
    spec: ExternalAgentSpec | None
    """None: no address is ready."""
    problems: tuple[Problem, ...] = ()
    """Warnings."""


def plain_service(service: Document, slices: Iterable[Document]) -> PlainService:
    """What `service` is to a mesh, with the EndpointSlices that belong to it. Raises Refusal if nothing."""
    facts = agent_service(service)
    if facts.type_problem is not None:
        raise Refusal("InvalidType", facts.type_problem)
    if facts.external:
        message = "an ExternalName has no addresses: declare an ExternalAgent in its place"
        raise Refusal("NoAddresses", message)
    annotations = service["metadata"].get("annotations") or {}
    port = _port(service, annotations.get(PORT_ANNOTATION))
    addresses = _addresses(slices, port.get("name") or "")
    problems: tuple[Problem, ...] = ()
    if len(addresses) > MAX_ENDPOINTS:
        message = f"only {MAX_ENDPOINTS} of {len(addresses)} addresses get calls: give its pods sidecars"
        problems = (warning("TooManyAddresses", message),)
    version = facts.version or (service["metadata"].get("labels") or {}).get(_VERSION_LABEL)
    spec = _spec(
        endpoints=addresses[:MAX_ENDPOINTS],
        protocol=annotations.get(PROTOCOL_ANNOTATION) or _protocol(port),
        capabilities=_listed(annotations.get(CAPABILITIES_ANNOTATION) or ""),
        version=version or "",
    )
    return PlainService(facts.type, spec if addresses else None, problems)


def _port(service: Document, wanted: str | None) -> Document:
    ports = (service.get("spec") or {}).get("ports") or ()
    chosen = [each for each in ports if wanted in {None, each.get("name"), str(each.get("port"))}]
    if len(chosen) != 1:
        which = "several ports" if chosen else "no ports" if wanted is None else f"no port {wanted!r}"
        message = f"it has {which}: have the annotation {PORT_ANNOTATION} name the one to call agents at"
        raise Refusal("PortUnclear", message)
    found: Document = chosen[0]
    return found


def _protocol(port: Document) -> str:
    return ExternalProtocol.H2C if port.get("appProtocol") in _H2C else ExternalProtocol.HTTP1


def _addresses(slices: Iterable[Document], port: str) -> list[str]:
    """The addresses that are ready; of pods with two of them, those of IPv4."""
    found: dict[str, set[str]] = {}
    for each in slices:
        number = next((at.get("port") for at in each.get("ports") or () if (at.get("name") or "") == port), 0)
        if number:
            found.setdefault(each.get("addressType") or "IPv4", set()).update(
                str(Address(address, number)) for address in _ready(each)
            )
    return sorted(next((found[family] for family in ("IPv4", "IPv6") if found.get(family)), ()))


def _ready(endpoint_slice: Document) -> Iterator[str]:
    for each in endpoint_slice.get("endpoints") or ():
        # Nothing said means ready, says the API.
        if (each.get("conditions") or {}).get("ready") is not False:
            yield from each.get("addresses") or ()


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _spec(**fields: Any) -> ExternalAgentSpec:
    # Without an address nothing else may be wrong either.
    given = {**fields, "endpoints": fields["endpoints"] or ["127.0.0.1:80"]}
    try:
        return ExternalAgentSpec.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(each) for each in first["loc"])
        message = f"{where}: {explain(first, ExternalAgentSpec)}"
        raise Refusal("InvalidAnnotation", message) from error
