"""What a sidecar is to know, as a value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from envoy.service.discovery.v3.discovery_pb2 import Resource
from google.protobuf.message import Message

from weft.model.node import Node

TYPE_PREFIX = "type.googleapis.com/"
CLUSTER = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
SECRET = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
EXTENSION = TYPE_PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
ROUTES = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"


@dataclass(frozen=True, slots=True)
class EncodedResource:
    """One xDS resource, serialised once and shared by every sidecar that gets it."""

    name: str
    version: str
    """A digest of its content: equal content has an equal version, in every replica."""
    wire: bytes = field(repr=False)
    """A serialised `envoy.service.discovery.v3.Resource` (name, version and the packed message)."""


def encode(name: str, message: Message, *, identity: bytes | None = None) -> EncodedResource:
    """Serialise `message` under `name`, versioned by its content, or by what `identity` says is as good.

    A version is seen by many: that of a secret must not be a digest of what is secret.
    """
    body = message.SerializeToString(deterministic=True)
    version = hashlib.blake2b(body if identity is None else identity, digest_size=8).hexdigest()
    resource = Resource(name=name, version=version)
    resource.resource.type_url = TYPE_PREFIX + message.DESCRIPTOR.full_name
    resource.resource.value = body
    return EncodedResource(name, version, resource.SerializeToString(deterministic=True))


_NOTHING: Mapping[str, EncodedResource] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one sidecar is to know: resources by name, for each type of resource.

    Mappings are shared between snapshots while they do not change, so `is` tells cheaply that one did not.
    """

    clusters: Mapping[str, EncodedResource]
    endpoints: Mapping[str, EncodedResource]
    listeners: Mapping[str, EncodedResource]
    routes: Mapping[str, EncodedResource]
    secrets: Mapping[str, EncodedResource] = field(default_factory=lambda: _NOTHING)
    extensions: Mapping[str, EncodedResource] = field(default_factory=lambda: _NOTHING)
    """Configuration of filters that changes often."""

    def of_type(self, type_url: str) -> Mapping[str, EncodedResource]:
        """The resources of one type; empty for a type that Weft does not serve."""
        by_type = {
            CLUSTER: self.clusters,
            ENDPOINTS: self.endpoints,
            LISTENER: self.listeners,
            ROUTES: self.routes,
            SECRET: self.secrets,
            EXTENSION: self.extensions,
        }
        return by_type.get(type_url, _NOTHING)


class SnapshotSource(Protocol):
    """Where the ADS server gets what it serves."""

    @property
    def generation(self) -> int:
        """Grows whenever any snapshot may have changed."""
        ...

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        ...

    def snapshot(self, node: Node) -> Snapshot:
        """What `node` is to know now. Cheap: what nodes share is made once."""
        ...
