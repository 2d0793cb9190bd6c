"""What a single Topic, Queue, Broker or Gateway says that cannot all hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from weft.errors import InvalidRequest
from weft.model.gateway import GatewaySpec
from weft.model.message_broker import BrokerSpec, BrokerType
from weft.model.names import check_type
from weft.model.resource import AnyResource
from weft.model.topic import DEAD_LETTERS
from weft.model.yaml_tree import Path

RESERVED_PREFIX = "weft-"
"""Names of topics and queues that begin so are the mesh's own."""

_SCHEMES = {
    BrokerType.REDIS: ("redis", "rediss"),
    BrokerType.RABBITMQ: ("amqp", "amqps"),
}


def of_channel(resource: AnyResource) -> Iterator[tuple[Path, str]]:
    """Of a Topic or a Queue."""
    name = resource.metadata.name
    if name.startswith(RESERVED_PREFIX):
        yield ("metadata", "name"), f"names that begin with {RESERVED_PREFIX!r} are the mesh's own"
    if resource.kind == "Topic" and name == DEAD_LETTERS:
        yield ("metadata", "name"), f"the topic {DEAD_LETTERS!r} is always there and cannot be declared"


def of_broker(resource: AnyResource) -> Iterator[tuple[Path, str]]:
    """Of a Broker."""
    spec: BrokerSpec = resource.spec
    if spec.type is BrokerType.NATS:
        for field in ("url", "username", "password", "management_url"):
            if field in spec.model_fields_set:
                yield ("spec", _camel(field)), "does not go with type nats, which is the NATS of the mesh"
    else:
        yield from _of_other_broker(spec)


def _of_other_broker(spec: BrokerSpec) -> Iterator[tuple[Path, str]]:
    schemes = _SCHEMES[spec.type]
    if spec.url is None:
        yield ("spec", "url"), f"is needed: where {spec.type.value} listens, as in {schemes[0]}://127.0.0.1"
    elif spec.url.partition("://")[0] not in schemes:
        yield ("spec", "url"), f"must begin with {' or '.join(f'{each}://' for each in schemes)}"
    if spec.management_url is not None and spec.type is not BrokerType.RABBITMQ:
        yield ("spec", "managementUrl"), "goes with type rabbitmq only"
    elif not (spec.management_url or "http://").startswith(("http://", "https://")):
        yield ("spec", "managementUrl"), "must begin with http:// or https://"


def of_gateway(resource: AnyResource) -> Iterator[tuple[Path, str]]:
    """Of a Gateway."""
    spec: GatewaySpec = resource.spec
    try:
        check_type(resource.metadata.name)
    except InvalidRequest as error:
        yield ("metadata", "name"), error.detail
    try:
        ipaddress.ip_address(spec.host)
    except ValueError:
        yield ("spec", "host"), "must be an IP address, such as 0.0.0.0 for all of the machine's"
    for index, issuer in enumerate(spec.jwt):
        if (issuer.jwks is None) == (issuer.jwks_url is None):
            yield ("spec", "jwt", index), "needs either jwksUrl or jwks"
        if issuer.issuer in {each.issuer for each in spec.jwt[:index]}:
            yield ("spec", "jwt", index, "issuer"), "stands here already: name all its audiences there"


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(each.title() for each in rest)
