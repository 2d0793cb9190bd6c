"""Whatever the manifests in tests/fixtures say, the real Envoy accepts what becomes of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.discovery_pb2 import Resource
from google.protobuf.json_format import MessageToDict
from tests.binaries import ENVOY
from tests.pki import Pki
from tests.sds import write_secrets

from weft.controlplane.snapshots import Snapshots
from weft.controlplane.xds.snapshot import EncodedResource
from weft.model.agent import Instance, Locality, Status
from weft.model.manifest import parse_manifest
from weft.model.node import Address, Inbound, Node
from weft.model.sds import SYSTEM_ROOTS
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN

MANIFESTS = sorted((Path(__file__).parents[1] / "fixtures" / "manifests").glob("*.yaml"))

INSTANCES = [
    Instance("s-1", "summarizer", "127.0.0.1:9001", Status.HEALTHY, frozenset({"summarize"}), "1"),
    Instance("s-2", "summarizer", "[::1]:9002", Status.HEALTHY, frozenset({"summarize"}), "2", weight=9),
    Instance(
        "t-1",
        "translator",
        "127.0.0.1:9003",
        Status.HEALTHY,
        frozenset({"translate"}),
        locality=Locality("eu", "a"),
    ),
]

NODES = [
    Node("door", outbound=Address("127.0.0.1", 20001)),
    Node(
        "s-1",
        outbound=Address("127.0.0.1", 20001),
        inbound=Inbound("summarizer", Address("127.0.0.1", 20002), Address("127.0.0.1", 20003)),
        locality=Locality("eu", "b"),
    ),
]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.key)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_envoy_accepts_the_translation_of(manifest: Path, node: Node, tmp_path: Path) -> None:
    snapshots = Snapshots([Address("127.0.0.1", 7400)])
    snapshots.update(INSTANCES, parse_manifest(manifest.read_text(), manifest.name))
    write_secrets(tmp_path, Pki(), f"spiffe://{DEFAULT_TRUST_DOMAIN}/agent/summarizer/s-1")
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(_static_bootstrap(snapshots, node)))
    result = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", config, "--log-level", "error"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def _static_bootstrap(snapshots: Snapshots, node: Node) -> dict[str, Any]:
    """The snapshot as a static bootstrap, routes inlined, so that Envoy checks all of it at once."""
    snapshot = snapshots.snapshot(node)
    routes = {each.name: each for each in _unpack(snapshot.routes.values(), RouteConfiguration)}
    bootstrap = Bootstrap()
    bootstrap.node.id = node.key
    bootstrap.node.cluster = "test"
    bootstrap.dynamic_resources.ads_config.api_type = 2  # GRPC
    bootstrap.dynamic_resources.ads_config.transport_api_version = 2  # V3
    bootstrap.dynamic_resources.ads_config.grpc_services.add().envoy_grpc.cluster_name = "agent"
    for name in ("agent", "telemetry"):
        cluster = bootstrap.static_resources.clusters.add(name=name, type=Cluster.STATIC)
        cluster.load_assignment.cluster_name = name
    # Whom the machine trusts, as sidecars say it.
    trusted = bootstrap.static_resources.secrets.add(name=SYSTEM_ROOTS)
    trusted.validation_context.trusted_ca.inline_bytes = Pki().bundle().pem
    bootstrap.static_resources.clusters.extend(_unpack(snapshot.clusters.values(), Cluster))
    for listener in _unpack(snapshot.listeners.values(), Listener):
        for http in listener.filter_chains[0].filters:
            manager = HttpConnectionManager()
            if not http.typed_config.Unpack(manager):
                continue
            if manager.HasField("rds"):
                manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
            http.typed_config.Pack(manager)
        bootstrap.static_resources.listeners.append(listener)
    as_json: dict[str, Any] = MessageToDict(bootstrap, preserving_proto_field_name=True)
    return as_json


def _unpack(resources: Iterable[EncodedResource], message: type[Any]) -> list[Any]:
    unpacked = []
    for each in resources:
        result = message()
        Resource.FromString(each.wire).resource.Unpack(result)
        unpacked.append(result)
    return unpacked
