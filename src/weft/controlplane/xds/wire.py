"""Between the protocol's bytes and its values. Everything a client sends is checked here."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from weft.controlplane.xds.delta import Request, Response
from weft.errors import InvalidRequest
from weft.model.node import Node

NODE_METADATA_KEY = "weft"
"""Where in the xDS node's metadata a sidecar describes itself."""

MAX_REASON_LENGTH = 2000
"""Characters kept of the reason a client gives for rejecting something."""

_LENGTH_DELIMITED = 2
_RESOURCES_TAG = DeltaDiscoveryResponse.RESOURCES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED


def parse_request(data: bytes) -> DeltaDiscoveryRequest:
    """The message in `data`. Raises InvalidRequest if there is none."""
    try:
        return DeltaDiscoveryRequest.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("not a DeltaDiscoveryRequest") from error


def request_of(message: DeltaDiscoveryRequest) -> Request:
    """What `message` says, without the node."""
    return Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message[:MAX_REASON_LENGTH] if message.HasField("error_detail") else None,
    )


def node_of(message: DeltaDiscoveryRequest) -> Node:
    """The sidecar that sent `message`. Raises InvalidRequest if it was no Weft sidecar."""
    described = message.node.metadata.fields.get(NODE_METADATA_KEY)
    if described is None or not described.HasField("struct_value"):
        raise InvalidRequest(
            f"xDS node {message.node.id[:200]!r} is not a Weft sidecar: its metadata has no object "
            f"{NODE_METADATA_KEY!r}; start it with `weft sidecar` or `weft run`"
        )
    node = Node.from_metadata(MessageToDict(described.struct_value))
    if message.node.id != node.key:
        raise InvalidRequest(f"xDS node {message.node.id[:200]!r} describes itself as {node.key!r}")
    return node


def serialise(response: Response, generation: int) -> bytes:
    """`response` as a serialised DeltaDiscoveryResponse.

    Resources are already encoded, and a protobuf message may have its fields in any order: they are
    appended as they are.
    """
    rest = DeltaDiscoveryResponse(
        system_version_info=str(generation),
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed,
    )
    return b"".join((rest.SerializeToString(), *_resource_fields(response)))


def _resource_fields(response: Response) -> Iterator[bytes]:
    for resource in response.resources:
        yield _varint(_RESOURCES_TAG)
        yield _varint(len(resource.wire))
        yield resource.wire


def _varint(value: int) -> bytes:
    """`value` in protobuf's base 128: seven bits a byte, lowest first, the top bit if more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
