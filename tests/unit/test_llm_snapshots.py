"""What sidecars are given of pools: by who they are, and of leases only what is fresh."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2 import LocalRateLimit
from envoy.service.discovery.v3.discovery_pb2 import Resource
from tests.llm import pool, secret

from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.llm_pools import Models, by_model
from weft.controlplane.translate.llm_scripts import provider_script
from weft.controlplane.xds.snapshot import Snapshot
from weft.model.llm_lease import LEASE_LIFETIME, Grant, Lease
from weft.model.manifest import parse_documents, parse_manifest
from weft.model.model_pool import ModelPool
from weft.model.node import Address, Inbound, Node
from weft.model.resource import AnyResource
from weft.model.yaml_tree import dump

HERE = Address("127.0.0.1", 1)
SCRIPT = Node("c-1", HERE)
WORKER = Node("w-1", HERE, Inbound("worker", HERE, HERE))
OTHER = Node("o-1", HERE, Inbound("other", HERE, HERE))
ONE = {"name": "one", "url": "https://api.example.test/v1", "key": {"secret": "keys", "key": "one"}}
SECRETS = Secrets(Sealer([b"k" * 32]))


def declared(*manifests: str) -> list[AnyResource]:
    return [SECRETS(each, None) for each in parse_documents("---\n".join(manifests))]


def policy(name: str, **spec: Any) -> str:
    document = {"apiVersion": "weft.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": name}}
    return dump([{**document, "spec": spec}])


def source(
    *manifests: str, labels_of: dict[str, dict[str, str]] | None = None, now: float = 100.0
) -> Snapshots:
    result = Snapshots([Address("127.0.0.1", 9)], secret_value=SECRETS.value, wall_clock=lambda: now)
    result.update([], declared(*manifests), labels_of=labels_of or {})
    return result


def buckets(snapshot: Snapshot) -> tuple[str, dict[tuple[str, str], int]]:
    """The number of the lease, and how large each bucket of a pool is."""
    config, limits = TypedExtensionConfig(), LocalRateLimit()
    Resource.FromString(snapshot.extensions["llm-lease"].wire).resource.Unpack(config)
    config.typed_config.Unpack(limits)
    sizes = {
        (each.entries[0].key, each.entries[0].value): each.token_bucket.max_tokens
        for each in limits.descriptors
        if each.entries[0].value != "-"
    }
    return limits.request_headers_to_add_when_not_enforced[0].header.value, sizes


def pools_of(snapshot: Snapshot) -> set[str]:
    return {name.split("/")[1] for name in snapshot.clusters if name.startswith("llm/")}


def test_a_fresh_lease_reaches_its_holder_only_and_a_stale_one_nobody() -> None:
    for age, given in ((0.0, True), (LEASE_LIFETIME, False), (-1.0, False)):
        snapshots = source(secret(one="k"), pool("gpt", ONE), now=100.0 + age)
        generation = snapshots.generation
        snapshots.update_leases({WORKER.key: Lease(WORKER.key, 7, 100.0, (Grant("gpt", 5, 900),))})
        assert snapshots.generation > generation
        nothing = ("0", {("tokens", "gpt"): 1})
        held = ("7", {("requests", "gpt"): 5, ("tokens", "gpt"): 900})
        assert buckets(snapshots.snapshot(WORKER)) == (held if given else nothing)
        assert buckets(snapshots.snapshot(OTHER)) == nothing
        assert snapshots.snapshot(WORKER).extensions is snapshots.snapshot(WORKER).extensions


def test_pools_and_keys_go_to_those_whom_policies_allow_and_to_nobody_else() -> None:
    manifests = [
        secret(one="k"),
        pool("gpt", ONE),
        pool("open", {"name": "one", "url": "http://a.test/v1"}),
        policy("no-others", effect="deny", to=[{"pool": "gpt"}], **{"from": [{"type": "other"}]}),
        policy("alice", effect="deny", to=[{"pool": "open"}], **{"from": [{"operator": "alice"}]}),
    ]
    snapshots = source(*manifests, labels_of={"spiffe://weft.local/operator/alice/c-1": {}})
    assert pools_of(snapshots.snapshot(WORKER)) == {"gpt", "open"}
    assert set(snapshots.snapshot(WORKER).secrets) == {"llm-key/gpt/one"}
    assert pools_of(snapshots.snapshot(OTHER)) == {"open"}
    assert not snapshots.snapshot(OTHER).secrets
    assert pools_of(snapshots.snapshot(SCRIPT)) == {"gpt"}
    assert snapshots.snapshot(WORKER).routes is not snapshots.snapshot(OTHER).routes


def test_sidecars_who_have_the_same_models_share_what_is_encoded() -> None:
    snapshots = source(secret(one="k"), pool("gpt", ONE))
    first, second = snapshots.snapshot(WORKER), snapshots.snapshot(OTHER)
    assert first.clusters is second.clusters
    assert first.secrets is second.secrets
    before = first.clusters["llm/gpt/one"]
    snapshots.update_scheduler(Address("127.0.0.1", 7))
    assert snapshots.snapshot(WORKER).clusters["llm/gpt/one"] is before


def test_a_value_that_could_not_be_a_header_is_no_key() -> None:
    snapshots = source(secret(one="k\r\nx-injected: 1"), pool("gpt", ONE))
    assert not snapshots.snapshot(WORKER).secrets


def test_what_has_to_be_asked_for_is_known_beforehand() -> None:
    limited = {"name": "one", "url": "http://a.test/v1", "limits": {"concurrency": 4}}
    free = {"name": "one", "url": "http://a.test/v1"}
    texts = [
        pool("a", limited),
        pool("b", free),
        pool("c", free),
        pool("d", free, scheduling={"fastPath": False}),
    ]
    pools = tuple(ModelPool(each.metadata.name, each.spec) for each in parse_manifest("---\n".join(texts)))
    known = by_model(Models(pools=pools, budgeted=frozenset({"b"})))
    assert {name: each["asks"] for name, each in known.items()} == {
        "a": True,
        "b": True,
        "c": False,
        "d": True,
    }


def test_nothing_that_is_declared_can_end_a_string_of_the_script() -> None:
    script = provider_script([{"path": '"}; os.exit() --\\', "model": None, "renamed": False}])
    assert "os.exit" not in script
