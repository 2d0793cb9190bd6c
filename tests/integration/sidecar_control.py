"""A control plane that knows one thing: every sidecar's outbound listener, and its inbound one to the agent.

It gives out identities as the real one does, and speaks just enough incremental xDS, over mTLS, for the real
Envoy of a sidecar to come up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from tests.authority import AuthorityApi, authority_api

from weft.controlplane.xds.credentials import ServerIdentity, server_credentials
from weft.model.node import Address, Node

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
TYPE = "type.googleapis.com/"

# Parsing the dictionaries below needs the messages in them to be known.
assert router_pb2.DESCRIPTOR
assert http_connection_manager_pb2.DESCRIPTOR


@dataclass(frozen=True)
class Control:
    """Where the two halves are."""

    api: AuthorityApi
    xds: Address


@asynccontextmanager
async def control_plane(directory: Path) -> AsyncIterator[Control]:
    """Serve until the context is left; the roots are written into `directory`."""
    async with authority_api(directory) as api, xds_server(api) as xds:
        yield Control(api, xds)


@asynccontextmanager
async def xds_server(api: AuthorityApi, port: int = 0) -> AsyncIterator[Address]:
    """Serve xDS to those who have an identity of `api`'s, until the context is left; yields where."""

    def identity() -> ServerIdentity:
        svid, key = api.own.held
        return ServerIdentity(svid.chain_pem, key, api.membership.authority.bundles.own.pem)

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        _stream,
        request_deserializer=DeltaDiscoveryRequest.FromString,
        response_serializer=DeltaDiscoveryResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {"DeltaAggregatedResources": handler})]
    )
    bound = server.add_secure_port(f"127.0.0.1:{port}", server_credentials(identity))
    await server.start()
    try:
        yield Address("127.0.0.1", bound)
    finally:
        await server.stop(0)


async def _stream(
    requests: AsyncIterator[DeltaDiscoveryRequest], _: grpc.aio.ServicerContext[Any, Any]
) -> AsyncIterator[DeltaDiscoveryResponse]:
    node: Node | None = None
    async for request in requests:
        if node is None:
            node = Node.from_metadata(MessageToDict(request.node.metadata)["weft"])
        if request.error_detail.code:
            raise AssertionError(request.error_detail.message)
        if not request.response_nonce:
            yield _response(request.type_url, node)


def _response(type_url: str, node: Node) -> DeltaDiscoveryResponse:
    response = DeltaDiscoveryResponse(type_url=type_url, nonce="1", system_version_info="1")
    for name, message in _resources(node).get(type_url, ()):
        resource = response.resources.add(name=name, version="1")
        resource.resource.Pack(message)
    return response


def _resources(node: Node) -> dict[str, Sequence[tuple[str, Message]]]:
    listeners = [_listener("outbound", node.outbound, {"direct_response": {"status": 404}})]
    if node.inbound is not None:
        to_agent = {"route": {"cluster": "agent", "timeout": "0s"}}
        listeners.append(_listener("inbound", node.inbound.listen, to_agent))
    return {TYPE + Listener.DESCRIPTOR.full_name: listeners}


def _listener(name: str, address: Address, action: dict[str, Any]) -> tuple[str, Message]:
    connection_manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager,
            }
        ]
    }
    listener = {
        "name": name,
        "address": _socket_address(address),
        "filter_chains": [chain],
        "traffic_direction": name.upper(),
    }
    return name, ParseDict(listener, Listener())


def _socket_address(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address.host, "port_value": address.port}}
